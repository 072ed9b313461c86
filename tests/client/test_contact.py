"""What is told of a service that is away, in virtual time; and where it is told."""

import asyncio
import io
import logging
import re
from contextlib import contextmanager

import pytest

from crdt_sessions import Agent, connect
from crdt_sessions.client import console
from crdt_sessions.client.contact import Contact
from crdt_sessions.errors import ServiceUnreachable
from tests.processes import PATIENCE, free_port

URL = "http://127.0.0.1:8000"
REFUSED = ServiceUnreachable(url=URL, why="connection refused")
LOG = logging.getLogger("crdt_sessions.client")


class Hours:
    def __init__(self):
        self.now = 0

    def __call__(self):
        return self.now

    def pass_s(self, seconds):
        self.now += int(seconds * 1000)


@pytest.fixture
def time():
    return Hours()


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.INFO, "crdt_sessions")
    return lambda: [record.getMessage() for record in caplog.records]


def test_an_outage_is_told_once_then_at_growing_intervals_and_when_it_is_over(time, told):
    contact = Contact(URL, time, LOG)
    when = []
    for _ in range(4 * 3600):
        before = len(told())
        contact.failed("one", REFUSED)
        if len(told()) > before:
            when.append(time() // 1000)
        time.pass_s(1)
    assert when == [0, 10, 30, 70, 150, 310, 630, 1270, 2550, 5110, 8710, 12310], (
        "ten seconds, twice that, ..., an hour"
    )
    assert told()[0] == f"no connection to {URL}: connection refused. Trying again."
    assert told()[2] == f"still, after 30 s: no connection to {URL}: connection refused. Trying again."
    contact.works("one")
    assert told()[-1] == f"connected to {URL} again, after 4 h"
    contact.works("one")
    contact.failed("one", REFUSED)
    assert told()[-1] == told()[0], "the next one is told from its beginning"
    assert len(told()) == len(when) + 2


def test_what_works_says_nothing(time, told):
    contact = Contact(URL, time, LOG)
    for _ in range(3):
        contact.works("one")
        time.pass_s(3600)
    assert told() == []


def test_connections_tell_an_outage_together_and_its_end_when_all_are_back_or_gone(time, told):
    contact = Contact(URL, time, LOG, who="agent writer")
    for one in ("claims", "session a", "session b"):
        contact.failed(one, REFUSED)
    assert told() == [f"agent writer: no connection to {URL}: connection refused. Trying again."]
    time.pass_s(2.5)
    contact.works("claims")
    contact.ended("session b")
    assert len(told()) == 1
    contact.works("session a")
    assert told()[1:] == [f"agent writer: connected to {URL} again, after 2.5 s"]


def test_an_outage_is_not_over_because_who_met_it_does_not_try_any_more(time, told):
    contact = Contact(URL, time, LOG)
    contact.failed("one", REFUSED)
    contact.ended("one")
    contact.failed("another", REFUSED)
    assert len(told()) == 1
    contact.ended("another")
    time.pass_s(3)
    contact.works("a third")
    assert told()[1:] == [f"connected to {URL} again, after 3.0 s"]


def test_who_is_quiet_tells_only_who_debugs(time, caplog):
    caplog.set_level(logging.DEBUG, "crdt_sessions")
    contact = Contact(URL, time, LOG, quiet=True)
    contact.failed("one", REFUSED)
    contact.works("one")
    contact.tell(logging.INFO, "takes %s", "run-1", run="run-1", session="room")
    assert [record.levelname for record in caplog.records] == ["DEBUG"] * 3
    assert (caplog.records[-1].run, caplog.records[-1].session) == ("run-1", "room")


@contextmanager
def unconfigured():
    """Logging as in a program that has not touched it."""
    ours, root = logging.getLogger("crdt_sessions"), logging.getLogger()
    before = ours.handlers, root.handlers, ours.level
    ours.handlers, root.handlers = [], []
    ours.setLevel(logging.NOTSET)
    try:
        yield root
    finally:
        ours.handlers, root.handlers, level = before
        ours.setLevel(level)


def test_a_program_without_logging_hears_what_is_told_on_standard_error(capsys):
    with unconfigured():
        console.tell_on_stderr()
        console.tell_on_stderr()
        LOG.info("connected")
        LOG.debug("not for everybody")
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.endswith(" connected\n")


def test_a_program_with_a_handler_of_its_own_decides_itself(capsys):
    heard = io.StringIO()
    with unconfigured() as root:
        root.addHandler(logging.StreamHandler(heard))
        console.tell_on_stderr()
        LOG.info("info")
        LOG.warning("warning")
    assert (capsys.readouterr().err, heard.getvalue()) == ("", "warning\n")


@pytest.mark.parametrize("name", ["", "crdt_sessions"])
def test_a_program_that_configures_logging_later_decides_from_then_on(capsys, name):
    heard = io.StringIO()
    with unconfigured():
        console.tell_on_stderr()
        LOG.info("before")
        logging.getLogger(name).addHandler(logging.StreamHandler(heard))
        LOG.warning("after")
        LOG.info("not for this program")
        LOG.warning("and after")
    assert capsys.readouterr().err.count("\n") == 1
    assert heard.getvalue() == "after\nand after\n"


def test_the_traceback_of_an_answer_that_failed_is_told_too(capsys):
    with unconfigured():
        console.tell_on_stderr()
        try:
            raise KeyError("gone")
        except KeyError as error:
            logging.getLogger("crdt_sessions.agent").error("run failed: %s", error, exc_info=error)
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "KeyError: 'gone'" in said


class Tries:
    """A clock that counts the attempts between which somebody waits."""

    def __init__(self):
        self.count = 0

    def now(self):
        return 0

    async def sleep(self, seconds):
        self.count += 1
        await asyncio.sleep(0.01)


async def enter(url, **options):
    async with connect(url, "room", **options):
        raise AssertionError("there is no service")


async def work(url, **options):
    agent = Agent(url, name="writer", **options)
    agent.on_run(lambda run: run.out.write(""))
    await agent.work()


@pytest.mark.parametrize("quiet", [False, True])
@pytest.mark.parametrize("door", [enter, work])
async def test_agents_and_peers_are_heard_unless_they_are_to_be_quiet(capsys, door, quiet):
    url, tries = f"http://127.0.0.1:{free_port()}", Tries()
    with unconfigured():
        task = asyncio.create_task(door(url, clock=tries, quiet=quiet))
        async with asyncio.timeout(PATIENCE):
            while tries.count < 5:
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    said = capsys.readouterr().err
    assert said.count("\n") == (0 if quiet else 1), said
    assert quiet or re.match(r"\d\d:\d\d:\d\d ", said), "not by the handler of last resort"
    assert (f"no connection to {url}: connection refused; is the service running there" in said) is not quiet
