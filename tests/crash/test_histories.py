"""The checker of histories finds what it is there to find."""

import pytest

from tests.crash.histories import History, check_commits, check_owners, check_runs, check_tokens

HISTORY = History(1, invoked=["a-0", "a-1", "b-0", "a-2"], ok=["a-0", "a-1", "b-0"])


def test_a_good_history_is_let_pass():
    for present in (["a-0", "b-0", "a-1"], ["a-0", "a-1", "a-2", "b-0"]):
        check_tokens(HISTORY, present)
    commits = [(1, "s", 5, 7), (2, "s", 6, 7), (5, "s", 7, 8), (3, "t", 1, 7)]
    check_commits(commits, {7: 4}, HISTORY)
    check_owners(commits, HISTORY)
    runs = [(1, "s", "r", 1, "running"), (2, "s", "r", 1, "suspended"), (3, "s", "r", 2, "completed")]
    check_runs([*runs, (4, "t", "r", 1, "running"), (5, "s", "r", 2, "completed")], HISTORY)


@pytest.mark.parametrize(
    ("present", "said"),
    [
        (["a-0", "b-0"], "lost"),
        (["a-0", "a-1", "b-0", "a-1"], "twice"),
        (["a-0", "a-1", "b-0", "c-0"], "nobody"),
        (["a-1", "a-0", "b-0"], "stands behind"),
    ],
)
def test_tokens_that_are_lost_doubled_strange_or_out_of_order_are_found(present, said):
    with pytest.raises(AssertionError, match=said):
        check_tokens(HISTORY, present)


def test_gaps_forks_zombies_epochs_that_go_back_and_second_ends_are_found():
    for commits, fences, said in (
        ([(1, "s", 5, 7), (2, "s", 7, 7)], {}, "follows"),
        ([(1, "s", 5, 7), (2, "s", 5, 8)], {}, "follows"),
        ([(1, "s", 5, 7), (3, "s", 6, 7)], {7: 2}, "fenced"),
    ):
        with pytest.raises(AssertionError, match=said):
            check_commits(commits, fences, HISTORY)
    with pytest.raises(AssertionError, match="after another one"):
        check_owners([(1, "s", 5, 7), (2, "s", 6, 8), (3, "s", 7, 7)], HISTORY)
    with pytest.raises(AssertionError, match="went back"):
        check_runs([(1, "s", "r", 2, "running"), (2, "s", "r", 1, "running")], HISTORY)
    with pytest.raises(AssertionError, match="was failed, and then completed"):
        check_runs([(1, "s", "r", 1, "failed"), (2, "s", "r", 1, "completed")], HISTORY)
