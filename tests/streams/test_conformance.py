"""The public conformance suite of Durable Streams: every case passes, but for those that docs/reference explains."""

import json
import os
import re
import subprocess

import pytest

from tests.processes import ROOT, Server
from tests.profiles import sample
from tests.streams.node import JS, needs_node

pytestmark = [pytest.mark.interop, needs_node]

PAGE = ROOT / "docs/reference/conformance.md"
LONG_POLL_S = 1
SLOW = "Property-Based Tests|TTL Expiration Behavior|Chunking and Large Payloads|Fork - TTL"
SLOW += "|subscription-scoped leases|fences stale wake generations"
"""Cases that wait for time to pass, or send thousands of requests; or have a second for several of them."""


@pytest.fixture
def service(tmp_path):
    server = Server(
        tmp_path / "s.db", "--long-poll-s", LONG_POLL_S, "--allowed-origins", "https://example.com"
    )  # the page that the suite plays
    yield server
    server.close()


def test_the_conformance_suite_passes(service, tmp_path):
    report = tmp_path / "report.json"
    chosen = [] if sample("conformance") else ["-t", f"^(?!.*({SLOW}))"]
    told = subprocess.run(
        ["npx", "vitest", "run", "conformance.test.mjs", "--reporter=json", f"--outputFile={report}", *chosen],
        cwd=JS, check=False, capture_output=True, text=True, timeout=280,
        env={**os.environ, "SERVICE": service.url, "LONG_POLL_MS": str(LONG_POLL_S * 1000), "SUBSCRIPTIONS": "yes"},
    )  # fmt: skip
    assert report.exists(), told.stdout + told.stderr
    (file,) = json.loads(report.read_text("utf-8"))["testResults"]
    cases = [case for case in file["assertionResults"] if case["status"] in ("passed", "failed")]
    failed = {case["fullName"].strip(): case["failureMessages"] for case in cases if case["status"] == "failed"}
    explained = set(re.findall(r"^\| `([^`]+)` \|", PAGE.read_text("utf-8"), re.M))
    assert {name: why for name, why in failed.items() if name not in explained} == {}
    assert len(cases) > (300 if sample("conformance") else 250)
