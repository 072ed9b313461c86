"""What is said while the project is set up."""

import re
import sys

import pytest

from scripts import setup_python
from tests.processes import ROOT


def test_the_packages_that_are_pinned_are_read_with_their_hashes():
    lock = "a==1 \\\n    --hash=x \\\n    --hash=y\nb[c]==2\na==2 ; python_version < '3' \\\n    --hash=z\n# d==1\n"
    assert setup_python.pinned(lock, "b") == ["b[c]==2"]
    assert [entry.split("==")[0] for entry in setup_python.pinned(lock)] == ["a", "b[c]", "a"]
    assert [entry.count("--hash=") for entry in setup_python.pinned(lock, "a")] == [2, 1]
    (uv,) = setup_python.pinned((ROOT / setup_python.DEVELOPMENT).read_text("utf-8"), "uv")
    assert "--hash=" in uv


def told(capsys, *, live):
    progress = setup_python.Progress(live=live)
    for line in ("Using Python", "Resolved 20 packages in 1s", "Downloading a (1MiB)", " Downloaded a", " + a==1"):
        progress.see(f"{line}\n")
    progress.see("Collecting package1==1 (from -r requirements-dev.lock (line 1))\n")
    progress.end()
    return capsys.readouterr().out


def test_progress_is_one_line_on_a_terminal(capsys):
    said = told(capsys, live=True)
    assert said.count("\n") == 1
    assert said.count("\r") == 3
    assert len({len(part) for part in said.strip("\r\n").split("\r")}) == 1, "the line is not covered by the next"


def test_progress_is_a_line_for_each_step_in_a_log(capsys):
    said = told(capsys, live=False).splitlines()
    assert said[:2] == ["  Resolved 20 packages in 1s", "  Downloaded a"]
    assert said[2].startswith("  Collecting package1==1")
    assert len(said) == 3


def test_uv_asks_the_index_that_pip_is_told_to_ask():
    config = ":env:.index-url='https://one.example/simple'\nglobal.index-url='https://two.example/simple'\n"
    assert setup_python.index_of_pip(config) == {"UV_DEFAULT_INDEX": "https://one.example/simple"}
    assert setup_python.index_of_pip("global.extra-index-url='file:///there'\n") == {}


def installer(script):
    return [sys.executable, "-c", script]


def test_pip_does_what_uv_cannot(monkeypatch, capsys):
    def unreachable(lock, progress):
        setup_python.run(installer("print('no route to the index'); raise SystemExit(2)"), progress)

    monkeypatch.setattr(setup_python, "install_by_uv", unreachable)
    monkeypatch.setattr(setup_python, "PIP", installer("import sys; print('Collecting', *sys.argv[1:])"))
    setup_python.install("requirements.lock", setup_python.Progress(live=False))
    said = capsys.readouterr().out
    assert "no route to the index\nuv could not install" in said
    assert "Collecting --require-hashes -r requirements.lock" in said
    assert "Collecting --quiet --no-deps --no-build-isolation -e ." in said


def test_a_setup_that_fails_ends_with_the_words_of_pip(monkeypatch):
    script = "print('Collecting a==1'); print('ERROR: no such package'); raise SystemExit(1)"
    monkeypatch.setattr(setup_python, "PIP", installer(script))
    monkeypatch.setattr(sys, "argv", ["setup_python.py"])
    with pytest.raises(SystemExit, match=r"(?s)no such package.*pip could not install"):
        setup_python.main()


def test_make_says_what_a_setup_takes():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert "scripts/setup_python.py\n" in makefile
    assert "scripts/setup_python.py requirements.lock\n" in makefile
    for lock, about in setup_python.ABOUT.items():
        assert (ROOT / lock).is_file()
        assert re.search(r"\d+ MB to download and \d+ MB on disk; [\w ]+ minutes?[\w ]*, once", about)


def locked(name):
    return dict(re.findall(r"^([a-z0-9-]+)(?:\[[^]]*\])?==([^ ;\\]+)", (ROOT / name).read_text("utf-8"), re.M))


def test_what_the_demo_needs_is_a_part_of_what_the_tests_need():
    demo, all_of_it = locked("requirements.lock"), locked("requirements-dev.lock")
    assert demo.items() <= all_of_it.items(), "the two have parted: make lock"
    assert {"pycrdt", "quart", "openai", "hatchling"} <= demo.keys()
    assert len(demo) < len(all_of_it) / 2
