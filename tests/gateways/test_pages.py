"""The example pages in a real browser: useChat in React's StrictMode, AG-UI, TanStack and Yjs side by side.

They are built and started as docs/how-to/chat-clients.md says.
"""

import json
import subprocess
import sys

import pytest

from tests.browser.chromium import in_chromium
from tests.processes import PATIENCE, ROOT, Process, free_port

PAGES = ROOT / "examples/gateways"


@in_chromium
@pytest.mark.skipif(not (PAGES / "node_modules").is_dir(), reason="needs Node: make setup")
@pytest.mark.nightly
def test_four_front_ends_show_one_conversation(tmp_path):
    subprocess.run(["node", PAGES / "build.mjs", PAGES / "dist"], check=True, timeout=PATIENCE)
    port, pages = free_port(), free_port()
    example = Process(
        sys.executable, PAGES / "run.py", "--port", port, "--pages-port", pages, "--database", tmp_path / "s.db",
    )  # fmt: skip
    try:
        url = example.wait_for(r"open (http\S+)")[1]
        done = subprocess.run(
            ["node", ROOT / "tests/gateways/pages.mjs", url],
            capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr + "\n".join(example.lines)
    finally:
        example.terminate()  # it ends its parts, which a killed one could not
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["errors"] == []
    assert seen["final"] == seen["later"], "somebody went on after the stop"
    assert seen["final"][0][-1][1].count("word") < 30


def test_asking_once_through_each_gateway(tmp_path):
    example = Process(
        sys.executable, PAGES / "run.py", "--once", "--port", free_port(), "--database", tmp_path / "s.db"
    )
    try:
        for name in ("AI SDK", "AG-UI", "TanStack AI", "OpenAI"):
            example.wait_for(f"^{name}: You said: hello through {name} $")
        example.wait_for("the session holds 8 messages")
        assert example.child.wait(PATIENCE) == 0
    finally:
        example.terminate()
