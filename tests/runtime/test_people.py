"""Who takes part is known without looking through a long session each time somebody absent is to hear of something."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from crdt_sessions.model import Author, MessageHead
from crdt_sessions.model.message_view import MessageView
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions.runtime.people import People
from crdt_sessions.storage import MemoryStore
from crdt_sessions.testing import FakeClock

from .conftest import ROOM

AUTHORS = [Author(id="ann", kind="human"), Author(id="bob", kind="human"), Author(id="model", kind="agent")]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["say", "beside", "again", "remove", "spoil", "read", "forget", "ask"]),
        st.sampled_from(AUTHORS),
        st.integers(0, 2),
    ),
    max_size=15,
)


def change(view, step, author, number):
    head, root = MessageHead(id=f"m{number}", role="user", author=author, created_at=1), view.document.roots.messages
    match step:
        case "say" | "beside":
            view.messages.add(head, beside=step == "beside")
        case "again" if head.id in root:
            root[head.id]["head"] = head.json_value()
        case "remove" if head.id in root:
            del root[head.id]
        case "spoil" if head.id in root:
            root[head.id]["head"] = "nothing"
        case "read":
            view.mark_read(author.id, 1)
        case "forget":
            view.forget_receipt(author.id)


@given(STEPS)
def test_who_takes_part_is_who_has_said_something_that_stands_or_read(steps):
    async def scenario():
        async with SessionRegistry(MemoryStore(), clock=FakeClock()) as registry:
            async with registry.open(ROOM, create=True) as session:
                people = People(session.engine)
                for step, author, number in steps:
                    if step == "ask":
                        people.all()
                    else:
                        await session.edit(
                            lambda view, step=step, author=author, number=number: change(view, step, author, number)
                        )
                heads = session.view.messages.heads()
                said = {head.author.id for head in heads if head.author.kind == "human"}
                assert people.all() == said | set(session.view.receipts.keys())

    asyncio.run(scenario())


async def test_only_what_has_changed_is_looked_at(monkeypatch, registry):
    async with registry.open(ROOM, create=True) as session:
        people = People(session.engine)

        def say(view, first, last):
            for number in range(first, last):
                view.messages.add(MessageHead(id=f"m{number}", role="user", author=AUTHORS[0], created_at=1))

        await session.edit(lambda view: say(view, 0, 50))
        assert people.all() == {"ann"}
        read, reads = MessageView.head, []
        monkeypatch.setattr(MessageView, "head", property(lambda self: (reads.append(self.id), read.fget(self))[1]))
        assert people.all() == {"ann"}
        assert reads == []
        await session.edit(lambda view: say(view, 50, 51))
        reads.clear()
        assert people.all() == {"ann"}
        assert reads == ["m50"]
