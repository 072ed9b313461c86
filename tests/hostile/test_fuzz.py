"""Mutated messages by the hundred thousand: the service, and a session beside, do not notice.

A million in the weekly profile (tests/profiles.py).
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT
from tests.profiles import sample

FRAMES = sample("frames")

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.timeout(FRAMES / 50 + 300)]


def test_mutated_messages_hurt_nobody_else():
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("fuzzing.py"), str(FRAMES), "1"],
        capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-2000:]}"
    seen = json.loads(done.stdout)
    print(seen)
    closes = seen["closes"]
    assert closes.pop("frames") >= FRAMES * 0.99
    for way in ("sync", "y-sweet", "hocuspocus"):
        assert closes.pop(f"{way} frames") > FRAMES // 10, f"few came by way of {way}"
    assert closes.pop("4400") > FRAMES // 20, "few were refused: the messages are too harmless"
    # More waits for others than there is room for: whoever brings it is to come again.
    assert closes.pop("1013", 0) < FRAMES // 100
    # One bit makes a Hold of an Ack, and nobody has that lease.
    assert closes.pop("4403", 0) < FRAMES // 1000
    # One that writes ``meta.lineage`` is taken for a copy of another session.
    assert closes.pop("4409", 0) < FRAMES // 500
    assert set(closes) <= {"1000", "4413"}, "a session failed or was loaded anew"
    assert seen["failed"] == 0
    assert seen["quiet"] > 20, "the session beside did not live"
    assert seen["rss"] < 400_000_000
