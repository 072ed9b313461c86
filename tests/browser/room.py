"""A session, and agents in it that are played over HTTP, so that what they have written stays as it is."""

from __future__ import annotations

import uuid


class Room:
    """A session, and an agent in it, over HTTP."""

    def __init__(self, server, headers=None):
        self.name = f"room-{uuid.uuid4().hex[:8]}"
        self.server = server
        self.http = server.http(headers=headers)
        self.call("POST", "/v1/sessions", {"id": self.name})

    def call(self, method, path, body=None, **headers):
        answer = self.http.request(method, path, json=body, headers=headers)
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None

    def of(self, path=""):
        return f"/v1/sessions/{self.name}{path}"

    def url(self, who=None, **more):
        query = "".join(f"&{key}={value}" for key, value in more.items())
        return f"{self.server.url}/?session={self.name}{query}" + (f"#token={who}" if who else "")

    def ask(self, text="Do it", agent="writer", author=("ann", "Ann")):
        """Post a question and take the run that answers it."""
        principal, name = author
        message = self.call(
            "POST", self.of("/messages"), {"text": text, "author": {"id": principal, "name": name, "kind": "human"}}
        )
        run = self.call("POST", self.of("/runs"), {"messageId": message["id"], "agent": agent})["id"]
        return self.take(run, agent)

    def take(self, run, agent):
        """Take a run as an agent."""
        claim = self.call("POST", self.of(f"/runs/{run}/claim"), {"agents": [agent], "leaseS": 60, "children": True})
        return Holder(self, run, claim["token"])


class Holder:
    """The agent that has a run."""

    def __init__(self, room, run, lease):
        self._room, self.run, self._lease, self._written = room, run, lease, {}

    def _call(self, method, path, body):
        return self._room.call(
            method, self._room.of(f"/runs/{self.run}/{path}"), body, **{"Lease-Token": self._lease}
        )

    def say(self, text, type="text"):
        offset = self._written.get(type, 0)
        self._call("POST", "append", {"offset": offset, "text": text, "type": type})
        self._written[type] = offset + len(text)

    def tool(self, call="c1", name="book_seat", **more):
        self._call("PUT", f"tools/{call}", {"name": name, **more})

    def delegate(self, key, task, agent="helper", begin=True):
        """Ask for a child run, and take it unless it is not to *begin* yet."""
        child = self._call("POST", "children", {"key": key, "task": task, "agent": agent})["id"]
        return self._room.take(child, agent) if begin else child

    def use(self, **spent):
        self._call("PUT", "usage", spent)

    def end(self, status="completed"):
        self._call("POST", "result", {"status": status})
