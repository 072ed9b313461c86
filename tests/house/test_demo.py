"""The demo: what it plays, and that its parts may be killed."""

import asyncio
import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from pycrdt import Text

from crdt_sessions import connect
from crdt_sessions.model import SessionDoc, SessionView
from examples import demo
from examples.demo_agents import caret, written_of
from examples.scripted_model import ABOUT, PACKING, RAIN, WEEKEND, behind, chunks, reply
from tests.processes import PATIENCE, ROOT, Process, all_gone, free_port

LINUX = sys.platform == "linux"


# -- the script --------------------------------------------------------------------------------------------------------


def ask(text, *more, tools=("write_notes",)):
    return reply([{"role": "user", "content": text}, *more], set(tools))


def text_of(pieces):
    deltas = [choice["delta"] for choice in chunks(pieces)]
    return "".join(delta.get("content", "") for delta in deltas)


def test_each_suggestion_has_an_answer_of_its_own():
    plan, book, pack = (each["text"] for each in demo.SUGGESTIONS)
    planner = ("write_notes", "book_seats")
    assert text_of(ask(plan)) == WEEKEND
    assert [kind for kind, _ in ask(book, tools=planner)] == ["think", "say", "book_seats"]
    assert [kind for kind, _ in ask(pack, tools=planner)] == ["say", "write_notes"]
    assert text_of(ask("And if it rains?")) == RAIN
    assert text_of(ask("What is the capital of Peru?")) == ABOUT
    for text in (plan, book, pack, "anything"):
        assert all(kind in ("think", "say", "write_notes") for kind, _ in ask(text)), (
            "it calls what it is not offered"
        )


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ('{"reference":"BYG-4097"}', "BYG-4097"),
        ("the user denied the call", "not booked"),
        ("interrupted", "I ask before I book"),
    ],
)
def test_what_a_tool_returned_is_taken_up(result, said):
    asked = ask("Book two seats", {"role": "tool", "content": result}, tools=["book_seats"])
    assert said in text_of(asked)


def test_an_answer_that_broke_off_goes_on_where_it_did():
    whole = ask("Plan a weekend in Oslo")
    for size in (1, 100, len(WEEKEND) - 1):
        rest = behind(whole, WEEKEND[:size])
        assert WEEKEND[:size] + text_of(rest) == WEEKEND
        assert [kind for kind, _ in rest] == ["say"], "it thinks again"
    assert behind(whole, WEEKEND) == []


def test_the_draft_is_gone_on_with_where_it_stands():
    head = PACKING.split("\n", 1)[0]
    assert written_of("", PACKING) == 0
    assert written_of("Notes of Ann. # ", PACKING) == 0
    assert written_of(f"Ann: hei\n\n{head}\n\n- a ra", PACKING) == len(f"{head}\n\n- a ra")
    assert written_of(f"{PACKING}Ann went on", PACKING) == len(PACKING)


@pytest.mark.parametrize(("draft", "before"), [("", ""), ("Ann: hei 😀", "hei 😀"), ("Ann: hei 😀, Bob", "hei 😀")])
def test_the_caret_in_the_draft_is_one_that_editors_can_show(draft, before):
    """Their bindings read these members without asking whether they are there."""
    view = SessionView(SessionDoc(5))
    view.document.edit(lambda document: document.doc.get("draft", type=Text).insert(0, draft))
    cursor = caret(view, before)
    assert cursor["anchor"] == cursor["head"]
    assert set(cursor["anchor"]) == {"type", "tname", "item", "assoc"}
    assert (cursor["anchor"]["item"] is None) is draft.endswith(before)


# -- what it says ------------------------------------------------------------------------------------------------------


def test_commands_are_printed_as_they_can_be_typed(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv/bin/python"))
    script = tmp_path / "examples/terminal_peer.py"
    assert demo.command_line(script, "--name", "Ann B") == ".venv/bin/python examples/terminal_peer.py --name 'Ann B'"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert demo.command_line(script) == f"{tmp_path}/.venv/bin/python {script}"


class Service(http.server.BaseHTTPRequestHandler):
    """Answers only what a service answers at once; its OpenAPI document takes seconds to make on a busy machine."""

    def do_GET(self):
        self.send_response(200 if self.path == "/readyz" else 503)
        self.end_headers()
        self.wfile.write(json.dumps({"status": "ready", "liveSessions": 1}).encode())

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("ours", [True, False])
def test_a_port_that_is_taken_is_said_with_what_to_do(ours, monkeypatch):
    handler = Service if ours else http.server.BaseHTTPRequestHandler
    monkeypatch.setattr(http.server.BaseHTTPRequestHandler, "log_message", lambda *_: None)
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        port = other.server_address[1]
        with pytest.raises(SystemExit) as ended:
            demo.check_port(port, "demo")
        other.shutdown()
    said = str(ended.value)
    assert (f"make demo PORT={port + 1}" in said) is not ours, "two demos cannot have one file"
    assert f"examples/demo.py --port {port + 1}" in said
    assert ("--database other.db" in said) is ours
    assert (f"open http://127.0.0.1:{port}/?session=demo" in said) is ours
    demo.check_port(free_port(), "demo")
    with pytest.raises(SystemExit, match="99999 is no port"):
        demo.check_port(99999, "demo")


async def test_a_part_that_dies_again_and_again_comes_back_ever_later(monkeypatch):
    said, enough = [], asyncio.Event()

    def say(text):
        said.append(text)
        if sum("is back" in each for each in said) == 3:
            enough.set()

    monkeypatch.setattr(demo, "say", say)
    monkeypatch.setattr(demo, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(demo, "LONGEST_PAUSE_S", 0.03)
    part = demo.Part("model", ["-c", "print('broken'); raise SystemExit(3)"], dict(os.environ))
    await part.start()
    keeping = asyncio.create_task(part.keep())
    async with asyncio.timeout(PATIENCE):
        await enough.wait()
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    await part.stop()
    said = "\n".join(said)
    assert re.findall(r"model ended with status 3; it is started again in (\S+) s", said)[:3] == [
        "0.01",
        "0.02",
        "0.03",
    ]
    assert "model     | broken" in said
    assert re.search(r"model is back: kill -9 \d+", said)


async def test_a_service_that_cannot_start_ends_the_demo(capsys):
    part = demo.Part("service", ["-c", "print('no database'); raise SystemExit(2)"], dict(os.environ))
    await part.start()
    with pytest.raises(SystemExit, match="the service ended with status 2; its message stands above"):
        await demo.ready(part, f"http://127.0.0.1:{free_port()}/readyz")
    assert "service   | no database" in capsys.readouterr().out


# -- the processes -----------------------------------------------------------------------------------------------------


def descendants(pid):
    """The processes below one, and below those."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *descendants(child)]
    return found


class Demo(Process):
    def __init__(self, folder, *flags):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__(
            sys.executable, ROOT / "examples/demo.py", "--port", self.port, "--database", folder / "d.db", *flags
        )

    def kill_as_told(self, part):
        """Use the command that the demo printed for a part; return once it has said what happened."""
        told = [line for line in self.lines if re.search(rf"^ +{part}( is back:)? +kill -9", line)][-1]
        before = sum(f"{part} is back" in line for line in self.lines)
        subprocess.run(told[told.index("kill") :], shell=True, check=True)
        self.wait_for(rf"{part} was killed \(SIGKILL\); it is started again in \S+ s")
        with self._arrived:
            assert self._arrived.wait_for(
                lambda: sum(f"{part} is back" in line for line in self.lines) > before, PATIENCE
            ), "\n".join(self.lines)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """The demo, at the pace of somebody who reads fast."""
    process = Demo(tmp_path_factory.mktemp("demo"), "--rate", "60")
    process.wait_for("Ctrl-C ends the demo", 3 * PATIENCE)
    yield process
    if process.child.poll() is None:
        process.terminate(3 * PATIENCE)


def ann(demo):
    return connect(demo.url, "demo", name="Ann", id="ann")


@pytest.mark.crash
async def test_the_planner_asks_before_it_books_and_writes_into_the_draft(running):
    async with asyncio.timeout(3 * PATIENCE), ann(running) as session:
        assert session.view.meta.title == "A weekend in Oslo"
        welcome = session.view.state["welcome"]
        _, book, pack = welcome["suggestions"]
        assert f"--url {running.url} --session demo" in welcome["terminal"]
        await session.until(
            lambda: {"assistant", "planner"} <= {each.user.name for each in session.present().values()}
        )
        listed = await session.post(pack["text"], agent=pack["agent"])
        asked = await session.post(book["text"], agent=book["agent"])
        run = f"run-{asked.id}"
        await session.until(
            lambda: (found := session.view.runs.value(run)) is not None and found.status == "suspended"
        )
        waiting = session.view.messages.value(f"{run}-out").parts[-1]
        assert (waiting.tool_name, waiting.input["seats"]) == ("book_seats", 2)
        session.decide(run, waiting.tool_call_id, approved=True)
        assert "BYG-" in (await session.messages.answer_to(asked)).text
        await session.messages.answer_to(listed)
        assert str(session.view.document.doc.get("draft", type=Text)) == PACKING


@pytest.mark.crash
@pytest.mark.slow
async def test_whatever_is_killed_comes_back_and_the_answer_is_whole(running):
    async with asyncio.timeout(6 * PATIENCE), ann(running) as session:
        asked = await session.post("Plan a weekend in Oslo")
        out = f"run-{asked.id}-out"
        for part, size in (("assistant", 100), ("service", 500), ("model", 900)):
            await session.until(lambda size=size: (m := session.view.messages.value(out)) and len(m.text) > size)
            await asyncio.to_thread(running.kill_as_told, part)
        assert "assistant was killed" in "\n".join(running.lines)
        answered = await _answer(session, asked)
        assert answered.text == WEEKEND


async def _answer(session, asked):
    """The answer; a model that died in the middle failed the run, as a real one would, and people try again."""
    run = f"run-{asked.id}"
    await session.until(lambda: session.view.runs.value(run).over)
    if session.view.runs.value(run).status == "failed":
        again = session.retry(run)
        await session.until(lambda: (found := session.view.runs.value(again)) is not None and found.over)
    return session.view.messages.value(f"{run}-out")


@pytest.mark.crash
@pytest.mark.skipif(not LINUX, reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.sampled(2)
def test_the_demo_leaves_no_process_behind(running, tmp_path, number):
    """Told while it runs, and while it starts."""
    process = running if number == signal.SIGTERM else Demo(tmp_path)
    process.wait_for("crdt-sessions serves")
    below = descendants(process.child.pid)
    assert below
    process.child.send_signal(number)
    assert process._end(3 * PATIENCE) == 0, "\n".join(process.lines)
    assert all_gone(below)
    assert "Traceback" not in "\n".join(process.lines)


@pytest.mark.crash
@pytest.mark.slow
def test_the_demo_answers_once(tmp_path):
    process = Demo(tmp_path, "--once", "--rate", "0")
    try:
        assert process.child.wait(3 * PATIENCE) == 0, "\n".join(process.lines)  # processes, one after the other
    finally:
        process.close()
    said = "\n".join(process.lines)
    answer = said[said.index("Here is a weekend in Oslo") : said.index("the airport train leaves from right there")]
    assert "### Sunday" in answer
    assert re.search(r"^  \w+ +\| | is here", answer, re.MULTILINE) is None  # what the parts say stands around it
    assert re.search(r"^  assistant +\| .*run-\w+ in session demo", said, re.MULTILINE)
    assert "Traceback" not in said
