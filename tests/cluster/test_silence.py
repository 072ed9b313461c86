"""A node that may have been counted as gone answers nothing of what it has: others may have gone on without it."""

import pytest

from crdt_sessions_server.cluster.silence import Silence

START = {"type": "http.response.start", "status": 200, "headers": []}
PIECE = {"type": "http.response.body", "body": b"what it has", "more_body": True}
END = {"type": "http.response.body", "body": b""}


async def told(answer, *, type="http", path="/v1/sessions/room/messages", until=0):
    """Return what a client hears of an answer by a node that may tell only the first *until* events."""
    heard = []

    async def app(scope, receive, send):
        for event in answer:
            await send(event)

    async def send(event):
        heard.append(event)

    await Silence(app, lambda: len(heard) < until)({"type": type, "path": path}, None, send)
    return heard


async def test_who_may_tell_everything_does():
    assert await told([START, PIECE, END], until=3) == [START, PIECE, END]


async def test_an_answer_that_has_not_begun_is_a_refusal_that_says_when_to_come_back():
    start, body = await told([START, PIECE, END])
    assert (start["status"], dict(start["headers"])[b"retry-after"]) == (503, b"1")
    assert body == {"type": "http.response.body", "body": b""}


async def test_an_answer_that_has_begun_is_broken_off():
    assert await told([START, PIECE, PIECE, END], until=2) == [START, PIECE]


async def test_a_socket_is_sent_nothing_and_may_be_closed():
    accept, message = {"type": "websocket.accept"}, {"type": "websocket.send", "bytes": b"what it has"}
    close = {"type": "websocket.close", "code": 1012}
    assert await told([accept, message], type="websocket", path="/ws", until=1) == [accept]
    assert await told([close], type="websocket", path="/ws") == [close]


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_how_it_is_it_says_always(path):
    assert await told([START, END], path=path) == [START, END]
