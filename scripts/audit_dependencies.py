"""Looks up known vulnerabilities of everything that is pinned. `make audit` runs it, and CI.

Exit status 1 if there is one. What could not be looked up (an index that knows none of them) is said, and is no
failure: whether the lists can be had is not this project's doing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
_TIMEOUT_S = 240
_SERIOUS = ("high", "critical")


def python_packages() -> list[str]:
    """Return what is known against the Python packages of the lock file."""
    command = [
        sys.executable, "-m", "pip_audit", "--requirement", "requirements-dev.lock", "--require-hashes",
        "--disable-pip", "--format", "json", "--progress-spinner", "off",
    ]  # fmt: skip
    found = _asked(command)
    if found is None:
        return []
    listed = found["dependencies"]
    skipped = [each for each in listed if "skip_reason" in each]
    print(f"Python: {len(listed) - len(skipped)} of {len(listed)} packages were looked up")
    return [
        f"{each['name']} {each['version']}: {vulnerability['id']}"
        for each in listed
        for vulnerability in each.get("vulns", ())
    ]


def node_packages(folder: Path) -> list[str]:
    """Return what is seriously wrong with the Node packages of a lock file."""
    found = _asked(["npm", "audit", "--json", "--package-lock-only"], folder)
    if found is None or "vulnerabilities" not in found:
        print(f"{folder.relative_to(ROOT)}: could not be looked up")
        return []
    print(f"{folder.relative_to(ROOT)}: looked up")
    return [
        f"{folder.relative_to(ROOT)}: {name} ({each['severity']})"
        for name, each in found["vulnerabilities"].items()
        if each["severity"] in _SERIOUS
    ]


def _asked(command: list[str], folder: Path = ROOT) -> Any:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
        return json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        print(f"{command[0]}: could not be asked: {type(error).__name__}")
        return None


def main() -> int:
    """Look up everything; return the exit status."""
    found = python_packages()
    folders = [lock.parent for lock in sorted(ROOT.glob("**/package-lock.json")) if "node_modules" not in lock.parts]
    with ThreadPoolExecutor() as waiting:
        for each in waiting.map(node_packages, folders):
            found += each
    for each in found:
        print(f"vulnerable: {each}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
