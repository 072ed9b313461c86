"""Installs what the project needs into the virtual environment that runs this, and says how far it has come.

    .venv/bin/python scripts/setup_python.py                        what the tests need
    .venv/bin/python scripts/setup_python.py requirements.lock      what the service, its agents and the demo need

Only what is pinned by its hash in the lock file is installed. uv does it, in a tenth of the time that pip takes; pip
fetches uv, and does all of it where uv cannot. The last words of either are shown if it fails.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
DEVELOPMENT = "requirements-dev.lock"
PIP = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off"]
ABOUT = {
    "requirements.lock": "about 60 MB to download and 100 MB on disk; half a minute at most, once",
    DEVELOPMENT: "about 120 MB to download and 450 MB on disk; a minute at most, once",
}
"""What each lock file takes, uv itself among it."""
_TOLD = re.compile(r"\s*(?:Collecting|Processing|Downloaded|Resolved|Prepared|Installed|Installing|Bytecode)\b.*")
"""The lines of uv and pip that say how far they are."""
_INDEX = re.compile(r"^(?:\w+|:env:)\.index-url=(.*)$", re.M)


class Failed(Exception):
    """An installer ended with an error; the text is its last words."""


def pinned(lock: str, name: str = "[a-z0-9-]+") -> list[str]:
    """Return the entries of the lock file's text, with their hashes; *name* is a pattern."""
    return re.findall(rf"^{name}(?:\[[^]]*\])?==(?:.*\\\n)*.*", lock, re.M)


class Progress:
    """One line that changes, on a terminal; a line for each step, elsewhere.

    Args:
        live: whether lines can be overwritten.
    """

    def __init__(self, *, live: bool) -> None:
        self._live = live

    def see(self, line: str) -> None:
        """Take a line of an installer's."""
        if not _TOLD.match(line):
            return
        text = f"  {line.strip()}"[:78]
        print(f"\r{text:78}" if self._live else text, end="" if self._live else "\n", flush=True)

    def end(self) -> None:
        """Leave the line."""
        if self._live:
            print(flush=True)


def run(command: list[str], progress: Progress, env: dict[str, str] | None = None) -> None:
    """Run an installer.

    Raises:
        Failed: with its last words.
    """
    said: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=env
    ) as installer:
        assert installer.stdout is not None
        for line in installer.stdout:
            said.append(line)
            progress.see(line)
    if installer.returncode != 0:
        raise Failed("".join(said[-20:]).strip())


def index_of_pip(config: str) -> dict[str, str]:
    """Return the environment by which uv asks the index that pip asks; *config* is what `pip config list` says."""
    found = _INDEX.findall(config)
    return {"UV_DEFAULT_INDEX": ast.literal_eval(found[0])} if found else {}


def install_by_uv(lock: str, progress: Progress) -> None:
    """Install what *lock* pins, with the uv that the development lock pins.

    Raises:
        Failed: if uv cannot be had here, or cannot reach what it needs.
    """
    config = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    env = index_of_pip(config.stdout) | os.environ
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "uv.lock").write_text(
            "\n".join(pinned((ROOT / DEVELOPMENT).read_text("utf-8"), "uv")), "utf-8"
        )
        fetch = ["--quiet", "--require-hashes", "--target", f"{folder}/uv", "-r", f"{folder}/uv.lock"]
        run([*PIP, *fetch], progress)
        uv = [f"{folder}/uv/bin/uv", "pip", "install", "--python", sys.executable]
        run([*uv, "--compile-bytecode", "--require-hashes", "-r", lock], progress, env)


def install_by_pip(lock: str, progress: Progress) -> None:
    """Install what *lock* pins, as slowly as pip does.

    Raises:
        Failed: if a package cannot be had.
    """
    run([*PIP, "--require-hashes", "-r", lock], progress)


def install(lock: str, progress: Progress) -> None:
    """Install what *lock* pins, by uv or else by pip, and the project itself, editable.

    Raises:
        Failed: if pip cannot do it either.
    """
    try:
        install_by_uv(lock, progress)
    except (Failed, OSError) as error:
        progress.end()
        print(
            f"{error}\nuv could not install the packages, for the reason above; pip does it: two minutes", flush=True
        )
        install_by_pip(lock, progress)
    run([*PIP, "--quiet", "--no-deps", "--no-build-isolation", "-e", "."], progress)


def main() -> None:
    lock = sys.argv[1] if len(sys.argv) > 1 else DEVELOPMENT
    total = len(pinned((ROOT / lock).read_text("utf-8")))
    where = os.path.relpath(sys.prefix)
    print(f"Setting up {where}: about {total} Python packages, {ABOUT[lock]}.", flush=True)
    began = time.monotonic()
    progress = Progress(live=sys.stdout.isatty())
    try:
        install(lock, progress)
    except Failed as failed:
        progress.end()
        sys.exit(f"{failed}\npip could not install the packages; its last words stand above")
    progress.end()
    print(f"{where} is ready, after {time.monotonic() - began:.0f} s.", flush=True)


if __name__ == "__main__":
    main()
