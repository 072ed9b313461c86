"""The copy that a browser keeps: what docs/how-to/offline-browser.md promises, in a real Chromium."""

import shutil
import time

import pytest

from tests.browser.chromium import needs_chromium
from tests.browser.room import Room
from tests.processes import Server, attempts

pytestmark = needs_chromium


@pytest.fixture
def rooms():
    """Makes sessions; or finds one again on a service that was started again."""
    made = []

    def make(server, known=None):
        if known is None:
            room = Room(server)
        else:
            room = object.__new__(Room)
            room.name, room.server, room.http = known.name, server, server.http()
        made.append(room)
        return room

    yield make
    for room in made:
        room.http.close()


@pytest.fixture
def own(tmp_path):
    """A service that may be stopped, and started again."""
    server = Server(tmp_path / "s.db", "--default-agent", "")
    yield server
    server.close()


def reach(page, *expected):
    """Wait until these messages are shown, once each."""
    page.until(
        f"JSON.stringify([...document.querySelectorAll('.message .text')].map(each => each.textContent.trim()).sort())"
        f" === JSON.stringify({sorted(expected)!r})"
    )


def stored(room, *expected):
    """Wait until the service has these messages, once each."""
    found = None
    for _ in attempts():
        messages = room.call("GET", room.of("/messages"))["messages"]
        found = sorted(message["parts"][0]["text"] for message in messages)
        if found == sorted(expected):
            return
        time.sleep(0.1)
    raise AssertionError(found)


def settled(page):
    """Wait until the page says that all is with the service, and the copy is in the browser."""
    page.see("#status.good")
    page.until("navigator.serviceWorker.controller !== null")


def write(page, text):
    page.write(text)
    page.says(text)


def test_a_reload_without_a_network_shows_the_page_and_what_was_written_comes_when_there_is_one(browser, own, rooms):
    room = rooms(own)
    page = browser.page(room.url())
    settled(page)
    write(page, "before")
    reach(page, "before")
    settled(page)
    own.kill()
    page.do("reload")
    reach(page, "before")
    write(page, "in a closed tab")
    page.see(".waiting")
    other = browser.page(room.url(), beside=page)  # another tab, without a network, too
    write(other, "in another tab")
    other.do("goto", "about:blank")
    page.do("goto", "about:blank")
    again = own.again()
    try:
        room = rooms(again, room)
        other.do("goto", room.url())
        settled(other)
        reach(other, "before", "in a closed tab", "in another tab")
        stored(room, "before", "in a closed tab", "in another tab")
    finally:
        again.close()


def test_a_browser_that_lost_its_copy_gets_everything_once(browser, service, rooms):
    room = rooms(service)
    page = browser.page(room.url())
    settled(page)
    write(page, "kept by the service")
    settled(page)
    page.eval(
        "(async () => { for (const { name } of await indexedDB.databases()) indexedDB.deleteDatabase(name); localStorage.clear() })()"
    )
    page.do("reload")
    settled(page)
    reach(page, "kept by the service")
    stored(room, "kept by the service")


@pytest.mark.nightly
def test_a_service_restored_from_an_older_backup_gets_back_what_browsers_have_and_nothing_twice(
    browser, own, rooms, tmp_path
):
    room = rooms(own)
    page = browser.page(room.url())
    settled(page)
    write(page, "in the backup")
    settled(page)
    assert own.terminate() == 0
    shutil.copy(own.database, tmp_path / "backup.db")
    second = own.again()
    try:
        settled(page)
        write(page, "after it")
        settled(page)
    finally:
        second.terminate()
    for left in tmp_path.glob("s.db*"):
        left.unlink()
    shutil.copy(tmp_path / "backup.db", own.database)
    third = second.again()
    try:
        settled(page)
        reach(page, "in the backup", "after it")
        page.do("reload")
        settled(page)
        reach(page, "in the backup", "after it")
        stored(rooms(third, room), "after it", "in the backup")
    finally:
        third.close()


def test_a_session_begun_anew_is_not_mixed_with_the_copy_of_the_old_one(browser, service, rooms):
    room = rooms(service)
    page = browser.page(room.url())
    settled(page)
    write(page, "of the old one")
    settled(page)
    page.do("goto", "about:blank")
    room.call("DELETE", room.of())
    room.call("POST", "/v1/sessions", {"id": room.name})
    room.call("POST", room.of("/messages"), {"text": "of the new one"})
    page.do("goto", room.url())
    page.see("#status.good")
    reach(page, "of the new one")
    stored(room, "of the new one")
