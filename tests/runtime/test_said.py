"""Who takes part, and what is unread, is known without looking through a long session each time somebody asks."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from crdt_sessions.model import Author, MessageHead
from crdt_sessions.model.message_view import MessageView
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions.runtime.said import Said
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
def test_what_is_told_is_what_stands(steps):
    async def scenario():
        async with SessionRegistry(MemoryStore(), clock=FakeClock()) as registry:
            async with registry.open(ROOM, create=True) as session:
                asked = Said(session.engine)
                for step, author, number in steps:
                    if step == "ask":
                        asked.people()
                    else:
                        await session.edit(
                            lambda view, step=step, author=author, number=number: change(view, step, author, number)
                        )
                heads = session.view.messages.heads()
                said = {head.author.id for head in heads if head.author.kind == "human"}
                assert asked.people() == said | set(session.view.receipts.keys())
                assert asked.last_seq() == session.view.messages.last_seq()
                for author in AUTHORS:
                    assert asked.unread(author.id) == session.view.unread(author.id)

    asyncio.run(scenario())


async def test_only_what_has_changed_is_looked_at(monkeypatch, registry):
    async with registry.open(ROOM, create=True) as session:
        asked = Said(session.engine)

        def say(view, first, last):
            for number in range(first, last):
                view.messages.add(MessageHead(id=f"m{number}", role="user", author=AUTHORS[0], created_at=1))

        await session.edit(lambda view: say(view, 0, 50))
        assert asked.people() == {"ann"}
        read, reads = MessageView.head, []
        monkeypatch.setattr(MessageView, "head", property(lambda self: (reads.append(self.id), read.fget(self))[1]))
        assert asked.people() == {"ann"}
        assert reads == []
        await session.edit(lambda view: say(view, 50, 51))
        reads.clear()
        assert asked.people() == {"ann"}
        assert reads == ["m50"]
