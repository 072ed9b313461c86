"""What the page shows of a tool that runs in a client: who does it, and whose result counts."""

import pytest

from tests.browser.chromium import needs_chromium
from tests.browser.room import Room

pytestmark = needs_chromium


@pytest.fixture
def called(service):
    """A session in which an agent waits for a device to call a tool."""
    room = Room(service)
    holder = room.ask()
    holder.tool(name="place", input={"exact": True}, clientCall={"requestedAt": 1})
    holder.end("suspended")
    (call,) = room.call("GET", room.of("/calls"))["calls"]
    yield room, room.of(f"/runs/{holder.run}/calls/{call['toolCallId']}")
    room.http.close()


def test_the_page_shows_who_calls_the_tool(browser, called):
    room, call = called
    page = browser.page(room.url(**{"as": "Ann"}))
    page.says("Waits for a window or device that can do it")
    room.call("PUT", f"{call}/offers/phone-1", {"principal": "bob"})
    page.says("At work in a window of bob")
    room.call("PUT", f"{call}/results/phone-1", {"principal": "bob", "output": "Oslo"})
    page.says("Done in a window of bob")
