"""CI's second try: what failed beside others runs once more, alone, and is named either way."""

import os
import subprocess
import sys

import pytest

from tests.processes import ROOT

ONCE = """
from pathlib import Path

def test_accident():
    been = Path("been")
    first = not been.exists()
    been.touch()
    assert not first

def test_fine():
    pass
"""
ALWAYS = """
import pytest

@pytest.mark.parametrize("n", range({count}))
def test_broken(n):
    assert False
"""


QUICK = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "-p xdist.plugin"}
"""Without the plugins that take seconds to import."""


def tried(folder, *tests):
    (folder / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    for number, text in enumerate(tests):
        (folder / f"test_{number}.py").write_text(text)
    subprocess.run([sys.executable, "-m", "pytest", "-q"], cwd=folder, check=False, capture_output=True, env=QUICK)
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "second_try.py"],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        env=QUICK,
    )


@pytest.mark.slow
def test_what_fails_once_is_named_and_passes(tmp_path):
    done = tried(tmp_path, ONCE)
    assert done.returncode == 0
    assert done.stdout.endswith(
        "FAILED ONCE AND PASSED ALONE. Each must be understood; the first failure stands above:\n"
        "test_0.py::test_accident\n"
    )


@pytest.mark.slow
def test_what_fails_again_fails(tmp_path):
    done = tried(tmp_path, ONCE, ALWAYS.format(count=1))
    assert (done.returncode, "PASSED ALONE" in done.stdout) == (1, False)


BROKEN = "def test_broken():\n    assert False\n"


@pytest.mark.slow
def test_what_ended_with_the_process_that_a_file_shares_is_tried_again(tmp_path):
    done = tried(tmp_path, ALWAYS.format(count=9))
    assert (done.returncode, "9 failed beside others" in done.stdout) == (1, True)


@pytest.mark.parametrize("tests", [(BROKEN,) * 6, ("def test_fine(): pass",)])
def test_many_failures_and_none_on_record_have_no_second_try(tmp_path, tests):
    done = tried(tmp_path, *tests)
    assert (done.returncode, "no second try" in done.stdout) == (1, True)
