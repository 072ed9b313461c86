"""What is left to a later profile: what is marked so, and nothing else."""

import pytest

from tests import profiles
from tests.profiles import PROFILES, parted


class Item:
    """What pytest knows of a test."""

    def __init__(self, nodeid, *marks):
        self.nodeid, self._marks = nodeid, {mark.name: mark for mark in marks}

    def get_closest_marker(self, name):
        return self._marks.get(name)


MARK = pytest.mark
ITEMS = [
    Item("a::plain"),
    Item("a::night", MARK.nightly.mark),
    Item("a::week", MARK.weekly.mark),
    *(Item(f"a::family[{number}]", MARK.sampled(3).mark) for number in range(5)),
    *(Item(f"b::family[{number}]", MARK.sampled(3).mark) for number in range(2)),
    Item("b::family-at-night[0]", MARK.sampled(3).mark, MARK.nightly.mark),
]


def kept(monkeypatch, profile):
    monkeypatch.setattr(profiles, "NIGHTLY", profile in {"nightly", "weekly"})
    monkeypatch.setattr(profiles, "WEEKLY", profile == "weekly")
    kept, left = parted(ITEMS)
    assert sorted((*kept, *left), key=ITEMS.index) == ITEMS, "none is lost, and none is there twice"
    return [item.nodeid for item in kept]


def test_ci_runs_what_no_later_profile_is_named_for_and_some_of_each_family(monkeypatch):
    assert kept(monkeypatch, "ci") == ["a::plain", "a::family[0]", "a::family[3]", "b::family[0]"]


def test_each_profile_runs_what_the_one_before_runs_and_more(monkeypatch):
    ci, nightly, weekly = (kept(monkeypatch, profile) for profile in ("ci", "nightly", "weekly"))
    assert set(ci) < set(nightly) < set(weekly)
    assert set(weekly) - set(nightly) == {"a::week"}
    assert len(weekly) == len(ITEMS)


@pytest.mark.parametrize("name", profiles._TABLE)
def test_a_longer_profile_tries_no_less(name):
    dev, *numbers = profiles._TABLE[name]
    if name in {"mutants", "recordings"}:  # every how many-th
        numbers = [-number for number in numbers]
    assert numbers == sorted(numbers)
    assert len(numbers) == len(PROFILES) - 1
    assert dev is not None
