"""The Model Context Protocol, in front of the service's REST interface.

All that its tools and resources do is a REST request in the name of who asks, so that nothing is allowed here that is
not allowed there. The service itself serves it at ``/mcp``, with requests that never leave the process
(:mod:`crdt_sessions_server.gateways.mcp`); ``crdt-sessions mcp`` serves it to one client over its standard input and
output, with requests to a service anywhere.

The modules import the package ``mcp``, which takes most of a second: nothing is to import them before it is needed.
"""
