"""Runs what failed once more, alone. `.ci/run` calls it when `make test` failed.

A test that fails beside others on a busy machine, and passes alone, is a fault of the test or of the code until it
is understood. It is named at the end of the log, and the submission that met it is not lost for it.

Exit status 0 if each of them passed alone; 1 if one failed again, if they are too many to be an accident, or if no
test is on record as failed, so that something else went wrong.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

AT_MOST = 5
"""Failures in more files than that are no accident. The tests of one file share a service, a browser or a process of
clients: if that ends, all that come after it fail."""


def main(root: Path) -> int:
    """Run the tests again that pytest has on record as failed in the folder *root*; return the exit status."""
    record = root / ".pytest_cache" / "v" / "cache" / "lastfailed"
    failed = sorted(json.loads(record.read_text())) if record.exists() else []
    files = {test.partition("::")[0] for test in failed}
    if not 1 <= len(files) <= AT_MOST:
        print(
            f"{len(failed)} tests in {len(files)} files failed: no second try (there is one for 1 to {AT_MOST} files)"
        )
        return 1
    print(f"{len(failed)} failed beside others. Each is tried once more, alone:", *failed, sep="\n  ", flush=True)
    if subprocess.run([sys.executable, "-m", "pytest", "-n", "0", "--", *failed], cwd=root, check=False).returncode:
        return 1
    print("FAILED ONCE AND PASSED ALONE. Each must be understood; the first failure stands above:")
    print(*failed, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path.cwd()))
