"""The compiled leaf: it builds, says so, and passes the tests of what it replaces; every night, all of the library's.

``make compiled`` runs all tests on it, those with services and clients as well.
"""

import os
import shutil
import subprocess
import sys
import zipfile

import pytest

from scripts.compile_leaf import LEAF
from tests.processes import ROOT
from tests.profiles import NIGHTLY

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler; on Debian: apt-get install gcc"),
]
BUILD_S = 1200
"""A bound for a compiler beside other load."""


@pytest.mark.timeout(2 * BUILD_S)
def test_a_wheel_with_a_compiled_leaf_passes_the_tests_of_what_is_in_it(tmp_path):
    pytest.importorskip("setuptools", reason="mypyc builds with setuptools")
    wheel = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        tmp_path,
        ROOT,
    ]
    subprocess.run(wheel, env=os.environ | {"HATCH_BUILD_HOOK_ENABLE_CUSTOM": "true"}, check=True, timeout=BUILD_S)
    (built,) = tmp_path.glob("*.whl")
    assert not built.name.endswith("-none-any.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(built) as archive:
        archive.extractall(site)
    environment = os.environ | {"PYTHONPATH": str(site), "HYPOTHESIS_PROFILE": "ci"}
    code = (
        "import importlib\n"
        f"for path in {LEAF!r}:\n"
        "    name = path.removeprefix('server/').removesuffix('.py').replace('/', '.')\n"
        f"    file = importlib.import_module(name).__file__\n"
        f"    assert file.startswith({str(site)!r}) and not file.endswith('.py'), file\n"
        "from crdt_sessions_server.arguments import parse\n"
        "parse(['--version'])"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (said.returncode, "(compiled leaf)" in said.stdout) == (0, True), said.stderr
    tests = ["tests/wire", "tests/sync/test_log.py", "tests/sync/test_plain.py", "tests/server/test_websocket.py"]
    if NIGHTLY:
        tests = ["-m", "not processes and not interop and not browser and not crash and not slow", "tests"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", "-o", f"pythonpath={site} .", *tests],
        env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=BUILD_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:]
    assert "crdt-sessions: compiled leaf" in done.stdout
