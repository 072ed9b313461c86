"""The page of docs/how-to/editors.md in real tabs: two people and an agent in one document, with stock bindings."""

from __future__ import annotations

import asyncio
import functools
import http.server
import subprocess
import threading
import uuid

import pytest

from crdt_sessions import connect
from crdt_sessions.client.artifact_editor import ArtifactEditor
from tests.browser.chromium import PHONE, needs_chromium
from tests.interop.node import JS
from tests.processes import PATIENCE, ROOT, free_port

PAGE = ROOT / "examples/editors"
pytestmark = [
    *needs_chromium,
    pytest.mark.skipif(not (PAGE / "node_modules").is_dir(), reason="needs npm packages: make setup"),
]
CARETS = {
    "codemirror": ".cm-ySelectionCaret",
    "quill": ".ql-cursor",
    "monaco": ".yRemoteSelectionHead",
    "prosemirror": ".ProseMirror-yjs-cursor",
    "tiptap": ".collaboration-carets__caret",
    "blocknote": ".bn-collaboration-cursor__base",
    "lexical": ".lexical-carets > *",
}
SAYS = """(() => {
  const box = document.querySelector('#editor').cloneNode(true)
  for (const caret of box.querySelectorAll('%s, .ql-cursors, .lexical-carets, .cm-gutters, textarea, .margin')) caret.remove()
  return box.textContent.replace(/[\\u2060\\u200b\\ufeff]/g, '').replaceAll('\\u00a0', ' ').includes('%s')
})()"""
BY_HOCUSPOCUS = "-by-hocuspocus-"
"""What follows is the generation of its provider."""
_IN_CI = ("codemirror", f"tiptap{BY_HOCUSPOCUS}4")
"""One for code, and one for rich text; one by each protocol."""
_ALL = (
    *CARETS,
    *(f"{editor}{BY_HOCUSPOCUS}{version}" for editor in ("tiptap", "blocknote") for version in (2, 3, 4)),
)
TRIED = [pytest.param(each, marks=() if each in _IN_CI else pytest.mark.nightly) for each in _ALL]
WRITABLE = "#editor :is([contenteditable=true], textarea)"
DRAWN = """(() => {
  const named = each => each.textContent + getComputedStyle(each, '::after').content
  const caret = [...document.querySelectorAll('%s')].find(each => named(each).includes('Robot'))
  const parts = caret?.children.length ? [...caret.querySelectorAll('*')] : [caret]
  return parts.some(part => part?.getClientRects().length > 0)
})()"""
"""Whether the agent's caret is there. Monaco's have nothing in them: the page names them by a style."""

BESIDE = """(() => {
  const [links, undo] = ['#editors', '#undo'].map(each => document.querySelector(each).getBoundingClientRect())
  return document.querySelectorAll('#present li').length === 3 && undo.top < links.bottom
})()"""
"""Whether the button that undoes stands beside the links, with two people and the agent there."""


class Pages:
    """The page, served by a server of its own; built with any generation of Hocuspocus' provider."""

    def __init__(self, folder):
        self._folder = folder
        self._server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(_Quietly, directory=folder)
        )
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def url(self, hocuspocus=""):
        """Return where it is: with the provider of that generation, or with the one that the page has by itself."""
        out = self._folder / f"with{hocuspocus}"
        if not out.exists():
            provider = [JS / f"node_modules/hocuspocus-provider-{hocuspocus}"] if hocuspocus else []
            subprocess.run(["node", PAGE / "build.mjs", out, *provider], check=True, timeout=PATIENCE)
        return f"http://127.0.0.1:{self._server.server_address[1]}/{out.name}"

    def close(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    pages = Pages(tmp_path_factory.mktemp("editors"))
    yield pages
    pages.close()


class _Quietly(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        """Say nothing."""


class Robot:
    """An agent beside the tabs, with an event loop of its own."""

    def __init__(self, url, room, run):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._peer = connect(url, room, id="robot", name="Robot", kind="agent", quiet=True)
        self._run = run
        self._wait(self._peer.__aenter__())

    def _wait(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    def does(self, artifact, change, has=""):
        """Have it change an artifact, once that holds something."""

        async def work():
            await self._peer.until(lambda: artifact in self._peer.view.artifacts)
            draft = ArtifactEditor(self._peer, artifact, run=self._run)
            await self._peer.until(lambda: has in draft.content)
            done = change(draft)
            await self._peer.durable()
            return done

        return self._wait(work())

    def leave(self):
        self._wait(self._peer.leave())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()


class Table:
    """A room with Ann at a desk, Bob with a phone, and an agent that has a run."""

    def __init__(self, browser, service, pages, kind):
        editor, _, hocuspocus = kind.partition(BY_HOCUSPOCUS)
        self.room = f"editors-{uuid.uuid4().hex[:8]}"
        self.http = service.http()
        self.http.post("/v1/sessions", json={"id": self.room})
        asked = self.http.post(f"/v1/sessions/{self.room}/messages", json={"text": "Improve it"}).json()
        run = self.http.post(
            f"/v1/sessions/{self.room}/runs", json={"messageId": asked["id"], "agent": "robot"}
        ).json()["id"]
        self.robot = Robot(service.url, self.room, run)
        where = f"{pages.url(hocuspocus)}/?service={service.url}&session={self.room}&editor={editor}"
        where += "&by=hocuspocus" if hocuspocus else ""
        self.ann = browser.page(f"{where}&as=Ann")
        self.ann.see(f"body[data-ready={editor}]")
        self.bob = browser.page(f"{where}&as=Bob", **PHONE)
        self.bob.see(f"body[data-ready={editor}]")

    def both_say(self, text):
        for page in (self.ann, self.bob):
            page.until(SAYS % (", ".join(CARETS.values()), text))

    def leave(self):
        self.robot.leave()
        for page in (self.ann, self.bob):
            assert page.errors() == []
            page.close()
        self.http.close()


@pytest.fixture
def table(browser, service, pages, request):
    table = Table(browser, service, pages, request.param)
    yield table
    table.leave()


@pytest.mark.parametrize("table", TRIED, indirect=True)
def test_two_people_and_an_agent_write_and_what_the_agent_did_is_undone(table, request):
    editor = request.node.callspec.params["table"].partition(BY_HOCUSPOCUS)[0]
    artifact = {"codemirror": "text", "quill": "text", "monaco": "text"}.get(editor, editor)
    table.ann.do("type", WRITABLE, "We go by car to Oslo.")
    table.both_say("We go by car to Oslo.")
    table.robot.does(artifact, lambda draft: draft.edit("train", of="car"), has="car")
    table.both_say("We go by train to Oslo.")
    for page in (table.ann, table.bob):
        page.until(DRAWN % CARETS[editor])
    table.bob.do("press", WRITABLE, "Control+Home")
    table.bob.do("type", WRITABLE, "Bob: ")
    table.both_say("Bob: We go by train to Oslo.")
    for name, page in (("desk", table.ann), ("phone", table.bob)):
        page.shot(f"{editor}-{name}.png")
    table.ann.until(BESIDE)  # people who are present push nothing onto a second line
    table.ann.click("#undo:enabled")
    table.both_say("Bob: We go by car to Oslo.")


@pytest.mark.parametrize("table", ["lexical"], indirect=True)
@pytest.mark.nightly
def test_lexical_has_text_carets_and_undo_of_its_own(table):
    table.ann.do("fill", WRITABLE, "Hello from Ann")
    table.both_say("Hello from Ann")
    table.bob.until("document.querySelector('.lexical-carets').innerText.includes('Ann')")
    table.bob.do("press", WRITABLE, "Control+End")
    table.bob.do("press", WRITABLE, "Enter")
    table.bob.do("type", WRITABLE, "And from Bob")
    table.both_say("And from Bob")
    table.ann.until("document.querySelector('.lexical-carets').innerText.includes('Bob')")
    for name, page in (("desk", table.ann), ("phone", table.bob)):
        page.shot(f"lexical-{name}.png")
    table.ann.do("press", WRITABLE, "Control+z")
    for page in (table.ann, table.bob):
        page.until("!document.querySelector('#editor').innerText.includes('Hello')")
    table.both_say("And from Bob")


@pytest.mark.parametrize("table", ["tiptap"], indirect=True)
def test_a_suggestion_is_accepted_here_and_rejected_there_and_one_of_them_counts(table):
    table.ann.do("type", WRITABLE, "We go by car to Oslo.")
    table.both_say("We go by car to Oslo.")
    table.robot.does("tiptap", lambda draft: draft.suggest("**train**", of="car", note="no traffic"), has="car")
    for page in (table.ann, table.bob):
        page.says("Robot suggests: no traffic")
    table.bob.cut(cut=True)
    table.bob.click(".suggestion button:has-text('Reject')")
    table.ann.click(".suggestion button:has-text('Accept')")
    table.ann.says("Accepted by ann")
    table.bob.cut(cut=False)
    table.bob.says("Accepted by ann; you were later")
    table.both_say("We go by train to Oslo.")
    assert table.ann.text("#editor strong") == "train"
    for name, page in (("desk", table.ann), ("phone", table.bob)):
        page.shot(f"suggestion-{name}.png")
        assert page.eval("document.documentElement.scrollWidth <= window.innerWidth"), "it fits"


def test_the_page_says_what_is_in_its_way(browser, service, pages):
    nobody = f"127.0.0.1:{free_port()}"
    page = browser.page(f"{pages.url()}/?service={nobody}&editor=tiptap", **PHONE)
    page.says(f"No connection to http://{nobody}.")
    assert (
        page.eval("Math.min(...[...document.querySelectorAll('nav a, button')].map(one => one.offsetHeight))") >= 44
    )
    page.close()
    page = browser.page(f"{pages.url()}/?service={service.url}/&session=a%3Fb&editor=codemirror", cut=True)
    page.says(f"No connection to {service.url}.")
    page.cut(cut=False)
    page.see("body[data-ready=codemirror]")
    page.until("document.querySelector('#told').textContent === ''")
    page.close()
    page = browser.page(f"{pages.url()}/?service={service.url}&editor=word")
    page.says('There is no editor "word" here')
    assert page.errors() == []
    page.close()
