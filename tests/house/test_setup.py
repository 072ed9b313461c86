"""What is said while the project is set up."""

import re
import sys

import pytest

from scripts import setup_python
from tests.processes import ROOT


def test_the_packages_that_are_pinned_are_counted():
    assert setup_python.pinned("a==1 \\\n    --hash=x\nb[c]==2\na==2 ; python_version < '3'\n# d==1\n") == 2
    assert setup_python.pinned((ROOT / "requirements-dev.lock").read_text("utf-8")) > 100


def told(capsys, *, live):
    progress = setup_python.Progress(20, live=live)
    for number in range(20):
        progress.see(f"Collecting package{number}==1 (from -r requirements-dev.lock (line 1))")
        progress.see(f"  Downloading package{number}-1-py3-none-any.whl (36 kB)")
    progress.see("Processing /wheels/package_x-2.0-py3-none-any.whl (from -r requirements-dev.lock (line 9))")
    progress.see("Installing collected packages: package1")
    progress.end()
    return capsys.readouterr().out


def test_progress_is_one_line_on_a_terminal(capsys):
    said = told(capsys, live=True)
    assert said.count("\n") == 1
    assert "7 of 20: package6" in said
    assert "20 of 20: package_x" in said
    assert "unpacking" in said


def test_progress_is_a_line_now_and_then_in_a_log(capsys):
    said = told(capsys, live=False).splitlines()
    assert 8 <= len(said) <= 14
    assert "\r" not in "".join(said)


def test_a_setup_that_fails_ends_with_the_words_of_pip(monkeypatch):
    script = "print('Collecting a==1'); print('ERROR: no such package'); raise SystemExit(1)"
    monkeypatch.setattr(setup_python, "PIP", [sys.executable, "-c", script])
    with pytest.raises(SystemExit, match=r"(?s)no such package.*pip could not install"):
        setup_python.install([], setup_python.Progress(3, live=False))


def test_make_says_what_a_setup_takes():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert "scripts/setup_python.py\n" in makefile
    assert "scripts/setup_python.py requirements.lock\n" in makefile
    for lock, about in setup_python.ABOUT.items():
        assert (ROOT / lock).is_file()
        assert re.search(r"\d+ MB to download and \d+ MB on disk; [\w ]+ minutes?, once", about)


def locked(name):
    return dict(re.findall(r"^([a-z0-9-]+)(?:\[[^]]*\])?==([^ ;\\]+)", (ROOT / name).read_text("utf-8"), re.M))


def test_what_the_demo_needs_is_a_part_of_what_the_tests_need():
    demo, all_of_it = locked("requirements.lock"), locked("requirements-dev.lock")
    assert demo.items() <= all_of_it.items(), "the two have parted: make lock"
    assert {"pycrdt", "quart", "openai", "hatchling"} <= demo.keys()
    assert len(demo) < len(all_of_it) / 2
