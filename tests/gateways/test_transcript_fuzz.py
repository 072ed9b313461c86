"""Random conversations through every gateway: whatever of them is lost, repeated, brought or cut off on the way, a
question is asked once, order is kept, and the agent is told what its client shows."""

import asyncio
import itertools
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from crdt_sessions_server.auth import Principal
from tests.gateways.desk import desk

WORDS = ("yes", "ok", "go on")
"""Little, so that messages without ids are hard to tell apart."""


@dataclass
class Client:
    """Somebody with a chat on a page.

    Args:
        desk: the gateways.
        kind: whose protocol it speaks.
        name: tells its messages from others'.
        plain: whether it says the same few words again and again.
    """

    desk: object
    kind: str
    name: str
    plain: bool
    shown: list = field(default_factory=list)
    """(id, role, text), as on the page."""
    calls: dict = field(default_factory=dict)
    """What the messages called, by their id: (call, tool, output)."""
    asked: dict = field(default_factory=dict)
    """The runs that it has asked for, by the place of their question among all questions, with that's text."""
    waiting: str | None = None
    """The run whose answer it listens to."""
    unheard: int = 0
    """Answers that were written and that it has not heard of."""
    arrived: set = field(default_factory=set)
    """The messages that the service has heard of."""
    window: int | None = None
    """How many of its last messages it sends; all if None."""

    def __post_init__(self):
        self._count = itertools.count()
        self.by = Principal(self.name)

    def text(self, word):
        return word if self.plain else f"{self.name}{next(self._count)} {word}"

    def id(self, salt):
        """Ids are no help: in no order at all."""
        return f"{salt:05d}-{self.name}{next(self._count)}"

    @property
    def sent(self):
        return self.shown if self.window is None else self.shown[-self.window :]

    async def send(self, **more):
        chat = self.sent
        self.arrived |= {id for id, _, _ in chat}
        if self.kind == "ai":
            messages = [
                {
                    "id": id,
                    "role": role,
                    "parts": [{"type": "text", "text": text}, *map(ui_call, self.calls.get(id, ()))],
                }
                for id, role, text in chat
            ]
            return await self.desk.ai_sdk(messages, by=self.by, **more)
        pieces = [piece for message in chat for piece in self.pieces(*message)]
        if self.kind in ("ag", "tanstack"):
            return await self.desk.ag_ui(pieces, f"{self.name}-{chat[-1][0]}", by=self.by, **more)
        return await self.desk.openai(pieces, by=self.by, **more)

    def pieces(self, id, role, text):
        """A message, and what its tools returned, as AG-UI, TanStack and OpenAI have it."""
        openai, calls = self.kind == "openai", self.calls.get(id, ())
        names = "tool_calls" if openai else "toolCalls", "tool_call_id" if openai else "toolCallId"
        named = [
            {"id": call, "type": "function", "function": {"name": tool, "arguments": "{}"}} for call, tool, _ in calls
        ]
        yield {
            **({} if openai else {"id": id}),
            "role": role,
            "content": text,
            **({names[0]: named} if calls else {}),
        }
        for call, _, output in calls:
            yield {**({} if openai else {"id": f"{call}-result"}), "role": "tool", names[1]: call, "content": output}


def ui_call(called):
    call, tool, output = called
    return {"type": f"tool-{tool}", "toolCallId": call, "state": "output-available", "input": {}, "output": output}


async def ask(client, salt, word, fate, window):
    """Say something. It may be lost on its way, or what comes of it may be."""
    client.shown.append((client.id(salt), "user", client.text(word)))
    client.unheard += client.waiting is not None
    client.waiting = None
    client.window = None if client.kind == "openai" and (client.plain or window == 1) else window
    if fate == "lost":
        return None
    run = await client.send()
    client.asked[run.id] = client.shown[-1][2]
    if fate == "heard":
        client.waiting = run.id
    else:
        client.unheard += 1
    check(client, run)
    return run


async def repeat(client):
    """Send the same again, as clients do by themselves that got no answer."""
    if not client.shown or client.shown[-1][1] != "user":
        return
    run = await client.send(**({"again": True} if client.kind in ("openai", "tanstack") else {}))
    client.unheard += run.id not in client.asked
    client.asked[run.id] = client.shown[-1][2]
    assert client.waiting in (None, run.id)
    check(client, run)


async def edit(client, salt, word, place):
    """Say a former question otherwise. What came after it is gone from the page."""
    places = [at for at, (id, role, _) in enumerate(client.shown) if role == "user" and id in client.arrived]
    if client.kind != "ai" or not places:
        return
    at = places[place % len(places)]
    client.unheard += client.waiting is not None
    id = client.shown[at][0]
    client.window = None
    client.shown[at:] = [(id, "user", f"{client.name}{next(client._count)} {word}")]
    run = await client.send(messageId=id)
    client.asked[run.id] = client.shown[-1][2]
    client.waiting = run.id
    check(client, run)


async def answer(room, clients, salt, status):
    """Have whatever is asked answered, with a tool or without, and heard by those who listen."""
    while True:
        text = f"answer {salt}-{len(room.view.messages)}"
        tools = [(f"call {text} {at}", "look", f"found {text} {at}") for at in range(salt % 3)]
        run = await room.answer(text, status=status, tools=tools)
        if run is None:
            return
        for client in clients:
            if client.waiting == run.id:
                client.waiting = None
                if status == "completed" or client.kind != "openai":
                    client.shown.append((run.output, "assistant", text))
                    if client.kind != "openai":  # which is not told of calls that the agent makes itself
                        client.calls[run.output] = tools
                else:
                    client.unheard += 1


def check(client, run):
    told, wanted = client.desk.seen(run), []
    for id, role, text in client.sent:
        wanted += [(role, text), *(("tool", output) for *_, output in client.calls.get(id, ()))]
    rest = iter(told)
    assert all(each in rest for each in wanted), f"in order:\n{wanted}\n{told}"
    assert told[-1] == wanted[-1], "the question is the last"


def alone(client, run):
    """Nobody else is here: what the agent is told beyond the page are answers that did not get there."""
    told = [each for each in client.desk.seen(run) if each[0] != "tool"]
    shown = [(role, text) for _, role, text in client.shown]
    more = len(told) - len(shown)
    assert more <= client.unheard, f"{shown}\n{told}"


async def bring(client, salts, words):
    """Begin with a history from elsewhere."""
    for at, (salt, word) in enumerate(zip(salts, words, strict=False)):
        role = "system" if at == 0 and salt % 3 == 0 else ("user", "assistant")[at % 2]
        text = client.text(word) if role != "assistant" else f"brought {client.name} {at}"
        id = client.id(salt)
        client.shown.append((id, role, text))
        if role == "assistant":
            client.calls[id] = [(f"call {id} {each}", "search", f"brought {id} {each}") for each in range(salt % 3)]
    if client.shown and client.shown[-1][1] == "user":
        client.shown.append((client.id(1), "assistant", f"brought {client.name} last"))


SALT, WORD = st.integers(0, 99999), st.sampled_from(WORDS)
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("ask"), SALT, WORD, st.sampled_from(["heard", "heard", "heard", "lost", "unheard"]),
            st.none() | st.integers(1, 4),
        ),
        st.tuples(st.just("answer"), SALT, st.sampled_from(["completed", "completed", "completed", "failed"])),
        st.tuples(st.just("repeat")),
        st.tuples(st.just("edit"), SALT, WORD, st.integers(0, 5)),
    ),
    max_size=12,
)  # fmt: skip
HISTORY = st.lists(st.tuples(SALT, WORD), max_size=6)


async def perform(room, clients, client, step):
    match step:
        case ("ask", salt, word, fate, window):
            run = await ask(client, salt, word, fate, window)
            if run is not None and len(clients) == 1:
                alone(client, run)
        case ("answer", salt, status):
            await answer(room, clients, salt, status)
        case ("repeat",):
            await repeat(client)
        case ("edit", salt, word, place):
            await edit(client, salt, word, place)


def asked_once(room, clients):
    """There is one run for each question that arrived, and none for anything else."""
    assert sorted(run.id for run in room.view.runs.all()) == sorted({id for each in clients for id in each.asked})
    questions = [run.request.message_id for run in room.view.runs.all() if run.request.trigger == "submit"]
    assert len(questions) == len(set(questions))
    assert len({message.seq for message in room.view.messages.ordered()}) == len(room.view.messages)


@settings(report_multiple_bugs=False)
@given(st.sampled_from(["ai", "ag", "tanstack", "openai"]), st.booleans(), HISTORY, STEPS)
def test_the_agent_is_told_what_one_client_shows_and_is_asked_once(kind, plain, history, steps):
    async def scenario():
        async with desk() as room:
            client = Client(room, kind, "a", plain)
            await bring(client, *zip(*history, strict=True)) if history else None
            for step in steps:
                await perform(room, [client], client, step)
            await answer(room, [client], 0, "completed")
            await ask(client, 7, "and", "heard", None)
            asked_once(room, [client])

    asyncio.run(scenario())


@settings(report_multiple_bugs=False)
@given(
    st.lists(st.sampled_from(["ai", "ag", "tanstack", "openai"]), min_size=2, max_size=3),
    st.lists(HISTORY, min_size=3, max_size=3),
    st.lists(
        st.tuples(st.integers(0, 2), STEPS.flatmap(lambda steps: st.sampled_from(steps or [("repeat",)]))),
        max_size=12,
    ),
)
def test_several_clients_lose_nothing_of_each_other(kinds, histories, steps):
    async def scenario():
        async with desk() as room:
            clients = [Client(room, kind, "abc"[at], False) for at, kind in enumerate(kinds)]
            for client, history in zip(clients, histories, strict=False):
                await bring(client, *zip(*history, strict=True)) if history else None
            for at, step in steps:
                if step[0] != "edit":
                    await perform(room, clients, clients[at % len(clients)], step)
            await answer(room, clients, 0, "completed")
            for client in clients:
                await ask(client, 7, "and", "heard", None)
            asked_once(room, clients)
            said = room.conversation()
            for client in clients:
                rest = iter(said)
                shown = [(role, text) for _, role, text in client.shown]
                assert all(each in rest for each in shown), f"in order:\n{shown}\n{said}"

    asyncio.run(scenario())
