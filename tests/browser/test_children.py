"""Child runs on the page: a tree under the answer that asked, with what they write, ask and are stopped by."""

from tests.browser.chromium import PHONE, needs_chromium

pytestmark = needs_chromium


def test_children_stand_as_a_tree_under_the_answer_and_one_can_be_stopped(browser, room):
    lead = room.ask("Look for two towns")
    lead.say("I ask two others.")
    oslo = lead.delegate("oslo", "Oslo")
    bergen = lead.delegate("bergen", {"town": "Bergen"})
    below = oslo.delegate("hotels", "hotels in Oslo")
    oslo.say("Oslo is in the east.")
    waiting = lead.delegate("faro", "Faro", begin=False)
    page = browser.page(room.url(**{"as": "Ann"}), **PHONE)
    page.see(f".child[data-id='{below.run}']")
    assert page.count(".message") == 2, "a question and an answer"
    assert page.count(f".child[data-id='{oslo.run}'] .child") == 1, "a child of a child stands below it"
    page.says("3 child runs")
    page.says("waits for an agent")
    page.click(f".child[data-id='{oslo.run}'] summary")
    page.says("Oslo is in the east.")
    oslo.say(" It is cold.")
    page.says("It is cold.")
    page.click(f".child[data-id='{waiting}'] button.stop")
    page.until(f"document.querySelector(\".child[data-id='{waiting}']\").className.includes('cancelled')")
    page.says("3 child runs, 1 ended")
    bergen.end("failed")
    page.says("3 child runs, 2 ended")
    assert page.text(f".child[data-id='{bergen.run}'] .child-state") == "failed", "nobody said why"
    assert page.axe() == []
    assert page.eval("document.documentElement.scrollWidth <= window.innerWidth"), "it fits a phone"
    lead.end()
    page.until("document.querySelectorAll('.message.assistant.writing').length === 0")
    assert page.errors() == []
    page.close()


def test_a_child_that_asks_is_answered_on_the_page(browser, room):
    lead = room.ask()
    child = lead.delegate("seat", "Book a seat")
    child.tool(approval={"requestedAt": 1})
    child.end("suspended")
    page = browser.page(room.url(**{"as": "Ann"}))
    page.see(".child .question button")
    page.click(".child .question button")
    page.says("Approved by Ann")
    page.until("document.querySelector('.child').className.includes('queued')")
    assert page.errors() == []
    page.close()
