"""The benchmark of durable streams runs, with small numbers; what it finds is not judged here."""

import pytest

from tests.bench import streams
from tests.bench.peers import OURS


@pytest.mark.slow
def test_ours_is_measured(tmp_path):
    found = streams.measured(OURS, tmp_path / "ours", writers=2, readers=3, count=4)
    assert found["append"]["appends_per_s"] > 0
    assert found["append"]["p99_ms"] >= found["append"]["p50_ms"] > 0
    assert found["fan-out"]["p99_ms"] >= found["fan-out"]["p50_ms"] > 0


@pytest.mark.skipif(
    not (streams.HERE / "js/node_modules/@durable-streams/server").is_dir(), reason="needs npm ci in tests/bench/js"
)
@pytest.mark.slow
def test_both_are_measured_by_turns():
    found = streams.run(rounds=1, writers=2, readers=2, count=3)
    ours, theirs, ratio = found
    assert [ours, theirs, ratio] == [*(peer.name for peer in streams.PEERS), streams.RATIO]
    by = found[ours]["fan-out"]["p50_ms"] / found[theirs]["fan-out"]["p50_ms"]
    assert found[ratio]["fan-out"]["p50_ms"] == pytest.approx(by, abs=0.001)
    assert all(figures["append"]["appends_per_s"] > 0 for figures in found.values())
