"""The useChat page of examples/gateways, in real tabs: an agent has the page call a tool, once."""

import functools
import http.server
import subprocess
import threading
import uuid

import pytest

from tests.browser.chromium import needs_chromium
from tests.gateways.conftest import agent
from tests.processes import PATIENCE, ROOT, Server

PAGES = ROOT / "examples/gateways"
pytestmark = [
    *needs_chromium,
    pytest.mark.skipif(not (PAGES / "node_modules").is_dir(), reason="needs Node: make setup"),
]


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    """Return a function that gives the address of the page, in a session of its own."""
    folder = tmp_path_factory.mktemp("chat")
    subprocess.run(["node", PAGES / "build.mjs", folder / "dist"], check=True, timeout=PATIENCE)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    pages = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder / "dist"))
    threading.Thread(target=pages.serve_forever, daemon=True).start()
    origin = f"http://127.0.0.1:{pages.server_address[1]}"
    server = Server(
        folder / "s.db", "--default-agent", "writer", "--allowed-origins", origin, "--front-end-tool-s", "4"
    )
    writer = agent(server.url)
    yield lambda: f"{origin}/use-chat.html?service={server.url}&session=room-{uuid.uuid4().hex[:8]}"
    writer.close()
    server.close()
    pages.shutdown()
    pages.server_close()


def ask(page, text):
    page.see("input")
    page.do("fill", "input", text)
    page.do("press", "input", "Enter")


def calls(page):
    return page.eval("[...document.querySelectorAll('li.note')].length")


def test_of_two_tabs_one_calls_the_tool_and_both_show_the_answer(browser, chat):
    url = chat()
    first = browser.page(url)
    ask(first, "say 5")
    first.says("are")
    second = browser.page(url, beside=first)
    second.says("are")
    ask(first, "say 60 30; device time_zone")
    second.says("durable. naïve")
    for page in (first, second):
        page.says("it says")
    assert calls(first) + calls(second) == 1


def test_a_tab_that_is_loaded_again_between_call_and_result_calls_the_tool_again(browser, chat):
    page = browser.page(chat())
    page.see("input")
    page.eval("void (Intl.DateTimeFormat = () => { throw new Error('no such clock') })")
    ask(page, "say 3; device time_zone")
    page.says("This page called time_zone")
    page.do("reload")
    page.says("it says")
    assert calls(page) == 1


@pytest.mark.nightly
def test_a_tab_that_is_closed_while_it_has_the_call_is_followed_by_another_one(browser, chat):
    url = chat()
    first = browser.page(url)
    first.see("input")
    first.eval("void (Intl.DateTimeFormat = () => { throw new Error('no such clock') })")
    ask(first, "say 3; device time_zone")
    first.says("This page called time_zone")
    second = browser.page(url)
    second.see("input")
    first.do("close")
    second.says("it says")
    assert calls(second) == 1
