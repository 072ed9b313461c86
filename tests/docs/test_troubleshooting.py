"""The page for those for whom it does not work knows everything that they can meet."""

import re
from pathlib import Path

import pytest

from crdt_sessions import errors
from crdt_sessions.wire.closing import CLOSE_CODES, INTERNAL_ERROR, NORMAL, is_permanent
from crdt_sessions_server.http.problems import OF_ERRORS, TYPES
from tests.processes import ROOT

PAGE = (ROOT / "docs/how-to/troubleshooting.md").read_text("utf-8")


@pytest.mark.parametrize("code", sorted({*CLOSE_CODES.values(), INTERNAL_ERROR.code, NORMAL.code}))
def test_each_close_code_has_a_row_that_says_what_to_do(code):
    (row,) = re.findall(rf"^\| {code} \|.*$", PAGE, re.M)
    assert all(cell.strip() for cell in row.strip("|").split("|"))


def test_it_names_no_close_code_that_there_is_not():
    ours = {int(code) for code in re.findall(r"^\| (\d{4}) \|", PAGE, re.M)} - {
        1006,
        1009,
    }  # of browsers and libraries
    assert ours == {*CLOSE_CODES.values(), INTERNAL_ERROR.code, NORMAL.code}
    assert "all codes but 4400 to 4499" in PAGE
    assert is_permanent(4400)
    assert is_permanent(4499)


@pytest.mark.parametrize(
    "error",
    [
        errors.DatabaseInUse(path="…"),
        errors.DatabaseHasOtherNames(path="…", links=2),
        errors.NewerSchema(path="…", found=9, known=6),
        errors.ForeignDatabase(path="…", why="…"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_messages_at_start_are_those_of_the_page(error):
    said = str(error)
    shown = (re.escape(each).replace("…", ".*") for each in re.findall(r"`(…[^`]+)`", PAGE))
    assert any(re.match(each, said) for each in shown), said


def _kinds(kind=errors.CrdtSessionsError):
    for each in kind.__subclasses__():
        yield each
        yield from _kinds(each)


def test_each_error_that_only_python_raises_has_a_row_or_a_word():
    tables = {*CLOSE_CODES, *OF_ERRORS}
    ours = [kind for kind in _kinds() if not kind.__subclasses__() and not tables & set(kind.__mro__)]
    assert [kind.__name__ for kind in ours if f"`{kind.__name__}`" not in PAGE] == []


def test_every_option_it_speaks_of_is_one():
    settings = Path(ROOT / "docs/reference/settings.md").read_text("utf-8")
    for flag in re.findall(r"`--([a-z-]+)", PAGE):
        assert f"`{flag.replace('-', '_')}`" in settings, flag


def test_each_type_of_problem_has_a_row_in_the_page_that_it_points_to():
    listed = re.findall(r"^\| `([a-z-]+)` \|", (ROOT / "docs/reference/problems.md").read_text("utf-8"), re.M)
    assert "(../reference/problems.md)" in PAGE
    assert {kind.slug for kind in TYPES} == set(listed)
