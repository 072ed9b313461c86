"""Profiles of Hypothesis: HYPOTHESIS_PROFILE = dev (default), ci, nightly."""

import os

from hypothesis import HealthCheck, settings

_QUIET = (HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large)

settings.register_profile("dev", max_examples=50, stateful_step_count=30, deadline=None, suppress_health_check=_QUIET)
settings.register_profile(
    "ci", max_examples=300, stateful_step_count=60, deadline=None, derandomize=True, suppress_health_check=_QUIET
)
settings.register_profile(
    "nightly", max_examples=10_000, stateful_step_count=200, deadline=None, suppress_health_check=_QUIET
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))
