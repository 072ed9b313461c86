"""The soak; where half a minute of it must do, with bounds to match: a short log, and rows that are folded early."""

from dataclasses import replace

import pytest

from tests.bench.soak import Load, problems, soak
from tests.profiles import NIGHTLY, sample

pytestmark = [pytest.mark.crash, pytest.mark.slow]


def test_under_a_steady_load_nothing_grows_and_nothing_is_lost(tmp_path):
    load = Load() if NIGHTLY else Load(max_wal_bytes=4 * 1024 * 1024, fold_rows=100)
    found = soak(tmp_path, replace(load, seconds=sample("soak")))
    assert problems(load, found) == []
    assert found.looks[-1].wal_begun >= 3, found.figures()
