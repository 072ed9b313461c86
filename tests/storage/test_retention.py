"""Which versions are kept, for any past and any policy."""

from hypothesis import given
from hypothesis import strategies as st

from crdt_sessions.ids import Millis, Seq
from crdt_sessions.limits import Retention
from crdt_sessions.storage import Version
from crdt_sessions.storage.retention import kept

DAY = 86_400_000

versions = st.lists(
    st.tuples(st.integers(0, 40 * DAY), st.none() | st.text(min_size=1, max_size=3)), max_size=60
).map(lambda past: [Version(Seq(n + 1), Millis(at), 1, name) for n, (at, name) in enumerate(past)])
policies = st.builds(Retention, last=st.integers(1, 10), dailies=st.integers(0, 30))


@given(versions, policies)
def test_what_is_kept(past, policy):
    """Also with a clock that was set back and forth: the numbers decide what is newer."""
    keep = kept(past, policy)
    assert keep <= {version.seq for version in past}
    assert {version.seq for version in past[-policy.last :]} <= keep
    assert {version.seq for version in past if version.name is not None} <= keep
    plain = [version for version in past if version.seq in keep and version.name is None][: -policy.last or None]
    assert len(plain) <= policy.last + policy.dailies
    days = sorted({version.at // DAY for version in past}, reverse=True)[: policy.dailies]
    for day in days:
        assert max(version.seq for version in past if version.at // DAY == day) in keep


@given(versions, policies)
def test_pruning_twice_is_pruning_once(past, policy):
    keep = kept(past, policy)
    assert kept([version for version in past if version.seq in keep], policy) == keep


@given(versions, policies)
def test_the_order_in_which_they_are_listed_plays_no_role(past, policy):
    assert kept(past, policy) == kept(reversed(past), policy)


def test_a_year_of_days_keeps_the_days_on_which_it_lived():
    past = [Version(Seq(n + 1), Millis(n * 30 * DAY), 1) for n in range(12)]
    assert kept(past, Retention(last=1, dailies=3)) == {10, 11, 12}
