"""An agent that is killed while Electric's clients read what it writes: each of them gets it to its end."""

import pytest

from tests.gateways.conftest import Mortal
from tests.interop.node import NodePeers
from tests.streams.node import JS, needs_node
from tests.streams.test_views import projected, rows_of

pytestmark = [pytest.mark.interop, pytest.mark.crash, needs_node]


def text_in(messages):
    """What the answer says in a document, in one piece as the stream of its text is."""
    parts = messages.get("run-q-out", {}).get("parts", [])
    return "".join(part["text"] for part in parts if part["state"] == "done")


def test_a_text_is_read_to_its_end_though_its_agent_is_killed(tmp_path):
    mortal, clients = Mortal(tmp_path), NodePeers(JS / "clients.mjs")
    try:
        with mortal.server.http() as http:
            http.post("/v1/sessions", json={"id": "s"})
            http.post("/v1/sessions/s/messages", json={"id": "q", "text": "say 20; die; say 10", "agent": "writer"})
            base = f"{mortal.url}/v1/streams/sessions/s"
            clients("follow", name="text", url=f"{base}/messages/run-q-out/text", live="sse", text=True)
            clients("follow", name="events", url=f"{base}/events", live="sse")
            clients("yjs.open", name="provider", url=mortal.url, session="s", insist=True)
            found = clients.until(lambda got: got["closed"], command="got", name="text")
            assert mortal.agent_died
            wanted = projected(http, "s")
            assert wanted["run", "run-q"]["status"] == "completed"
            assert "".join(found["items"]) == "".join(
                part["text"] for part in wanted["message", "run-q-out"]["parts"]
            )
            assert "".join(found["items"]).count(" ") == 30, "each word once"
            clients.until(lambda got: rows_of(got) == wanted, command="got", name="events")
            clients("stop", name="events")
            clients("yjs.open", name="a second device", url=mortal.url, session="s")
            for name in ("provider", "a second device"):
                clients.until(
                    lambda seen: text_in(seen["messages"]) == "".join(found["items"]), command="yjs.see", name=name
                )
    finally:
        clients.close()
        mortal.close()
