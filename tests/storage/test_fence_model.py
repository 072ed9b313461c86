"""The fence as a model: spin tries orders of events of nodes and sessions, and finds no mistake.

With a mistake in it, it finds that one. Two nodes and one session are tried in every order; three and two are too many
for that, and as many as there is memory for are tried once a week.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (shutil.which("spin") and shutil.which("cc")), reason="no spin, or no C compiler"),
]
MODEL = Path(__file__).parent / "fence.pml"
MISTAKES = {
    "NO_FENCE": "a write does not look at its lane",
    "SNAPSHOT": "it sees the lane as it was before its wait",
    "NO_NUMBER": "a statement that arrives late is taken",
    "GUESS": "a lost answer is taken for a commit",
    "ONE_STEP": "the end of a log is read before it is taken",
    "NO_WAIT": "a session of a node that lives is taken",
}


SMALL = ("NODES=2", "SESSIONS=1", "CUTS=1", "FREES=1")


def tried(folder, names, *options):
    """Return what pan says of the model with some *names* defined, compiled with *options*."""
    subprocess.run(
        ["spin", *(f"-D{each}" for each in names), "-a", MODEL], cwd=folder, check=True, capture_output=True
    )
    subprocess.run(["cc", "-w", "-DSAFETY", *options, "-o", "pan", "pan.c"], cwd=folder, check=True)
    done = subprocess.run(["./pan", "-E", "-m100000"], cwd=folder, check=True, capture_output=True, text=True)
    assert "max search depth too small" not in done.stdout
    return done.stdout


def test_nothing_goes_wrong_in_any_order(tmp_path):
    said = tried(tmp_path, SMALL, "-O2", "-DCOLLAPSE")
    assert "errors: 0" in said, said
    assert "Search not completed" not in said, said


@pytest.mark.weekly  # half an hour
@pytest.mark.timeout(7200)
def test_nothing_goes_wrong_among_three_nodes_and_two_sessions(tmp_path):
    said = tried(tmp_path, (), "-O2", "-DBITSTATE", "-DMEMLIM=4000")
    assert "errors: 0" in said, said


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.sampled(3)
def test_a_mistake_is_found(tmp_path, mistake):
    said = tried(tmp_path, (*SMALL, mistake), "-O0", "-DCOLLAPSE")
    assert "assertion violated" in said, f"nobody noticed that {MISTAKES[mistake]}: {said}"
