"""Questions on the page: choose, fill in, edit, approve; by keyboard, on a phone, half here and half there, offline."""

import json

import pytest

from tests.browser.chromium import PHONE, needs_chromium
from tests.browser.room import Room

pytestmark = needs_chromium
TRIP = {
    "type": "object",
    "properties": {
        "nights": {"type": "integer", "minimum": 1, "maximum": 14, "title": "Nights"},
        "name": {"type": "string", "title": "Name of the guest"},
        "room": {
            "title": "Room",
            "oneOf": [{"const": "single", "title": "Single"}, {"const": "double", "title": "Double"}],
        },
        "breakfast": {"type": "boolean", "title": "Breakfast"},
    },
    "required": ["nights", "name", "room"],
}
CHOICE = {"enum": ["Lisbon", "Porto", "Faro"]}


@pytest.fixture
def asked(service):
    """Return a function that has an agent ask something, in a session of its own."""
    rooms = []

    def ask(input=None, **question):
        room = Room(service)
        rooms.append(room)
        holder = room.ask()
        holder.tool(name="ask" if input is None else "book", input=input, approval={"requestedAt": 1, **question})
        holder.end("suspended")
        return room, f"{holder.run}-out"

    yield ask
    for room in rooms:
        room.http.close()


def approval(room, message):
    found = room.call("GET", room.of("/messages"))["messages"]
    (part,) = next(each for each in found if each["id"] == message)["parts"]
    return part["approval"]


def test_a_form_filled_in_half_on_a_phone_and_half_on_a_laptop_both_offline(browser, asked):
    room, message = asked(kind="form", message="Where shall I book?", schema=TRIP)
    laptop = browser.page(room.url(**{"as": "Ann"}))
    phone = browser.page(room.url(**{"as": "Bob"}), **PHONE)
    for page in (laptop, phone):
        page.see("form.ask")
        labels = "[...document.querySelectorAll('form.ask label[for], form.ask legend')].map(each => each.textContent.trim())"
        assert page.eval(labels) == ["Nights", "Name of the guest", "Room"], "in the order of the schema"
        page.says("Waits for an answer")
        page.cut(cut=True)
    laptop.do("fill", "form.ask input[type=number]", "3")
    phone.do("fill", "form.ask input[type=text]", "Bo")
    phone.click("form.ask .choice:nth-of-type(2)")
    for page in (laptop, phone):
        page.cut(cut=False)
    for page in (laptop, phone):
        page.until("document.querySelector('form.ask input[type=number]')?.value === '3'")
        page.until("document.querySelector('form.ask input[type=text]')?.value === 'Bo'")
        page.until("document.querySelectorAll('form.ask input[type=radio]')[1]?.checked")
        assert page.axe() == []
    assert phone.eval("document.documentElement.scrollWidth <= window.innerWidth"), "it fits a phone"
    laptop.click("form.ask .answer button:first-of-type")
    for page in (laptop, phone):
        page.says("Answered by Ann")
        assert page.errors() == []
        page.close()
    assert approval(room, message)["value"] == {"nights": 3, "name": "Bo", "room": "double"}


def test_two_people_write_in_one_field_at_once_and_nothing_of_either_is_lost(browser, asked, tmp_path):
    schema = {"type": "object", "properties": {"note": {"type": "string", "title": "Note", "maxLength": 500}}}
    room, message = asked(
        kind="form", message="What shall I tell them?", schema=schema, default={"note": "We arrive."}
    )
    laptop = browser.page(room.url(**{"as": "Ann"}))
    phone = browser.page(room.url(**{"as": "Bob"}), **PHONE)
    field, shown = "form.ask textarea", "document.querySelector('form.ask textarea')"
    for page in (laptop, phone):
        page.until(f"{shown}?.value === 'We arrive.'")
        page.cut(cut=True)
        page.do("focus", field)
    laptop.eval(f"{shown}.setSelectionRange(0, 0)")
    laptop.do("type", field, "Hello 😀! ")
    phone.eval(f"{shown}.setSelectionRange(9, 9)")
    phone.do("type", field, " at nine, with two dogs")
    for page in (laptop, phone):
        page.cut(cut=False)
    whole = "Hello 😀! We arrive at nine, with two dogs."
    for page in (laptop, phone):
        page.until(f"{shown}.value === {json.dumps(whole)}")
    assert phone.eval(f"{shown}.selectionStart") == len(whole.encode("utf-16-le")) // 2 - 1, (
        "the caret stays in its place"
    )
    phone.do("type", field, " and a cat")
    whole = f"{whole[:-1]} and a cat."
    laptop.until(f"{shown}.value === {json.dumps(whole)}")
    assert laptop.eval(f"{shown}.selectionStart") == 10
    for name, page in (("laptop", laptop), ("phone", phone)):
        page.do("screenshot", {"path": str(tmp_path / f"{name}.png")})
    laptop.click("form.ask .answer button:first-of-type")
    phone.says("Answered by Ann")
    assert approval(room, message)["value"] == {"note": whole}
    for page in (laptop, phone):
        assert page.errors() == []
        page.close()


def test_a_choice_is_made_by_keyboard(browser, asked):
    room, message = asked(kind="choose", message="Which town?", schema=CHOICE)
    page = browser.page(room.url(**{"as": "Ann"}))
    page.see("form.ask")
    page.do("focus", "form.ask input[type=radio]")
    page.press("ArrowDown")
    page.until("document.querySelectorAll('form.ask input[type=radio]')[1].checked")
    page.press("Enter")
    page.says("Answered by Ann")
    assert approval(room, message)["value"] == "Porto"
    page.close()


def test_the_input_of_a_tool_is_edited_before_it_is_approved(browser, asked):
    schema = {"type": "object", "properties": {"price": {"type": "number", "title": "Price"}}, "required": ["price"]}
    room, message = asked({"price": 120}, kind="edit", schema=schema)
    page = browser.page(room.url(**{"as": "Ann"}), **PHONE)
    page.until("document.querySelector('form.ask input[type=number]')?.value === '120'")
    page.do("fill", "form.ask input[type=number]", "80.5")
    page.click("form.ask .answer button:first-of-type")
    page.says("Approved by Ann")
    assert approval(room, message)["value"] == {"price": 80.5}
    page.close()


@pytest.mark.nightly
def test_it_is_approved_by_keyboard_on_a_phones_width(browser, asked):
    room, message = asked({"price": 120}, kind="approve", message="May I book it?")
    page = browser.page(room.url(**{"as": "Ann"}), **PHONE)
    page.says("May I book it?")
    assert page.eval("document.documentElement.scrollWidth <= window.innerWidth")
    page.do("focus", ".question button:first-of-type")
    page.press("Enter")
    page.says("Approved by Ann")
    assert approval(room, message)["approved"] is True
    page.close()


def test_what_is_asked_again_and_again_is_seen_and_stopped_by_anybody(browser, service):
    room = Room(service)
    author = {"id": "bob", "name": "Bob", "kind": "human"}
    asks = {"id": "daily", "text": "News?", "agent": "writer", "author": author, "schedule": {"every": 3_600_000}}
    room.call("POST", room.of("/messages"), asks)
    page = browser.page(room.url(**{"as": "Ann"}))
    page.says("Asked again and again; next")
    page.click(".message button:has-text('Stop')")
    page.says("Stopped before an answer")
    assert room.call("GET", room.of("/runs/run-daily"))["status"] == "cancelled"
    page.close()
    room.http.close()


@pytest.mark.nightly
def test_an_answer_that_does_not_fit_is_not_sent(browser, asked):
    room, message = asked(kind="form", message="How long?", schema={**TRIP, "required": ["nights"]})
    page = browser.page(room.url(**{"as": "Ann"}))
    page.see("form.ask")
    page.do("fill", "form.ask input[type=number]", "20")
    page.click("form.ask .answer button:first-of-type")
    page.until("document.querySelector('form.ask input[type=number]').validity.rangeOverflow")
    assert page.count("form.ask") == 1
    page.do("fill", "form.ask input[type=number]", "2")
    page.click("form.ask .answer button:first-of-type")
    page.says("Answered by Ann")
    assert approval(room, message)["value"] == {"nights": 2}
    page.close()


def test_a_question_is_declined(browser, asked):
    room, message = asked(kind="choose", message="Which town?", schema=CHOICE)
    page = browser.page(room.url(**{"as": "Ann"}))
    page.see("form.ask")
    page.click("form.ask .answer button:last-of-type")
    page.says("Declined by Ann")
    assert approval(room, message)["approved"] is False
    page.close()
