"""Installs what the project needs into the virtual environment that runs this, and says how far it has come.

    .venv/bin/python scripts/setup_python.py                        what the tests need
    .venv/bin/python scripts/setup_python.py requirements.lock      what the service, its agents and the demo need

Only what is pinned by its hash in the lock file is installed. pip's own words are shown if it fails.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
PIP = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off"]
ABOUT = {
    "requirements.lock": "about 30 MB to download and 100 MB on disk; half a minute to a minute, once",
    "requirements-dev.lock": "about 100 MB to download and 450 MB on disk; one to three minutes, once",
}
"""What each lock file takes."""
_RUN_AT_ONCE = ("requirements.lock",)
"""What is used as soon as it is installed. Of the others the Makefile makes bytecode beside something else."""
STEPS = 10
"""How often progress is told where lines cannot be overwritten, as in a log."""


def pinned(lock: str) -> int:
    """Return how many packages are pinned; some are for other systems."""
    return len(set(re.findall(r"^([a-z0-9-]+)(?:\[[^]]*\])?==", lock, re.M)))


class Progress:
    """One line that counts, on a terminal; a line now and then, elsewhere.

    Args:
        total: about how many there are.
        live: whether lines can be overwritten.
    """

    def __init__(self, total: int, *, live: bool) -> None:
        self._total = total
        self._live = live
        self._done = 0

    def see(self, line: str) -> None:
        """Take a line of pip's."""
        found = re.match(r"(?:Collecting|Processing) (?:\S*/)?([A-Za-z0-9_.]+)", line)
        if found:
            self._done += 1
            self._say(f"  {min(self._done, self._total)} of {self._total}: {found[1].split('-')[0]}")
        elif line.startswith("Installing collected packages"):
            self._done = self._total
            self._say(f"  {self._total} of {self._total}: unpacking ...")

    def _say(self, text: str) -> None:
        if self._live:
            print(f"\r{text:60}", end="", flush=True)
        elif self._done % max(self._total // STEPS, 1) == 0:
            print(text, flush=True)

    def end(self) -> None:
        """Leave the line."""
        if self._live:
            print(flush=True)


def install(arguments: list[str], progress: Progress) -> None:
    """Run pip; end with its own words if it fails."""
    said: list[str] = []
    with subprocess.Popen(
        [*PIP, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    ) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            said.append(line)
            progress.see(line)
    if pip.returncode != 0:
        progress.end()
        sys.exit(f"{''.join(said[-20:])}\npip could not install the packages; its last words stand above")


def main() -> None:
    lock = sys.argv[1] if len(sys.argv) > 1 else "requirements-dev.lock"
    total = pinned((ROOT / lock).read_text("utf-8"))
    where = os.path.relpath(sys.prefix)
    print(f"Setting up {where}: {total} Python packages, {ABOUT[lock]}.", flush=True)
    began = time.monotonic()
    progress = Progress(total, live=sys.stdout.isatty())
    compiled = [] if lock in _RUN_AT_ONCE else ["--no-compile"]
    install([*compiled, "--require-hashes", "-r", lock], progress)
    install(["--quiet", "--no-deps", "--no-build-isolation", "-e", "."], progress)
    progress.end()
    print(f"{where} is ready, after {time.monotonic() - began:.0f} s.", flush=True)


if __name__ == "__main__":
    main()
