"""Durable Streams, Electric's HTTP protocol: logs of bytes or JSON messages at ``/v1/streams/<path>``.

Source: the protocol's draft 1.0, and ``@durable-streams/server-conformance-tests`` 0.3.6. ``headers`` reads requests
and spells answers, ``reading`` answers reads of anything that can be read as a stream, ``routes`` are the methods of
streams of their own. ``paths`` says which paths are theirs. ``subscription_routes`` are the methods of
subscriptions, with ``subscription_models``; ``signing`` has the key for their webhooks, and ``webhook_urls`` says
where these may go. ``views`` and ``updates`` show what is in a session as streams, and ``session_routes`` and
``yjs_routes`` are their methods.
"""

from crdt_sessions_server.gateways.durable_streams.routes import blueprint

__all__ = ["blueprint"]
