"""What people write for the address of a service."""

import pytest

from crdt_sessions import Agent, Past, connect
from crdt_sessions.client.address import service_url
from crdt_sessions.errors import BadUrl


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        (" http://127.0.0.1:8000/ ", "http://127.0.0.1:8000"),
        ("https://sessions.example", "https://sessions.example"),
        ("https://example.com/behind/a/proxy/", "https://example.com/behind/a/proxy"),
        ("https://example.com/v1things", "https://example.com/v1things"),
        ("wss://sessions.example:8443", "https://sessions.example:8443"),
        ("ws://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_the_address_of_a_service(given, meant):
    assert service_url(given) == meant


@pytest.mark.parametrize(
    ("given", "instead", "why"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000", "no scheme"),
        ("localhost:8000", "http://localhost:8000", "no scheme"),
        ("sessions.example/?session=demo", "http://sessions.example", "no scheme"),
        ("", "http://127.0.0.1:8000", "no scheme"),
        ("ftp://127.0.0.1:8000", "http://127.0.0.1:8000", "its scheme is 'ftp'"),
        ("htp://127.0.0.1:8000", "http://127.0.0.1:8000", "its scheme is 'htp'"),
        ("http://", "http://127.0.0.1:8000", "names no host"),
        ("http:///room", "http://127.0.0.1:8000", "names no host"),
        ("http://127.0.0.1:eight", "http://127.0.0.1:8000", "its port is not a number"),
        ("http://127.0.0.1:80000", "http://127.0.0.1:8000", "its port is not a number"),
        ("ws://host:8000/v1/sync", "http://host:8000", "leave /v1/sync away"),
        ("http://host:8000/v1", "http://host:8000", "leave /v1 away"),
        ("http://host/behind/v1/sync/room", "http://host/behind", "leave /v1/sync/room away"),
        ("http://host:8000/?session=demo#token=t", "http://host:8000", "leave away what begins with"),
    ],
)
def test_what_is_no_address_of_a_service_is_refused_at_once_with_what_may_be_meant(given, instead, why):
    doors = (
        lambda: connect(given, "room"),
        lambda: connect(given, "room", offline="never.db"),
        lambda: Agent(given, name="writer"),
        lambda: Past(given, "room"),
    )
    for door in doors:
        with pytest.raises(BadUrl, match=why) as caught:
            door()
        assert isinstance(caught.value, ValueError)
        assert caught.value.instead == instead
        assert caught.value.instead in str(caught.value)
