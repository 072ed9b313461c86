"""What answers have cost, on the page: under each answer, and of the whole session, in everyday words."""

import pytest

from tests.browser.chromium import needs_chromium

pytestmark = needs_chromium


def test_an_answer_says_what_it_has_cost_and_the_page_what_all_have(browser, room):
    page = browser.page(room.url(**{"as": "Ann"}))
    first = room.ask("One")
    first.say("Two.")
    first.use(inputTokens=1240, outputTokens=310, cost=12_000, currency="USD")
    page.says("So far, models read 1,240 and wrote 310 tokens, cost $0.01")
    assert page.count(".message .used") == 0, "it is told when the answer is there"
    first.end()
    page.see(".message .used")
    page.says("Read 1,240 and wrote 310 tokens, cost $0.01")
    second = room.ask("And then?")
    child = second.delegate("oslo", "Oslo")
    child.use(inputTokens=60, outputTokens=7, cost=2_000_000, currency="USD")
    child.end()
    second.say("Three.")
    second.use(inputTokens=10, outputTokens=3, cost=40, currency="EUR")
    second.end()
    page.says("Read 70 and wrote 10 tokens, cost less than €0.01 and $2.00, child runs included")
    page.says("So far, models read 1,310 and wrote 320 tokens, cost less than €0.01 and $2.01")
    assert page.axe() == []
    assert page.errors() == []
    page.close()


@pytest.mark.nightly
def test_a_page_on_which_nothing_was_counted_says_nothing_of_it(browser, room):
    answer = room.ask("One")
    answer.say("Two.")
    answer.end()
    page = browser.page(room.url(**{"as": "Ann"}))
    page.says("Two.")
    assert page.count(".used") == 0
    assert page.eval("document.querySelector('#used').textContent") == ""
    page.close()
