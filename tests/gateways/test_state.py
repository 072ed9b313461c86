"""AG-UI's state: what a client has changed of what it was told is merged into the session's state."""

import pytest
from pycrdt import Array, Map

from crdt_sessions import connect
from crdt_sessions.errors import AccessDenied, BadValue
from crdt_sessions_server.auth import Principal, Role
from crdt_sessions_server.gateways.ag_ui.state import ToldStates, merge
from tests.gateways.desk import ANN, desk


def plain(id, text="say 1"):
    return {"id": id, "role": "user", "content": text}


# -- the rules ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "sent", "current", "merged"),
    [
        ({"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 1, "b": 3}, {"a": 2, "b": 3}),  # each changed another key
        ({"a": 1}, {"a": 2}, {"a": 3}, {"a": 2}),  # both changed the same: the later request stands
        ({"a": 1}, {"a": 1}, {"a": 3}, {"a": 3}),  # only others changed it
        ({"a": 1}, {"a": 1}, {}, {}),  # only others removed it
        ({"a": 1}, {"a": 2}, {}, {"a": 2}),  # removed by others, changed here
        ({"a": 1, "b": 1}, {"b": 1}, {"a": 1, "b": 1}, {"b": 1}),  # removed here
        ({"a": 1}, {}, {"a": 2}, {"a": 2}),  # removed here, but others have changed it since
        ({}, {"a": 1, "b": 1}, {"a": 5}, {"a": 5, "b": 1}),  # never told: only adds
        ({"o": {"x": 1, "y": 1}}, {"o": {"x": 2, "y": 1}}, {"o": {"x": 1, "y": 3}}, {"o": {"x": 2, "y": 3}}),
        ({}, {"o": {"x": 2, "z": 1}}, {"o": {"x": 1}}, {"o": {"x": 1, "z": 1}}),
        ({"l": [1]}, {"l": [1, 2]}, {"l": [0, 1]}, {"l": [1, 2]}),  # a list is taken whole
        ({"a": {"x": 1}}, {"a": "text"}, {"a": {"x": 1}}, {"a": "text"}),
        ({"a": 1}, {"a": True}, {"a": 1}, {"a": True}),  # true is not 1
        ({"a": 1}, {"a": 1.0}, {"a": 2}, {"a": 2}),  # 1.0 is
        ({"a": None}, {"a": 0}, {"a": None}, {"a": 0}),
    ],
)
def test_a_clients_changes_are_merged_into_the_present_state(told, sent, current, merged):
    assert merge(told, sent, current) == merged
    assert isinstance(merge(told, sent, current).get("a"), bool) == isinstance(merged.get("a"), bool)


def test_told_states_are_forgotten_oldest_first_when_there_are_too_many():
    states = ToldStates(max_bytes=100)
    places = [("s", "ann", f"m{number}") for number in range(10)]
    for place in places:
        states.remember(place, {"a": "x" * 30})
    assert [states.base(place, {}) for place in places] == [{}] * 8 + [{"a": "x" * 30}] * 2
    for number in range(1000):
        states.remember(places[-1], {"n": number})
    assert states.base(places[-1], {"n": 0, "more": 1}) == {"n": 999}, "of one place only a few"


# -- through the gateway -----------------------------------------------------------------------------------------------


class Window:
    """A client: it has the state that it was told, and sends it with its changes."""

    def __init__(self, found, states, by=ANN):
        self.found, self.states, self.by = found, states, by
        self.messages, self.state = [], {}

    async def ask(self, id, **changes):
        self.messages.append(plain(id))
        self.state = {key: value for key, value in (self.state | changes).items() if value is not ...}
        client = self.states.client(self.found.name, self.by)
        run = await self.found.ag_ui(self.messages, f"run-{id}", client=client, state=self.state, by=self.by)
        self.hear(client)
        return run

    def hear(self, client=None):
        view = self.found.view
        self.messages = [plain(message.id, message.text) for message in view.conversation() if message.role == "user"]
        self.state = view.state_value()
        (client or self.states.client(self.found.name, self.by)).told(view, self.state, whole=True)


@pytest.fixture(params=["one principal", "two principals"])
async def windows(request):
    bob = Principal("bob") if request.param == "two principals" else ANN
    async with desk() as found:
        states = ToldStates()
        first, second = Window(found, states), Window(found, states, bob)
        await first.ask("u0", title="Oslo", days=2, plan={"mon": "walk", "tue": "sail"})
        await found.answer("!")
        second.hear()
        first.hear()
        yield found, first, second


async def test_two_clients_that_change_different_keys_keep_both_changes(windows):
    found, first, second = windows
    await first.ask("u1", title="Bergen")
    await second.ask("u2", days=3)
    assert found.view.state_value() == {"title": "Bergen", "days": 3, "plan": {"mon": "walk", "tue": "sail"}}
    await first.ask("u3", plan={"mon": "rest", "tue": "sail"}, days=...)
    assert found.view.state_value() == {"title": "Bergen", "days": 3, "plan": {"mon": "rest", "tue": "sail"}}


async def test_of_two_clients_that_change_the_same_key_the_later_request_stands(windows):
    found, first, second = windows
    await first.ask("u1", title="Bergen")
    await second.ask("u2", title="Voss")
    assert found.view.state_value()["title"] == "Voss"
    first.hear()
    await first.ask("u3", days=5)
    assert found.view.state_value()["title"] == "Voss", "it did not change it again"


async def test_a_key_that_a_client_removes_goes(windows):
    found, first, _ = windows
    await first.ask("u1", days=...)
    assert found.view.state_value() == {"title": "Oslo", "plan": {"mon": "walk", "tue": "sail"}}


async def test_a_state_that_was_never_told_only_adds(windows):
    found, _, _ = windows
    stranger = Window(found, ToldStates())  # as after a restart
    await stranger.ask("u9", title="a default", draft=True)
    assert found.view.state_value() == {
        "title": "Oslo", "days": 2, "plan": {"mon": "walk", "tue": "sail"}, "draft": True,
    }  # fmt: skip


async def test_an_empty_state_proposes_nothing(windows):
    found, first, _ = windows
    first.state = {}
    before = found.view.state_value()
    await first.ask("u1")
    assert found.view.state_value() == before


async def test_nested_maps_of_yjs_clients_are_changed_in_place(windows):
    found, first, _ = windows
    await found.session.edit(lambda view: view.state.update({"deep": Map({"x": 1, "y": 1})}))
    first.hear()
    deep = found.view.state["deep"]
    await first.ask("u1", deep={"x": 2, "y": 1})
    assert deep["x"] == 2, "the same map, which editors are bound to"


async def test_a_shared_list_of_yjs_clients_is_not_replaced_by_a_plain_one(windows):
    found, first, _ = windows
    await found.session.edit(lambda view: view.state.update({"todo": Array(["a"])}))
    first.hear()
    with pytest.raises(BadValue, match=r"state\.todo.*shared type"):
        await first.ask("u1", todo=["a", "b"])
    assert "u1" not in found.view.messages


async def test_a_state_that_cannot_be_taken_is_refused_and_nothing_is_written():
    async with desk() as found:
        reader = Principal("eve", role=Role.VIEWER)
        for state, by, why in (
            ([1], ANN, BadValue),
            ({"a": float("nan")}, ANN, BadValue),
            ({"a": 1}, reader, AccessDenied),
        ):
            with pytest.raises(why):
                await Window(found, ToldStates(), by).found.ag_ui([plain("u")], "r", state=state, by=by)
        assert (found.view.messages.ids(), found.view.state_value()) == ([], {})


async def test_a_change_comes_along_with_a_decision():
    async with desk() as found:
        window = Window(found, ToldStates())
        await window.ask("u0", a=1)
        await found.answer(status="suspended", asks=[("c", None)])
        window.hear()
        resume = [{"interruptId": "c", "status": "resolved", "payload": {"approved": True}}]
        client = window.states.client(found.name, ANN)
        run = await found.ag_ui(window.messages, "r2", client=client, state={"a": 2}, resume=resume)
        assert (found.view.state_value(), found.view.runs.find(run.id).status) == ({"a": 2}, "queued")


async def test_a_change_comes_along_with_a_request_that_asks_nothing():
    async with desk() as found:
        window = Window(found, ToldStates())
        await window.ask("u0", a=1)
        run = await found.answer(status="completed")
        window.hear()
        window.state = {"a": 2}
        client = window.states.client(found.name, ANN)
        known = [
            {"id": "u0", "role": "user", "content": "say 1"},
            {"id": run.output, "role": "assistant", "content": ""},
        ]
        await found.ag_ui(known, "r2", client=client, state=window.state)
        assert found.view.state_value() == {"a": 2}


# -- the real client ---------------------------------------------------------------------------------------------------


@pytest.mark.interop
async def test_two_real_clients_share_the_state(service, clients, room):
    for name in ("a", "b"):
        clients("ag.open", name=f"{room}-{name}", url=service.url, thread=room)
    first, second = f"{room}-a", f"{room}-b"
    await clients.ask("ag.set", name=first, state={"title": "Oslo", "days": 2})
    await clients.ask("ag.run", name=first, message=plain("u1"))
    await clients.ask("ag.join", name=second)
    assert (await clients.ask("ag.state", name=second))["state"] == {"title": "Oslo", "days": 2}
    await clients.ask("ag.set", name=first, state={"title": "Bergen", "days": 2})
    await clients.ask("ag.set", name=second, state={"title": "Oslo", "days": 3})
    await clients.ask("ag.run", name=first, message=plain("u2"))
    state = await clients.ask("ag.run", name=second, message=plain("u3"))
    assert state["state"] == {"title": "Bergen", "days": 3}
    async with connect(service.url, room) as peer:
        assert peer.view.state_value() == {"title": "Bergen", "days": 3}
        peer.edit(lambda view: view.state.update({"seats": 4}))
        await peer.durable()
    await clients.ask("ag.set", name=second, state={"title": "Bergen"})
    state = await clients.ask("ag.run", name=second, message=plain("u4"))
    assert state["state"] == {"title": "Bergen", "seats": 4}, "what it removed goes, what it had not heard of stays"
