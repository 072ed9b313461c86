"""Every block of every page is run as it stands, or says why not, and what it promises comes about."""

import re
import shutil
import subprocess
import sys

import pytest

from tests.docs.page import blocks, pattern
from tests.docs.reader import PACKAGES, FreshReader, Reader
from tests.interop.node import AVAILABLE, WHY_NOT
from tests.processes import PATIENCE, ROOT, Replay
from tests.profiles import sample

_PAGES = [
    page
    for page in (
        ROOT / "README.md",
        *sorted((ROOT / "docs").rglob("*.md")),
        ROOT / "CONTRIBUTING.md",
        ROOT / "SECURITY.md",
    )
    if blocks(page)
]
_NEEDED = {"npm ": ((PACKAGES / "vite").is_dir(), "needs the packages of tests/gateways/js: make setup"),
    "node ": (AVAILABLE, WHY_NOT), "jq ": (bool(shutil.which("jq")), "needs jq"), "curl ": (bool(shutil.which("curl")), "needs curl"),
    "openssl ": (bool(shutil.which("openssl")), "needs openssl")}  # fmt: skip


def _name(page):
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", _PAGES, ids=_name)
def test_each_block_says_how_it_is_run_or_why_it_is_not(page):
    assert [block.problem for block in blocks(page) if block.problem] == []


@pytest.mark.parametrize("page", _PAGES, ids=_name)
def test_a_page_says_what_its_reader_needs_and_has_no_marks_of_its_writers(page):
    prose = re.sub(r"```.*?```|<!--.*?-->", "", page.read_text("utf-8"), flags=re.S)
    if any(re.search(r"(^|\| )jq ", block.text, re.M) for block in _runs(page)):
        assert "`jq`" in prose, "who has no jq must know before they begin"
    assert re.findall(r"^[A-Z]{3,}$|\b(?:TODO|FIXME|XXX)\b", prose, re.M) == []


@pytest.fixture(scope="module")
def model():
    """What stands in the environment of somebody who has a model: here, one that replays recorded streams."""
    replay = Replay(0)
    yield {**replay.env, "CRDT_SESSIONS_GONE_GRACE_S": "0.5"}  # a dead agent need not be mourned for long
    replay.close()


def _runs(page):
    """Return the blocks that somebody runs: pictures made of letters are not among them."""
    return [
        block
        for block in blocks(page)
        if not {"tested", "not-run"} & set(block.options) and (block.options or block.language != "text")
    ]


def _read(page, reader):
    if missing := [
        why for word, (there, why) in _NEEDED.items() if not there and any(word in b.text for b in _runs(page))
    ]:
        pytest.skip("; ".join(missing))
    try:
        reader.follow(blocks(page))
    finally:
        reader.close()


@pytest.mark.parametrize("page", [page for page in _PAGES if _runs(page)], ids=_name)
@pytest.mark.sampled(2)
def test_what_a_page_says_comes_about(page, tmp_path, model):
    _read(page, Reader(tmp_path, model))


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """The project's wheel, which an index would have."""
    folder = tmp_path_factory.mktemp("wheels")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        folder,
        ROOT,
    ]
    subprocess.run(command, check=True, timeout=PATIENCE)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.nightly
def test_what_a_page_installs_is_all_it_needs(tmp_path, model, wheels):
    for page in [page for page in _PAGES if _runs(page)][: sample("fresh")]:
        folder = tmp_path / page.stem
        folder.mkdir()
        _read(page, FreshReader(folder, model, wheels))


def test_a_block_that_no_rule_covers_is_found(tmp_path):
    page = ROOT / "docs/some.md"
    text = "```python\nprint()\n```\n```sh not-run=no\nmake\n```\n```js tested=tests/none.py\n```\n```text x=1\n```\n"
    problems = [block.problem for block in blocks(page, text)]
    assert [problem.split(":")[1] for problem in problems] == ["1", "4", "7", "9"]


@pytest.mark.parametrize(
    ("expected", "printed", "fits"),
    [
        ("a\nb", "a\nb\n", True),
        ("a\nb", "a\nb\nc\n", False),
        ("a\n…", "a\nb\nc\n", True),
        ("…\nc", "a\nb\nc\n", True),
        ("a … c", "a b c\n", True),
        ("a … c", "a b\nc\n", False),
    ],
)
def test_what_is_printed_is_compared_with_what_the_page_promises(expected, printed, fits):
    assert bool(re.fullmatch(pattern(expected), printed)) is fits
