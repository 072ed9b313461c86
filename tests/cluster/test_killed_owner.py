"""Real clients on nodes that do not have their session, while the one that has it is killed in the middle of an answer.

All are in one session, and each goes on by what it brings itself: providers connect again, an application with
``useChat`` resumes its stream, as docs/how-to/chat-clients.md says.
"""

import asyncio
import re
import time
from collections import Counter

import httpx
import pytest

from crdt_sessions import connect
from tests.cluster.nodes import Nodes, needs_postgres
from tests.gateways.conftest import JS, agent
from tests.interop.node import NodePeers, needs_node
from tests.processes import PATIENCE

pytestmark = [pytest.mark.interop, pytest.mark.crash, pytest.mark.processes, needs_node, needs_postgres]

ROOM = "room"
WORDS = 120
"""Of the answer; it takes about three seconds."""
EARLY, LATE = 30, 90
"""Words after which the owner is killed, and after which nobody writes any more."""
API = "/v1/gateways/ai-sdk/chat"
YJS = {"y-websocket-3": 3, "y-websocket-1": 1}
PROVIDERS = (*YJS, "hocuspocus", "y-sweet")
CHATS = {"useChat-http": "http", "useChat-ws": "ws"}


class Story:
    """What happened: one cluster, one kill, everybody in it."""

    def __init__(self, nodes, js, chats, writer):
        self.nodes, self.js, self.chats, self.writer = nodes, js, chats, writer
        self.posted = []
        """What was posted, and acknowledged or shown to whoever posted it."""
        self.back = {}
        """Client to the seconds after the kill in which it was in the session again."""

    @property
    def owner(self):
        return self.nodes.all[0]

    def url(self, number):
        """The address of one of the nodes that stay."""
        return self.nodes.all[1 + number % 2].url

    # -- before ----------------------------------------------------------------------------------------------------

    def arrive(self):
        for number, (peer, version) in enumerate(YJS.items()):
            self.js("open", peer=peer, url=ws(self.url(number)) + "/v1/sync", room=ROOM, version=version)
        self.js("socket", socket="hocuspocus", url=ws(self.url(0)) + "/v1/hocuspocus")
        self.js("attach", peer="hocuspocus", socket="hocuspocus", name=ROOM)
        self.js("sweeten", peer="y-sweet", url=self.url(1).replace("http", "ys", 1) + "/v1/y-sweet", name=ROOM)
        self.js.synced(*YJS)
        self.js.until(lambda count: count["synced"], command="count", peer="hocuspocus")
        self.js.until(lambda seen: seen["status"] == "connected", command="sweetness", peer="y-sweet")
        for number, (name, transport) in enumerate(CHATS.items()):
            self.chats(
                "ai.open", name=name, id=ROOM, url=self.url(number), transport=transport, body={"agent": "writer"}
            )

    # -- meanwhile -------------------------------------------------------------------------------------------------

    async def happen(self):
        async with connect(self.url(0), ROOM, name="python") as python:
            self.python = python
            asked = next(iter(CHATS))
            await self.chats.ask("ai.send", name=asked, text=f"say {WORDS} 25", wait=False)
            await until(lambda: self.words(python) > 3)
            for name in CHATS:
                if name != asked:
                    await self.chats.ask("ai.resume", name=name, wait=False)
            writers = {"python": python.post, **{peer: self.by_javascript(peer) for peer in PROVIDERS}}
            posting = [asyncio.create_task(self.post(name, post)) for name, post in writers.items()]
            await until(lambda: self.words(python) >= EARLY)
            self.owner.kill()
            self.killed_at = time.monotonic()
            watching = [*map(self.resumed, CHATS), *map(self.heard, PROVIDERS)]
            await asyncio.gather(*watching, self.python_is_back(python))
            await asyncio.wait_for(asyncio.gather(*posting), PATIENCE)
            await until(lambda: self.words(python) == WORDS)
            await until(lambda: all(run.over for run in python.view.runs.all()))
            self.shown = shown(python.view)

    async def post(self, name, post):
        """Post one message after the other, from before the kill until well after it."""
        number = 0
        while self.words(self.python) < LATE:
            await post(f"{name} {number}")
            self.posted.append(f"{name} {number}")
            number += 1
            await asyncio.sleep(0.05)

    def by_javascript(self, peer):
        async def post(text):
            await self.js.ask("post", peer=peer, id=text.replace(" ", "-"), text=text)

        return post

    def words(self, peer):
        return max((text.count(" ") for text in texts(peer.view) if text.startswith("naïve ")), default=0)

    # -- who is back, and when -------------------------------------------------------------------------------------

    def is_back(self, name):
        self.back[name] = time.monotonic() - self.killed_at

    async def python_is_back(self, python):
        words = self.words(python)
        await until(lambda: self.words(python) > words + 3)
        self.is_back("python and the agent")

    async def heard(self, peer):
        """Return once a Yjs provider has what was written after the kill."""
        mark = f"mark for {peer}"
        message = await self.python.post(mark)

        def has():
            return message.id in self.js("dump", peer=peer)["json"]["messages"]

        while not await asyncio.to_thread(has):
            await asyncio.sleep(0.03)
        self.posted.append(mark)
        self.is_back(peer)

    async def resumed(self, name):
        """Do what an application with useChat does: resume once the connection has broken."""
        await asyncio.to_thread(
            self.chats.until, lambda state: state["status"] == "error", command="ai.state", name=name
        )
        state = {"status": "error"}
        while state["status"] == "error":  # no second one before the first has failed: a page would follow both
            resuming = asyncio.create_task(self.chats.ask("ai.resume", name=name))
            while not resuming.done():
                if (await asyncio.to_thread(self.chats, "ai.state", name=name))["status"] == "streaming":
                    self.is_back(name)
                    break
                await asyncio.sleep(0.03)
            state = await resuming  # answered once the stream has ended
        self.back.setdefault(name, time.monotonic() - self.killed_at)  # the answer had ended by then
        assert (state["status"], state.get("error")) == ("ready", None), state


def ws(url):
    return url.replace("http", "ws", 1)


def texts(view):
    return [message.text for message in view.messages.ordered()]


def shown(view):
    return sorted((message.id, message.text) for message in view.messages.ordered())


async def until(condition):
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    nodes, closing = Nodes(tmp_path_factory.mktemp("nodes")), []
    closing.append(nodes)
    try:
        for unix in (False, False, True):
            nodes.start(unix=unix)
        with nodes.all[0].http() as http:
            assert http.post("/v1/sessions", json={"id": ROOM}).status_code == 201
            assert http.get(f"/v1/sessions/{ROOM}/messages").status_code == 200  # it is loaded, and owned
        owned = nodes.owner(ROOM)
        closing.append(writer := agent(nodes.all[2].url))
        closing.append(js := NodePeers())
        closing.append(chats := NodePeers(JS / "clients.mjs"))
        found = Story(nodes, js, chats, writer)
        found.arrive()
        assert nodes.owner(ROOM) == owned
        asyncio.run(found.happen())
        found.heir = nodes.owner(ROOM)
        assert found.heir not in (None, owned)
        print({name: round(seconds, 2) for name, seconds in found.back.items()})
        yield found
    finally:
        for each in reversed(closing):
            each.close()


def test_everybody_is_back_in_the_session(story):
    assert {*story.back} == {*PROVIDERS, *CHATS, "python and the agent"}


def test_the_answer_is_there_once_and_whole(story):
    (answer,) = [text for _, text in story.shown if text.startswith("naïve ")]
    assert answer.count(" ") == WORDS
    words = ["naïve", "café", "😀", "streams", "are", "durable."]
    assert answer.split() == [words[number % len(words)] for number in range(WORDS)]


def test_nothing_that_was_posted_is_lost_or_doubled(story):
    found = Counter(text for _, text in story.shown)
    assert {text: found[text] for text in story.posted} == dict.fromkeys(story.posted, 1)
    for name in {text.rpartition(" ")[0] for text in story.posted}:
        numbers = [int(text.split()[-1]) for text in story.posted if re.fullmatch(rf"{re.escape(name)} \d+", text)]
        assert numbers == [*range(len(numbers))]


@pytest.mark.parametrize("peer", PROVIDERS)
def test_a_yjs_client_ends_with_what_the_service_has(story, peer):
    def there(dump):
        found = dump["json"]["messages"]
        return sorted((id, "".join(p.get("text", "") for p in each["parts"])) for id, each in found.items())

    story.js.until(lambda dump: there(dump) == story.shown, command="dump", peer=peer)


@pytest.mark.parametrize("number", [0, 1])
def test_both_nodes_that_are_left_say_the_same(story, number):
    url = f"{story.url(number)}/v1/sessions/{ROOM}/export"
    messages = httpx.get(url, trust_env=False, timeout=PATIENCE).json()["messages"]
    assert {each["id"] for each in messages} == {id for id, _ in story.shown}
    lines = story.nodes.all[1 + number].lines
    assert not [line for line in lines if "Traceback" in line], "\n".join(lines)


@pytest.mark.parametrize("name", CHATS)
def test_usechat_shows_the_answer_once_as_the_history_has_it(story, name):
    state = story.chats("ai.state", name=name)
    history = httpx.get(f"{story.url(0)}{API}/{ROOM}/messages", trust_env=False, timeout=PATIENCE).json()["messages"]
    (answer,) = [each for each in history if each["role"] == "assistant"]
    (mine,) = [each for each in state["messages"] if each["role"] == "assistant"]
    said = ["".join(part.get("text", "") for part in each["parts"]) for each in (answer, mine)]
    assert said[0] == said[1]
    assert said[0].count(" ") == WORDS


def test_the_run_was_the_agents_all_the_time(story):
    runs = httpx.get(f"{story.url(1)}/v1/sessions/{ROOM}/runs", trust_env=False, timeout=PATIENCE).json()["runs"]
    (run,) = [each for each in runs if each["status"] == "completed"]
    assert run["epoch"] == 1, "it came back with its lease, and nobody had to begin anew"
