"""Hocuspocus' own clients as a load: it runs, with small numbers; what it finds is not judged here."""

import pytest

from tests.bench import fanout
from tests.bench.peers import HERE, OF_HOCUSPOCUS


@pytest.mark.skipif(
    not (HERE / "js/node_modules/@hocuspocus/provider").is_dir(), reason="needs npm ci in tests/bench/js"
)
@pytest.mark.slow
@pytest.mark.parametrize("rate", [20, None])
@pytest.mark.parametrize("peer", OF_HOCUSPOCUS[:2], ids=lambda peer: peer.name)
def test_stock_clients_are_a_load(peer, rate, tmp_path):
    found = fanout.by_stock_clients(peer, tmp_path, seconds=1, rate=rate)
    assert found["deliveries"] > 0
    assert found["p99_ms"] >= found["p50_ms"] > 0
    assert found["cpu_us_per_delivery"] >= 0
