"""The log: what an operator reads at each level, nothing of what others would like to say, and no secrets."""

import asyncio
import json
import logging
import signal
import sys
from pathlib import Path

import httpx
import pytest
import websockets
from hypercorn.config import Config

from crdt_sessions import connect
from crdt_sessions.storage import MemoryStore
from crdt_sessions_server.log_lines import ConsoleLines, JsonLines
from crdt_sessions_server.process import configure_logging
from crdt_sessions_server.service import Service
from crdt_sessions_server.serving.access_log import LOGGER, AccessLogger
from crdt_sessions_server.settings import Settings
from tests.processes import PATIENCE, Server

OTHERS = ("aiosqlite", "httpx", "httpcore", "hypercorn.error", "asyncio", "websockets.server")


@pytest.fixture
def levels():
    """Logging is one for the process: take it as it is in a fresh one, and leave it as it was."""
    names = ("", "crdt_sessions", LOGGER, *OTHERS)
    before = [(logging.getLogger(name), logging.getLogger(name).level) for name in names]
    handlers = logging.getLogger().handlers[:]
    for name in OTHERS:  # Hypercorn sets a level of its own where a test before served in this process
        logging.getLogger(name).setLevel(logging.NOTSET)
    yield
    logging.getLogger().handlers[:] = handlers
    for logger, level in before:
        logger.setLevel(level)


def _heard(name):
    level = logging.getLogger(name).getEffectiveLevel()
    return logging.getLevelName(level).lower()


@pytest.mark.parametrize(
    ("level", "ours", "others"),
    [
        ("debug", "debug", "warning"),
        ("info", "info", "warning"),
        ("warning", "warning", "warning"),
        ("error", "error", "error"),
    ],
)
def test_the_log_level_is_for_our_loggers_and_others_log_only_problems(levels, level, ours, others):
    configure_logging(Settings(log_level=level))
    assert _heard("crdt_sessions.registry") == ours
    for name in OTHERS:
        assert _heard(name) == others
    assert _heard(LOGGER) == "info", "who asks for the access log gets it at every level"


def _record(**more):
    return logging.makeLogRecord(
        {"name": "crdt_sessions.x", "levelno": 30, "levelname": "WARNING", "created": 1.5, "msg": "was %s", **more}
        | {"args": ("late",)}
    )


def _failed():
    try:
        raise ValueError("no")
    except ValueError:
        return sys.exc_info()


def test_a_line_of_json_has_the_ids_and_the_exception_and_is_one_line():
    line = JsonLines().format(_record(session="a\nb", size=3, path=Path("x"), exc_info=_failed()))
    told = json.loads(line)
    assert "\n" not in line
    assert told.pop("exception").splitlines()[-1] == "ValueError: no"
    assert told == {
        "event": "was late", "level": "warning", "logger": "crdt_sessions.x", "timestamp": "1970-01-01T00:00:01.500000Z",
        "session": "a\nb", "size": 3, "path": repr(Path("x")),
    }  # fmt: skip


def test_a_line_for_people_has_the_ids_and_a_traceback_below_it():
    line, *trace = ConsoleLines().format(_record(session="a b", run="r", exc_info=_failed())).splitlines()
    assert line.split() == [
        "1970-01-01T00:00:01.500000Z", "[warning", "]", "was", "late", "[crdt_sessions.x]", "run=r", "session='a", "b'"
    ]  # fmt: skip
    assert (trace[0], trace[-1]) == ("Traceback (most recent call last):", "ValueError: no")
    assert ConsoleLines().format(_record(exc_info=(None, None, None))).count("\n") == 0


async def test_requests_are_told_without_their_queries_and_only_if_asked_for(caplog):
    caplog.set_level(logging.INFO, LOGGER)
    request = {
        "type": "http",
        "method": "GET",
        "path": "/v1/sessions/two\nlines é",
        "query_string": b"token=s3cret",
        "headers": [(b"authorization", b"Bearer s3cret"), (b"referer", b"http://x/?token=s3cret")],
        "client": ("10.1.2.3", 55555),
    }
    config = Config()
    config.accesslog = None
    await AccessLogger(config).access(request, {"status": 200, "headers": []}, 0.0123)
    assert not caplog.records
    config.accesslog = logging.getLogger(LOGGER)
    await AccessLogger(config).access(request, {"status": 200, "headers": []}, 0.0123)
    await AccessLogger(config).access(request, None, 2)
    done, cut = caplog.records
    assert done.message == "GET /v1/sessions/two%0Alines%20%C3%A9 200"
    assert (done.address, done.method, done.status, done.took_ms) == ("10.1.2.3", "GET", 200, 12)
    assert (cut.message.endswith(" cut off"), cut.status) == (True, None)
    assert "s3cret" not in json.dumps([vars(line) for line in caplog.records], default=str)


async def test_requests_refused_during_a_shutdown_are_not_logged_as_errors(caplog):
    async with Service(Settings(), store=MemoryStore()) as service:
        await service.registry.shutdown()
        answer = await service.app.test_client().post("/v1/sessions", json={"id": "late"})
        assert answer.status_code == 503
    assert [line.message for line in caplog.records if line.levelno >= logging.WARNING] == []


async def test_an_ordinary_stop_asked_for_twice_logs_no_error(tmp_path):
    """With somebody who writes, somebody silent, an event reader, one who waits for work, and half a request."""
    server = Server(
        tmp_path / "s.db", "--access-log", "--log-format", "json", "--log-level", "debug", "--shutdown-s", "20"
    )
    try:
        async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=PATIENCE) as http:
            async with connect(server.url, "room") as peer, websockets.connect(f"{server.ws}/room?token=s3cret"):
                asked = http.post("/v1/runs/claim", json={"agents": ["writer"], "waitS": 25})
                waiting = asyncio.create_task(asked)
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(b"GET /v1/sessions/room/events?token=s3cret HTTP/1.1\r\nHost: localhost\r\n\r\n")
                await reader.readuntil(b"\r\n\r\n")
                _, half = await asyncio.open_connection("127.0.0.1", server.port)
                half.write(b"GET /v1/sess")
                await peer.post("hello")
                await http.get("/v1/sessions/room", params={"token": "s3cret"})
                for _ in range(2):
                    server.child.send_signal(signal.SIGINT)
                status = await asyncio.to_thread(server.child.wait, PATIENCE)
                await asyncio.gather(waiting, return_exceptions=True)
                for each in (writer, half):
                    each.close()
    finally:
        server.close()
    output = "\n".join(server.lines)
    assert status == 0, output
    assert "Traceback" not in output
    assert "s3cret" not in output
    told = [json.loads(line) for line in server.lines if line.startswith("{")]
    assert {line["level"] for line in told} <= {"debug", "info"}, output
    assert {line["logger"].partition(".")[0] for line in told} == {"crdt_sessions"}, "no SQL"
    assert "WebSockets are served directly" in {line["event"] for line in told}
    requests = {line["event"] for line in told if line["logger"] == LOGGER}
    assert {"WEBSOCKET /v1/sync/room 101", "GET /v1/sessions/room 200"} <= requests
    assert {line["event"] for line in told} >= {"session begins"}
