"""Clients of a service that is attacked: they write, ask, answer and decide, and note what they have seen."""

import asyncio
from contextlib import AsyncExitStack, suppress

from crdt_sessions import connect
from crdt_sessions.errors import AlreadyDecided, NotAnswered, NotFound, NothingToDecide
from tests.agents import working
from tests.crash.histories import History, check_tokens
from tests.processes import attempts

SESSIONS = ("room-0", "room-1")
ASKED = "asked"
"""The session in which an agent answers."""
_PACE_S = 0.05
"""Between two words: it is the faults that are to have the processor."""
_WORDS = 5
_EVERY = 3
"""How many-th question people must decide about."""


def _said(question, decided):
    """Return what is answered to ``question NUMBER in WORDS words``."""
    words = [f"{number} of {question};" for number in range(int(question.split()[-2]))]
    return " ".join([f"{decided or 'so'}:", *words])


async def _answer(run):
    """Answer word by word; where another attempt has written some of it, go on."""
    question, decided = run.message.text, None
    if int(question.split()[1]) % _EVERY == 0:
        call = run.tool("act", {"on": question}, call_id=f"act-{run.id}")
        approval = await run.suspend_for_approval(call)
        decided = _outcome(call)
        if not call.done:
            call.output({"done": approval.approved})
    before = run.out.message
    rest = _said(question, decided)[len(before.text if before is not None else "") :]
    while rest:
        word, space, rest = rest.partition(" ")
        await run.out.write(word + space)
        await asyncio.sleep(_PACE_S)


def _outcome(part):
    """Return what was decided about a call, and by whom."""
    return f"{'approved' if part.approval.approved else 'denied'} by {part.approval.by}"


def _acts(message):
    return [part for part in message.parts if part.type == "tool" and part.approval is not None]


class Clients:
    """Writers, an asker, an agent, and two who decide the opposite at the same instant.

    Args:
        url: of the service.
        seed: of what happens to it.
    """

    def __init__(self, url, seed):
        self.url = url
        self.history = History(seed)
        self.words = _WORDS
        """How long the next answers are to be."""
        self.times = {}
        """By writer: when something was acknowledged."""
        self.answers = {}
        """By message: the question, and what the asker saw of it when it was over."""
        self._stack = AsyncExitStack()
        self._tasks = []
        self._asked = 0
        self._texts = {}
        self._decided, self._says = {}, {}

    async def __aenter__(self):
        for session in SESSIONS:
            for name in "ab":
                peer = await self._peer(session, name)
                times = self.times[f"{session}/{name}"] = []
                self._begin(self._write(peer, f"{session}/{name}", times))
        await self._stack.enter_async_context(working(self.url, _answer, shutdown_s=0.2))
        asker = await self._peer(ASKED, "asker")
        self._begin(self._ask(asker), self._watch(asker))
        for name, approved in (("ann", True), ("bob", False)):
            peer = await self._peer(ASKED, name)
            self._says[peer.author.id] = approved
            self._begin(self._decide(peer, approved))
        return self

    async def __aexit__(self, *error):
        await self.rest()
        await self._stack.aclose()

    def _peer(self, session, name):
        return self._stack.enter_async_context(connect(self.url, session, name=name))

    def _begin(self, *doing):
        self._tasks += [asyncio.create_task(each) for each in doing]

    async def rest(self):
        """Have them do nothing any more."""
        self._look()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _look(self):
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()

    async def progress(self):
        """Return once each writer has had something acknowledged, and a question was answered, from now on."""
        before, answered = self._counts(), len(self.answers)
        for _ in attempts():
            counts = self._counts()
            if all(counts[name] > before[name] for name in counts) and len(self.answers) > answered:
                return
            self._look()
            await asyncio.sleep(0.02)
        raise AssertionError(
            f"somebody is not served any more: {before} {counts}, {len(self.answers)}; {self.history}"
        )

    async def answering(self, words):
        """Return the number of a question whose answer of so many *words* has begun."""
        self.words, number = words, self._asked + 1
        for _ in attempts():
            if any(f" of question {number} " in text for text in self._texts.values()):
                self.words = _WORDS
                return number
            await asyncio.sleep(0.02)
        raise AssertionError(f"question {number} is not answered; {self.history}")

    def _counts(self):
        return {name: len(times) for name, times in self.times.items()}

    # -- what they do --------------------------------------------------------------------------------------------

    async def _write(self, peer, name, times):
        for number in range(1_000_000):
            token = f"{name}-{number}"
            self.history.invoked.append(token)
            await peer.post(token, id=token.replace("/", "."))
            self.history.ok.append(token)
            times.append(asyncio.get_running_loop().time())
            await asyncio.sleep(_PACE_S)

    async def _ask(self, peer):
        """Ask one question after the other, and note those of which the answer was there."""
        for number in range(1_000_000):
            self._asked = number
            question = f"question {number} in {self.words} words"
            asked = await peer.post(question, id=f"q{number}", agent="writer")
            try:
                answer = await peer.messages.answer_to(asked)
            except NotAnswered:  # its agent was thought lost too often
                continue
            self.answers[answer.id] = (question, answer.text)

    async def _watch(self, peer):
        """See to it that what was seen of an answer stays, and more comes behind it; so with what was decided."""
        async for message in peer.messages.watch():
            if message.id.endswith("-out"):
                before = self._texts.get(message.id, "")
                assert message.text.startswith(before), f"{before!r} became {message.text!r}; {self.history}"
                self._texts[message.id] = message.text
                for part in _acts(message):
                    first = self._decided.setdefault(message.id, _outcome(part))
                    assert _outcome(part) == first, f"{message.id} was {first}, and {_outcome(part)}; {self.history}"

    async def _decide(self, peer, approved):
        """Decide about whatever waits, as soon as it is seen."""
        done = set()

        def waiting():
            return [
                (run.id, call.tool_call_id)
                for run in peer.view.runs.all()
                for call in run.pending or ()
                if call.tool_call_id not in done
            ]

        while True:
            await peer.until(waiting)
            for run, call in waiting():
                done.add(call)
                with suppress(AlreadyDecided, NothingToDecide, NotFound):
                    peer.decide(run, call, approved)

    # -- what must hold ------------------------------------------------------------------------------------------

    async def check(self):
        """Check what a new client sees against what these were told."""
        await self.check_tokens()
        async with connect(self.url, ASKED, name="reader") as reader:
            there = {message.id: message for message in reader.messages.all()}
        for id, (question, seen) in self.answers.items():
            acts = _acts(there[id])
            assert all(self._says[act.approval.by] == act.approval.approved for act in acts), (
                f"{acts}; {self.history}"
            )
            decided = next(map(_outcome, acts), None)
            assert seen == there[id].text == _said(question, decided), f"{id}: {seen!r}, {there[id]}; {self.history}"
            assert self._decided.get(id) == decided, f"{id} was {self._decided.get(id)}, is {decided}; {self.history}"

    async def check_tokens(self):
        """Check what writers wrote, as a new client sees it."""
        for session in SESSIONS:
            own = History(
                self.history.seed,
                [each for each in self.history.invoked if each.startswith(f"{session}/")],
                [each for each in self.history.ok if each.startswith(f"{session}/")],
                self.history.faults,
            )
            async with connect(self.url, session, name="reader") as reader:
                check_tokens(own, [message.text for message in reader.messages.all()])
