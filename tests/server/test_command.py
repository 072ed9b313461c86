"""The command line: settings from three places, clear refusals, an end in time."""

import asyncio
import os
import signal
import subprocess
import sys
import time

import pytest
import websockets

from crdt_sessions import connect
from crdt_sessions.wire import SyncStep1, encode
from crdt_sessions_server.cli import main
from crdt_sessions_server.settings import Settings
from tests.processes import PATIENCE, Server, command


def _refused(*flags, env=None):
    done = command("serve", *flags, **(env or {}))
    assert done.returncode == 2, done.stdout + done.stderr
    return done.stderr


def test_flags_win_over_environment_over_file(tmp_path, monkeypatch):
    file = tmp_path / "settings.toml"
    file.write_text('port = 1\nhost = "::1"\nlog_level = "error"\n')
    monkeypatch.setenv("CRDT_SESSIONS_PORT", "2")
    monkeypatch.setenv("CRDT_SESSIONS_HOST", "localhost")
    settings = Settings.load({"port": 3}, file)
    assert (settings.port, settings.host, settings.log_level) == (3, "localhost", "error")


def test_without_tokens_it_serves_this_machine_only(tmp_path):
    said = _refused("--host", "0.0.0.0", "--port", "0", "--database", str(tmp_path / "s.db"))
    assert "--tokens-file" in said
    assert not (tmp_path / "s.db").exists()


def test_wrong_settings_are_named(tmp_path):
    assert "port" in _refused("--port", "99999")
    assert "CRDT_SESSIONS_LOG_FORMAT" in _refused(env={"CRDT_SESSIONS_LOG_FORMAT": "xml"})
    (tmp_path / "s.toml").write_text("prot = 1\n")
    assert "prot" in _refused("--config", str(tmp_path / "s.toml"))
    tokens = tmp_path / "tokens.json"
    tokens.write_text('{"s3cret": {"principal": ""}}')
    said = _refused("--port", "0", "--tokens-file", str(tokens))
    assert "tokens file" in said
    assert "s3cret" not in said
    assert "missing.json" in _refused("--port", "0", "--tokens-file", str(tmp_path / "missing.json"))


def test_a_port_in_use_is_reported(server):
    assert "another --port" in _refused("--port", str(server.port))


def test_a_second_server_on_the_same_file_is_refused(server):
    assert "in use by another process" in _refused("--port", "0", "--database", str(server.database))


def test_the_address_is_printed_in_one_write(tmp_path):
    """In a container, which is unbuffered, the log goes to the same place and would come between."""
    reading, writing = os.pipe2(os.O_DIRECT)  # a read returns what one write wrote
    with subprocess.Popen(
        [sys.executable, "-m", "crdt_sessions_server", "serve", "--port", "0", "--database", tmp_path / "s.db"],
        stdout=writing, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as child:  # fmt: skip
        os.close(writing)
        try:
            said = os.read(reading, 4096).decode()
        finally:
            child.kill()
            os.close(reading)
    assert "on http://" in said
    assert said.endswith("\n")


def test_log_lines_can_be_json(tmp_path):
    import json

    server = Server(tmp_path / "s.db", "--log-format", "json", "--log-level", "info")
    try:

        async def misbehave():
            async with websockets.connect(f"{server.ws}/room") as websocket:
                await websocket.send(b"\x63")
                with pytest.raises(websockets.ConnectionClosed):
                    while True:
                        await websocket.recv()

        asyncio.run(misbehave())
        line = json.loads(server.wait_for(r"(\{.*peer refused.*\})").group(1))
        assert (line["session"], line["close_code"], line["level"]) == ("room", 4400, "warning")
        assert isinstance(line["peer"], int)
    finally:
        server.close()


async def test_shutdown_flushes_closes_with_1012_and_ends_in_time(tmp_path):
    """With an idle client, a flooding one, one that never reads, an event stream and a kept-alive connection."""
    server = Server(tmp_path / "s.db")
    with server.http() as http:
        http.get("/healthz")  # its connection is kept alive
        async with connect(server.url, "room") as flooding, websockets.connect(f"{server.ws}/room") as idle:
            await idle.send(encode(SyncStep1(b"\x00")))
            stalled = await asyncio.open_connection("127.0.0.1", server.port)
            stalled[1].write(
                b"GET /v1/sync/room HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            following = asyncio.create_task(_follow(server))
            for n in range(200):
                await flooding.post(f"m{n}", wait=False)
            acknowledged = flooding.view.messages.ids() if not flooding.unacknowledged else []
            await asyncio.sleep(0.3)
            begun = time.monotonic()
            server.child.send_signal(signal.SIGTERM)
            with pytest.raises(websockets.ConnectionClosed):
                async with asyncio.timeout(PATIENCE):
                    while True:
                        await idle.recv()
            assert (idle.close_code, idle.close_reason) == (1012, "the server restarts")
            status = await asyncio.to_thread(server.child.wait, 20)
            took = time.monotonic() - begun
            assert status == 0, "\n".join(server.lines)
            assert took < 15
            assert "Traceback" not in "\n".join(server.lines), "\n".join(server.lines)
            stalled[1].close()
            await asyncio.gather(following, return_exceptions=True)
            server.close()
            revived = server.again()
            try:
                await asyncio.wait_for(flooding.durable(), PATIENCE)
                with revived.http() as again:
                    stored = again.get("/v1/sessions/room/messages", params={"limit": 1000}).json()["messages"]
                assert len(stored) == 200
                assert set(acknowledged) <= {m["id"] for m in stored}
            finally:
                revived.close()


async def _follow(server):
    import httpx

    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
        async with client.stream("GET", f"{server.url}/v1/sessions/room/events") as response:
            async for _ in response.aiter_lines():
                pass


def test_the_benchmarks_outside_a_checkout_say_where_they_are(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "crdt_sessions_server", "bench"],
        capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert "make bench" in done.stderr


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--client", "/nowhere"), "--client '/nowhere' cannot be started: No such file or directory"),
        (("--client", "a 'b"), "is no command: No closing quotation"),
        (("--url", "http://127.0.0.1"), "is no address for WebSockets, such as ws://"),
    ],
)
def test_a_conformance_run_that_cannot_begin_says_why(flags, said, capsys):
    assert main(["conformance", *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_command_whose_reader_has_enough_ends_without_a_traceback():
    with subprocess.Popen(
        [sys.executable, "-m", "crdt_sessions_server", "conformance", "--client", "false"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as child:  # fmt: skip
        child.stdout.close()
        said = child.stderr.read().decode()
    assert said == ""
    assert child.returncode == 1
