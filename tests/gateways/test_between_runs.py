"""What an AG-UI client that stays is told while nothing runs."""

from crdt_sessions.model import MessageRemoved, SessionDoc, SessionView
from crdt_sessions.runtime import PresenceChanged
from crdt_sessions_server.gateways.ag_ui.session import SessionEncoder


def test_what_has_nothing_to_say_begins_no_run_and_what_waited_is_told_with_the_next():
    view = SessionView(SessionDoc(5))
    encoder = SessionEncoder("thread", None)
    assert [event["type"] for event in encoder.encode(view, [])][-1] == "RUN_FINISHED"
    assert [*encoder.encode(view, [MessageRemoved("gone")])] == []
    assert encoder.ended
    assert [*encoder.encode(view, [PresenceChanged([])])] == [], "presence waits"
    told = [event["type"] for event in encoder.encode(view, [MessageRemoved("gone")])]
    assert told == ["RUN_STARTED", "ACTIVITY_SNAPSHOT", "RUN_FINISHED"]
