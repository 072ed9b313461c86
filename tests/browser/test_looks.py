"""How the page shows what there is, and what it does when something is not as it should be: one browser, two services.

Agents are played over HTTP, so that what they have written stays as it is for as long as a test looks at it.
"""

import asyncio
import json
import uuid

import pytest
from pycrdt import Doc, Map

from crdt_sessions import connect
from crdt_sessions.model import Decision
from tests.access.conftest import bearer, guarded, token
from tests.browser.chromium import PHONE, needs_chromium
from tests.browser.room import Room

pytestmark = needs_chromium
LONG = "Maximiliana Featherstonehaugh-Cholmondeley of the Western Isles"


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    server = guarded(tmp_path_factory.mktemp("guarded"), "--page", "--max-frame-bytes", "100000")
    yield server
    server.close()


@pytest.fixture
def guarded_room(strict):
    room = Room(strict, bearer("backend", "service"))
    yield room
    room.http.close()


# -- a phone -----------------------------------------------------------------------------------------------------------


OFF_SCREEN = """[...document.querySelectorAll('.bar *, #composer *, .message, .state *')]
    .filter(each => each.checkVisibility() && !each.closest('.switch span') && each.getBoundingClientRect().width > 1)
    .filter(each => { const box = each.getBoundingClientRect(); return box.left < 0 || box.right > innerWidth || box.bottom > innerHeight + 5000 })
    .map(each => each.outerHTML.slice(0, 100))"""
SMALL = """[...document.querySelectorAll('button, summary, a, input:not([type=checkbox]), .switch')]
    .filter(each => each.checkVisibility())
    .filter(each => { const box = each.getBoundingClientRect(); return box.height < 44 || box.width < 44 })
    .map(each => each.outerHTML.slice(0, 100))"""


def test_header_and_composer_fit_a_phone_whatever_the_names_and_offline(browser, room):
    holder = room.ask("x" * 200, author=("max", LONG))
    holder.say("Thinking about it", "reasoning")
    holder.tool(input={"price": 120})
    room.call("PATCH", room.of(), {"title": "A very long title that nobody would want to read on a telephone " * 2})
    page = browser.page(room.url(**{"as": LONG}), **PHONE)
    page.see("#status.good")
    page.see(".message.assistant .tool")
    assert (
        page.eval("document.querySelector('.switch').innerText.trim()") == "Offline"
    )  # a switch without a word says nothing
    page.do("tap", ".switch")
    page.see("#status.away")
    page.write("Written on a train")
    page.until("document.getElementById('status').textContent.includes('not synced')")
    page.says("Not sent yet: you work offline")
    assert page.text(".message.own header b").endswith("…")  # a name that was cut says so
    assert page.eval(OFF_SCREEN) == []
    assert page.eval(SMALL) == []
    assert not page.eval(
        "document.documentElement.scrollWidth > innerWidth || document.documentElement.scrollHeight > innerHeight"
    )
    assert page.eval("document.querySelector('.composer button').getBoundingClientRect().bottom <= innerHeight")
    assert page.eval("document.querySelector('.bar').getBoundingClientRect().height") < 130
    assert page.axe() == []
    page.do("tap", '[data-view="notes"]')
    page.see("#editor .cm-content")
    assert not page.eval("document.querySelector('textarea').checkVisibility()")
    page.do("tap", '[data-view="people"]')
    page.see("#second")
    assert page.eval(SMALL) == []
    assert page.axe() == []
    page.close()


@pytest.mark.nightly
def test_cards_are_as_wide_as_the_composer(browser, room):
    holder = room.ask()
    holder.say("A word. " * 400)
    holder.end()
    page = browser.page(room.url())
    page.see(".message.assistant")
    assert page.eval("document.querySelector('.message.assistant .actions button').textContent") == "Regenerate"
    left, right = ("document.querySelector({!r}).getBoundingClientRect()." + side for side in ("left", "right"))
    for side in (left, right):
        composer = page.eval(side.format(".composer"))
        assert page.eval(side.format(".message.assistant")) == pytest.approx(composer, abs=1)
    assert page.eval(right.format(".message.user")) <= page.eval(right.format(".composer")) + 1
    page.close()


# -- what an agent writes ----------------------------------------------------------------------------------------------


def test_thoughts_follow_their_end_until_somebody_reads_further_up(browser, room):
    holder = room.ask()
    holder.say("".join(f"Line {n}\n" for n in range(40)), "reasoning")
    page = browser.page(room.url())
    gap = "(box => box.scrollHeight - box.scrollTop - box.clientHeight)(document.querySelector('.thoughts'))"
    page.until("document.querySelector('.thoughts')?.textContent.includes('Line 39')")
    page.until(f"{gap} < 3")
    holder.say("".join(f"Line {n}\n" for n in range(40, 80)), "reasoning")
    page.until("document.querySelector('.thoughts').textContent.includes('Line 79')")
    page.until(f"{gap} < 3")
    page.eval(
        "(box => { box.scrollTop = 0; box.dispatchEvent(new Event('scroll')) })(document.querySelector('.thoughts'))"
    )
    holder.say("Line 80\n", "reasoning")
    page.until("document.querySelector('.thoughts').textContent.includes('Line 80')")
    assert page.eval("document.querySelector('.thoughts').scrollTop") == 0
    page.close()


def test_a_tool_call_shows_what_it_was_given_and_what_it_returned(browser, room):
    holder = room.ask()
    holder.tool("c1", "search", input={"query": "boats"}, output={"found": ["Bygdøy"]})
    holder.tool("c2", "pay", input={"amount": 5}, error="the card was declined")
    holder.end()
    page = browser.page(room.url())
    page.see(".tool")
    assert page.eval("[...document.querySelectorAll('.tool-state')].map(each => each.textContent)") == [
        "done",
        "failed",
    ]
    page.click(".tool summary")
    page.see(".tool .output")
    assert json.loads(page.text(".tool .input")) == {"query": "boats"}
    assert json.loads(page.text(".tool .output")) == {"found": ["Bygdøy"]}
    page.click(".tool:nth-of-type(2) summary")
    page.says("the card was declined")
    page.close()


def test_a_fork_of_a_streaming_answer_says_that_it_was_broken_off(browser, room):
    holder = room.ask()
    holder.say("Let me think", "reasoning")
    fork = f"{room.name}-fork"
    room.call("POST", room.of("/fork"), {"id": fork})
    page = browser.page(f"{room.server.url}/?session={fork}")
    page.see(".reasoning")
    assert "broken off" in page.text(".reasoning summary")
    page.says("Continue")
    page.close()


# -- people ------------------------------------------------------------------------------------------------------------


def test_people_are_called_by_their_names(browser, room):
    stranger = str(uuid.uuid4())
    holder = room.ask(author=(stranger, "Bob"))
    holder.tool(input={}, approval={"needs": "any", "requestedAt": 1})
    holder.end("suspended")
    room.call("POST", room.of(f"/runs/{holder.run}/approvals/c1"), {"approved": True, "principal": stranger})
    page = browser.page(room.url())
    page.says("Approved by Bob")
    assert stranger not in page.eval("document.body.innerText")
    page.close()


def test_two_tabs_of_one_browser_are_two_people(browser, room):
    ann = browser.page(room.url(**{"as": "Ann"}))
    ann.see("#status.good")
    other = ann.eval("document.querySelector('#second').href")
    bob = browser.page(other, beside=ann)
    bob.see('#present li[data-name="Ann"]')
    ann.see('#present li[data-name="Bob"]')
    bob.write("It is me")
    ann.says("It is me")
    assert ann.text(".message header b") == "Bob"
    assert ann.count(".message.own") == 0
    bob.do("reload")
    bob.see(".message.own")
    for page in (ann, bob):
        assert page.errors() == []
        page.close()


def test_the_title_is_shown_and_can_be_changed_for_everybody(browser, room):
    room.call("PATCH", room.of(), {"title": "A weekend in Oslo"})
    ann, bob = browser.page(room.url()), browser.page(room.url())
    bob.until("document.querySelector('h1')?.textContent === 'A weekend in Oslo'")
    ann.click("#rename")
    ann.do("fill", "#retitle", "A week in Oslo")
    ann.do("press", "#retitle", "Enter")
    bob.until("document.querySelector('h1').textContent === 'A week in Oslo'")
    assert bob.do("title").startswith("A week in Oslo")
    assert room.call("GET", room.of())["title"] == "A week in Oslo"
    # an empty editor in which somebody stands shows their name, and no placeholder under it
    assert bob.eval("document.querySelector('.cm-placeholder').checkVisibility()")
    ann.click("#editor .cm-content")
    bob.see(".cm-ySelectionInfo")
    assert not bob.eval("document.querySelector('.cm-placeholder').checkVisibility()")
    assert bob.eval(
        "document.querySelector('.cm-ySelectionInfo').getBoundingClientRect().top >= document.querySelector('#editor').getBoundingClientRect().top"
    )
    ann.close()
    bob.close()


def test_carets_of_other_peers_are_shown_whatever_one_of_them_says(browser, room):
    page = browser.page(room.url(**{"as": "Bob"}))
    page.see("#status.good")
    end = {"tname": "draft"}  # what may be left out of JSON is
    odd = {"tname": "draft", "item": {"client": "x"}, "type": 7}

    async def write():
        async with (
            connect(room.server.url, room.name, name="Odd", id="odd") as troll,
            connect(room.server.url, room.name, name="Planner", id="planner", kind="agent") as planner,
        ):
            troll.set_presence(cursor={"anchor": odd, "head": odd})
            planner.set_presence(cursor={"anchor": end, "head": end})
            await asyncio.to_thread(page.see, ".cm-ySelectionInfo")
            await asyncio.to_thread(page.see, '#present li[data-name="Odd"]')
            assert await asyncio.to_thread(page.text, ".cm-ySelectionInfo") == "Planner"
            async with connect(room.server.url, room.name, name="Planner", id="planner", kind="agent") as run:
                run.set_presence("streaming")  # a run of the same agent: it is listed once, as it works
                await asyncio.to_thread(page.see, '#present li[data-name="Planner"] .streaming')
                assert await asyncio.to_thread(page.text, ".activity.streaming") == "writing"
                assert await asyncio.to_thread(page.count, "#present li") == 3

    asyncio.run(write())
    page.until("!document.querySelector('.cm-ySelectionInfo')")
    assert page.errors() == []
    page.close()


def test_newcomers_find_the_suggestions_of_the_session_and_ask_the_agent_they_name(browser, room):
    welcome = {
        "suggestions": [
            {"text": "Plan a weekend", "agent": "writer", "hint": "a long answer"},
            {"text": "Book two seats", "agent": "planner"},
            {"text": ["no text"]},
        ],
        "terminal": "python terminal.py --name <Carol>",
    }
    page = browser.page(room.url())
    page.see(".welcome")
    assert page.count("button.suggestion") == 0
    state = Doc()
    state.get("state", type=Map)["welcome"] = welcome
    octets = {"Content-Type": "application/octet-stream"}
    assert room.http.post(room.of("/import"), content=state.get_update(), headers=octets).status_code == 200
    page.until("document.querySelectorAll('button.suggestion').length === 2")
    assert page.text(".welcome code") == "python terminal.py --name <Carol>"
    page.click("button.suggestion")
    page.says("Queued: waits for writer")
    page.until("document.querySelectorAll('.chips button.suggestion').length === 1")
    page.write("@planner what would you do")
    page.says("Queued: waits for planner")
    runs = room.call("GET", room.of("/runs"))["runs"]
    assert sorted(run["agent"] for run in runs) == ["planner", "writer"]
    assert all(run["id"] == f"run-{run['request']['messageId']}" for run in runs)
    page.close()


# -- who may do what ---------------------------------------------------------------------------------------------------


def test_who_is_not_asked_sees_that_and_why(browser, room):
    holder = room.ask(author=("ann", "Ann"))
    holder.tool(input={"price": 120}, approval={"needs": "any", "approvers": ["ann"], "requestedAt": 1})
    holder.end("suspended")
    bob = browser.page(room.url(**{"as": "Bob"}))
    bob.see(".question")
    assert "Only Ann may decide" in bob.text(".why")
    assert bob.count(".question button:disabled") == 2
    bob.says("Waits for a decision about book_seat")

    async def decide_all_the_same():
        async with connect(room.server.url, room.name, name="Carl", id="carl") as carl:
            verdict = Decision(approved=True, at=1)
            carl.edit(lambda view: view.messages.find(f"{holder.run}-out").tool("c1").decide("carl", verdict))
            await carl.durable()

    asyncio.run(decide_all_the_same())
    bob.says("Carl approved; it does not count: Carl is not among those who are asked")
    ann = browser.page(room.url(**{"as": "Ann"}))
    ann.click(".question button:first-of-type")
    bob.says("Approved by Ann")
    ann.close()
    bob.close()


@pytest.mark.nightly
def test_a_viewer_is_told_so_and_is_offered_nothing_that_would_be_refused(browser, guarded_room):
    room = guarded_room
    holder = room.ask()
    holder.tool(input={}, approval={"needs": "any", "requestedAt": 1})
    holder.end("suspended")
    page = browser.page(room.url(token("vera", "viewer", name="Vera")))
    page.see("#status.good")
    page.see(".question")
    assert page.count("textarea") == 0
    assert "viewer, may not write" in page.text(".readonly")
    assert "viewer, may not decide" in page.text(".why")
    assert page.count(".question button:not(:disabled), .stop, #rename") == 0
    assert page.eval("document.querySelector('.cm-content').contentEditable") == "false"
    assert page.axe() == []
    page.close()


def test_what_was_refused_is_kept_as_a_copy_and_live_updates_go_on(browser, guarded_room):
    room = guarded_room
    room.call("POST", room.of("/messages"), {"text": "Before", "author": {"id": "ann", "kind": "human"}})
    page = browser.page(room.url(token("eve", "editor", name="Eve")))
    page.see(".composer")
    page.says("Before")
    page.do("check", "#offline", {"force": True})
    page.see("#status.away")
    page.write("Written while it was allowed")
    page.click("#editor .cm-content")
    page.do("type", "#editor .cm-content", "My notes")
    page.until("document.querySelector('.cm-content').textContent.includes('My notes')")
    room.call("PUT", room.of("/members/eve"), {"role": "viewer"})
    page.do("uncheck", "#offline", {"force": True})
    page.see(".notice.aside")
    page.see(".readonly")
    page.click(".notice summary")
    kept = page.eval("[...document.querySelectorAll('.notice pre')].map(each => each.textContent)")
    assert kept == ["Written while it was allowed", "My notes"]
    assert page.axe() == []
    for _ in range(2):  # also at the next load
        page.see("#status.good")
        text = f"After {uuid.uuid4()}"
        room.call("POST", room.of("/messages"), {"text": text, "author": {"id": "ann", "kind": "human"}})
        page.says(text)
        assert page.eval("document.querySelector('#messages').innerText.includes('while it was allowed')") is False
        assert "My notes" not in page.text("#editor .cm-content")
        page.do("reload")
    page.see(".notice.aside")
    page.click(".notice .discard")
    page.until("!document.querySelector('.notice.aside')")
    page.do("reload")
    page.see("#status.good")
    assert page.count(".notice.aside") == 0
    page.close()


# -- what fills the page -----------------------------------------------------------------------------------------------


def test_who_is_not_known_is_asked_to_sign_in(browser, guarded_room):
    page = browser.page(guarded_room.url())
    page.see('.state[data-kind="sign-in"]')
    assert page.axe() == []
    page.do("fill", "#token", "nonsense")
    page.click(".sign-in button")
    page.see('.state[data-kind="bad-token"]')
    told = page.eval("document.querySelector('.state').innerText")  # to a person, who sets no headers
    assert "The token is not good" in told
    assert "the link that you were given" in told
    assert "Bearer" not in told
    page.do("fill", "#token", token("ann", "owner", name="Ann"))
    page.do("press", "#token", "Enter")
    page.see("#status.good")
    page.see(".composer")
    page.close()


@pytest.mark.nightly
def test_a_token_that_is_revoked_while_one_looks_asks_for_another_one(browser, guarded_room):
    room = guarded_room
    page = browser.page(room.url(token("rita", "owner", name="Rita")))
    page.see("#status.good")
    room.call("POST", "/v1/revocations", {"principal": "rita"})
    page.see('.state[data-kind="expired"]')
    assert page.count("#rename") == 0, "nothing is offered that would be refused"
    page.close()


@pytest.mark.nightly
def test_a_session_that_one_may_not_make_is_said_not_to_be_there(browser, strict):
    page = browser.page(f"{strict.url}/?session=nowhere#token={token('vera', 'viewer')}")
    page.see('.state[data-kind="missing"]')
    assert page.axe() == []
    page.close()


@pytest.mark.nightly
def test_a_token_for_other_sessions_opens_none_of_this(browser, guarded_room):
    page = browser.page(guarded_room.url(token("ann", "owner", sessions=["other-*"])))
    page.see('.state[data-kind="forbidden"]')
    page.close()


def test_a_session_that_ends_while_one_looks_says_so(browser, room):
    page = browser.page(room.url())
    page.see(".composer")
    page.do("fill", "textarea", "Just about to say")
    room.call("PATCH", room.of(), {"status": "closed"})
    page.see(".readonly")
    assert "closed" in page.text(".readonly")
    assert page.count("textarea") == 0
    assert page.text(".draft") == "Just about to say"
    page.click("#reopen")
    page.see(".composer")
    assert page.do("inputValue", "textarea") == "Just about to say"
    page.write("The last word")
    page.until("!document.querySelector('.waiting') && document.querySelector('.message')")
    page.cut(cut=True)
    page.write("Too late")
    room.call("DELETE", room.of())
    page.cut(cut=False)
    page.see('.state[data-kind="deleted"]')
    page.see(".notice.aside")
    page.click(".notice summary")
    assert page.text(".notice pre") == "Too late"
    assert page.axe() == []
    page.click(".state button")
    page.see("#status.good")
    page.see(".composer")
    assert page.count(".message") == 0
    page.see(".notice.aside")  # until it is thrown away
    page.close()


@pytest.mark.nightly
def test_what_is_too_large_is_kept_as_a_copy(browser, guarded_room):
    page = browser.page(guarded_room.url(token("ann", "owner", name="Ann")))
    page.see(".composer")
    for size, times in ((150_000, 1), (250_000, 2)):  # the first is refused by us, the second by the web server
        page.write("x" * size)
        page.until(f"document.querySelectorAll('.notice.aside').length === {times}")
        page.see("#status.good")
        assert page.count(".message") == 0
    page.write("Something shorter")
    page.until("document.querySelector('.message') && !document.querySelector('.waiting')")
    page.close()


@pytest.mark.nightly
def test_a_copy_of_a_session_that_was_made_anew_is_not_mixed_with_it(browser, room):
    page = browser.page(room.url(**{"as": "Ann"}))
    page.see(".composer")
    page.cut(cut=True)
    page.see("#status.away")
    page.write("For the old one")
    room.call("DELETE", room.of())
    room.call("POST", "/v1/sessions", {"id": room.name})
    page.cut(cut=False)
    page.see(".notice.aside")
    page.see("#status.good")
    assert page.count(".message") == 0
    page.click(".notice summary")
    assert page.text(".notice pre") == "For the old one"
    assert room.call("GET", room.of("/messages"))["messages"] == []
    page.close()


def test_a_service_that_is_away_is_said_at_the_first_load_and_later(browser, room):
    page = browser.page(room.url(), cut=True)
    page.see('.state[data-kind="away"]')
    assert page.axe() == []
    page.cut(cut=False)
    page.eval("document.querySelector('.state button')?.click()")  # if the page has not just tried by itself
    page.see("#status.good")
    page.write("Hello")
    page.until("!document.querySelector('.waiting') && document.querySelector('.message')")
    page.cut(cut=True)
    page.until("document.getElementById('status').textContent.startsWith('Service away')")
    page.write("Kept here")
    page.until("document.querySelector('.waiting')?.textContent === 'Not synced'")
    page.says("Not sent yet: waits for the network")
    page.click(".message:last-of-type .stop")
    page.says("Will not be answered")
    page.do("reload")
    page.says("Kept here")
    page.cut(cut=False)
    page.see("#status.good")
    page.until("!document.querySelector('.waiting')")
    page.close()


def test_a_service_that_takes_the_connection_and_never_answers_is_said_to_be_away(browser, room):
    page = browser.page(room.url(), cut="silent", clock=True)
    page.see('.state[data-kind="opening"]')
    page.pass_time(11)
    page.see('.state[data-kind="away"]')
    page.cut(cut=False)
    page.click(".state button")
    page.see("#status.good")
    page.close()


# -- eyes, hands and taste ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.sampled(2)
def test_everything_can_be_read_and_has_a_label(browser, room, scheme):
    holder = room.ask("A question")
    holder.say("Thinking\n" * 30, "reasoning")
    holder.say("# An answer\n\nwith `code`, a [link](https://example.org) and\n\n| a | b |\n|---|---|\n| 1 | 2 |\n")
    holder.tool(input={"price": 120}, approval={"needs": "any", "requestedAt": 1})
    page = browser.page(room.url(), colorScheme=scheme, reducedMotion="reduce")
    page.see("#status.good")
    page.see(".question button")
    page.write("Another question")
    page.says("Another question")
    assert page.axe() == []
    still = """document.getAnimations().filter(each => each.playState === 'running' && each.effect.getComputedTiming().duration > 1).length"""
    assert page.eval(still) == 0
    page.click("#history")
    page.until("document.querySelector('#when')?.textContent.length > 5 && !document.querySelector('#fork').disabled")
    assert page.eval("[...document.querySelectorAll('.past button')].map(each => each.textContent)") == [
        "Save version", "Restore", "Fork", "Back to now",
    ]  # fmt: skip
    assert page.axe() == []
    assert page.errors() == []
    page.close()


def test_what_stands_there_stays_while_earlier_states_are_loaded_and_nothing_looks_like_an_error(browser, room):
    page = browser.page(room.url())
    page.see("#status.good")
    page.click("#editor .cm-content")
    page.do("type", "#editor .cm-content", "Bring the map")
    page.eval("window.fetch = () => new Promise(() => {})")  # a slow service
    page.click("#history")
    page.until("document.querySelector('#past')?.textContent.includes('Loading…')")
    assert page.count("#past .error") == 0
    assert page.text("#earlier") == "Bring the map"
    assert page.errors() == []
    page.close()


def test_the_page_can_be_used_by_keyboard_alone(browser, room):
    page = browser.page(room.url())
    page.see("#status.good")
    reached = set()
    for _ in range(40):
        page.press("Tab")
        at = page.eval(
            "document.activeElement.id || document.activeElement.name || document.activeElement.textContent.trim()"
        )
        outlined = page.eval(
            "[document.activeElement, document.activeElement.nextElementSibling, document.activeElement.closest('#editor')]"
            ".some(each => each && getComputedStyle(each).outlineStyle !== 'none')"
        )
        if page.eval("document.activeElement === document.body"):
            break
        assert outlined, f"nobody sees that {at!r} has the focus"
        reached.add(at)
    assert {"rename", "history", "offline", "text", "Send", "second"} <= reached
    page.close()
