"""What may be used in a day is read now and then, and what is stored in between is added."""

import asyncio

import pytest

from crdt_sessions.errors import AllowanceSpent
from crdt_sessions.limits import UsageLimits
from crdt_sessions.model import Spent
from crdt_sessions.runtime.allowances import DAY_MS, Allowances
from crdt_sessions.storage import Amounts
from crdt_sessions.sync.records import Spending
from tests.processes import PATIENCE


class Store:
    """Counts how often it is asked, and answers with what was put there."""

    def __init__(self):
        self.asked, self.tokens, self.meanwhile = 0, 0, None

    async def usage(self, tenant, *, session=None, principal=None, since=None, until=None):
        self.asked += 1
        assert since == until, "the day that it is"
        found = {("m", ""): Amounts(input_tokens=self.tokens)}
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        return found


class Clock:
    def __init__(self):
        self.time = 20_000 * DAY_MS

    def now(self):
        return self.time


@pytest.fixture
def made():
    store, clock = Store(), Clock()
    return store, clock, Allowances(store, UsageLimits(max_tokens_per_principal=100), clock)


def spending(clock, before, after, principal="ann"):
    return Spending(principal, clock.time, Spent(input_tokens=before), Spent(input_tokens=after))


async def test_many_questions_cost_one_query_and_reports_none(made):
    store, clock, allowances = made
    for tokens in range(0, 100, 10):
        await allowances.check("", "ann")
        allowances.note("", [spending(clock, tokens, tokens + 10)])
    with pytest.raises(AllowanceSpent, match="have used 100 tokens"):
        await allowances.check("", "ann")
    assert store.asked == 1


async def test_what_another_node_has_used_counts_after_a_while(made):
    store, clock, allowances = made
    await allowances.check("", "ann")
    store.tokens = 100
    await allowances.check("", "ann")
    clock.time += 10_000
    with pytest.raises(AllowanceSpent):
        await allowances.check("", "ann")


async def test_it_begins_anew_with_the_day(made):
    store, clock, allowances = made
    store.tokens = 100
    clock.time += DAY_MS - 1500
    with pytest.raises(AllowanceSpent) as refused:
        await allowances.check("", "ann")
    assert (refused.value.retry_after_s, refused.value.anew) == (2, "2024-10-05T00:00:00Z")
    store.tokens, clock.time = 0, clock.time + 1500
    await allowances.check("", "ann")


async def test_what_is_stored_while_the_store_is_read_counts_once(made):
    store, clock, allowances = made

    def meanwhile():
        store.tokens = 60
        allowances.note("", [spending(clock, 0, 60)])

    store.meanwhile = meanwhile
    await allowances.check("", "ann")
    assert store.asked == 2
    allowances.note("", [spending(clock, 60, 99)])
    await allowances.check("", "ann")


async def test_what_others_use_meanwhile_holds_nobody_up(made):
    store, clock, allowances = made
    store.meanwhile = lambda: allowances.note("other", [spending(clock, 0, 60, "bob")])
    await allowances.check("", "ann")
    assert store.asked == 1


async def test_who_uses_more_whenever_it_is_read_is_answered_all_the_same(made):
    store, clock, allowances = made

    def meanwhile():
        allowances.note("", [spending(clock, 0, 60)])
        store.meanwhile = meanwhile

    store.meanwhile = meanwhile
    await asyncio.wait_for(allowances.check("", "ann"), PATIENCE)
    assert store.asked == 4


async def test_nobody_and_what_has_no_limit_are_not_asked_about(made):
    store, clock, allowances = made
    await allowances.check("", None)
    await Allowances(store, UsageLimits(), clock).check("", "ann")
    assert store.asked == 0
