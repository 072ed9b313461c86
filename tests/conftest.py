"""Profiles of Hypothesis: HYPOTHESIS_PROFILE = dev (default), ci, nightly."""

import os

import pytest
from hypothesis import HealthCheck, settings

from tests.interop.node import NodePeers
from tests.processes import Server

_QUIET = (HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large)

settings.register_profile("dev", max_examples=50, stateful_step_count=30, deadline=None, suppress_health_check=_QUIET)
settings.register_profile(
    "ci", max_examples=300, stateful_step_count=60, deadline=None, derandomize=True, suppress_health_check=_QUIET
)
settings.register_profile(
    "nightly", max_examples=10_000, stateful_step_count=200, deadline=None, suppress_health_check=_QUIET
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


@pytest.fixture
def server(tmp_path):
    """The service on a fresh database, as a process of its own."""
    process = Server(tmp_path / "sessions.db")
    yield process
    process.close()


@pytest.fixture
def js():
    """Real JavaScript clients."""
    peers = NodePeers()
    yield peers
    peers.close()
