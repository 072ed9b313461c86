"""What can answer an agent's runs, and what is refused when it is registered."""

import functools
from collections.abc import Awaitable, Coroutine
from typing import Any

import pytest

from crdt_sessions import Agent
from crdt_sessions.client.handlers import call_handler, check_handler
from crdt_sessions.errors import BadHandler


async def good(run):
    await run.out.write("x")


async def leaves_early(run) -> None:
    if run.resumed:
        return None
    await run.out.write("x")

    def helper():
        return 1

    helper()


async def returns_what_a_call_returned(run):
    return await run.out.write("x")


def makes_a_coroutine(run):
    return good(run)


def says_it_makes_one(run) -> Awaitable[None]:
    return good(run)


def says_it_makes_a_coroutine(run) -> Coroutine[Any, Any, None]:
    return good(run)


def decorated(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def in_a_coroutine(function):
    @functools.wraps(function)
    async def wrapper(*args, **kwargs):
        function(*args, **kwargs)

    return wrapper


async def with_model(model, run, *, temperature=1):
    await run.out.write("x")


class Answers:
    async def __call__(self, run):
        await run.out.write("x")

    async def method(self, run, more=None):
        await run.out.write("x")


def sync(run):
    run.out.write("x")


def sync_and_returns(run):
    return f"You said: {run.message.text}"


def says_it_is_sync(run) -> str:
    return answer_of(run)


answer_of = str


async def says_it_returns(run) -> str:
    return answer_of(run)


async def returns_text(run):
    await run.out.write("x")
    if run.resumed:
        return
    return f"You said: {run.message.text}"


async def returns_a_constant(run):
    return {"text": "x"}


async def yields(run):
    yield "x"


def yields_sync(run):
    yield "x"


async def takes_nothing():
    pass


async def takes_more(run, model):
    pass


class SyncAnswers:
    def __call__(self, run):
        run.out.write("x")

    async def static(run):
        pass


@pytest.mark.parametrize(
    "handler",
    [
        good, leaves_early, returns_what_a_call_returned, makes_a_coroutine, says_it_makes_one, says_it_makes_a_coroutine,
        decorated(good), decorated(leaves_early), in_a_coroutine(sync), in_a_coroutine(says_it_is_sync),
        functools.partial(with_model, "gpt"), functools.partial(functools.partial(with_model, "gpt"), temperature=0),
        Answers(), Answers().method, lambda run: good(run), lambda run: None, eval("lambda run: None"),
    ],
)  # fmt: skip
def test_what_can_answer_is_registered(handler):
    check_handler(handler)
    agent = Agent("http://127.0.0.1:8000", name="writer")
    assert agent.on_run(handler) is handler


@pytest.mark.parametrize(
    ("handler", "why"),
    [
        (sync, "sync cannot answer runs: it is not a coroutine function; begin it with 'async def'"),
        (sync_and_returns, "not a coroutine function"),
        (says_it_is_sync, "not a coroutine function"),
        (SyncAnswers(), "SyncAnswers cannot answer runs: it is not a coroutine function"),
        (says_it_returns, "it returns str, which would be lost"),
        (returns_text, r"it returns f'You said: \{run.message.text\}', which would be lost"),
        (returns_a_constant, r"it returns \{'text': 'x'\}, which"),
        (yields, "it yields, and nobody takes what it yields"),
        (yields_sync, "it yields"),
        (decorated(yields), "it yields"),
        (functools.partial(yields), "it yields"),
        (takes_nothing, "called with the run alone"),
        (takes_more, "called with the run alone.*'model'"),
        (SyncAnswers().static, "called with the run alone"),
        ("a text", "'a text' cannot answer runs: it is no function"),
        (None, "it is no function"),
    ],
)
def test_what_cannot_answer_is_refused_when_it_is_registered(handler, why):
    agent = Agent("http://127.0.0.1:8000", name="writer")
    with pytest.raises(BadHandler, match=why) as caught:
        agent.on_run(handler)
    assert isinstance(caught.value, TypeError)
    agent.on_run(good)  # the other one was not kept


def test_a_second_handler_is_refused_and_told_apart_from_the_first():
    agent = Agent("http://127.0.0.1:8000", name="writer")
    agent.on_run(good)
    with pytest.raises(BadHandler, match=r"returns_what_a_call_returned.*agent 'writer' has good already"):
        agent.on_run(returns_what_a_call_returned)


@pytest.mark.parametrize(
    ("handler", "why"),
    [
        (lambda run: None, "not a coroutine function.*NoneType"),
        (lambda run: yields(run), "not a coroutine function.*async_generator"),
        (lambda run: with_value(), r"it returned a value \(int\), which is lost"),
    ],
)
async def test_what_is_seen_only_when_it_is_called_is_refused_then(handler, why):
    check_handler(handler)
    with pytest.raises(BadHandler, match=why):
        await call_handler(handler, None)


async def with_value():
    return int("7")


async def test_what_returns_nothing_is_called():
    called = []

    async def noted(run):
        called.append(run)

    await call_handler(noted, "run")
    assert called == ["run"]
