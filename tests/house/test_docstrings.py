"""What the reference is made of states the contract: arguments, what is returned, what is raised."""

import ast
import functools
import re
import textwrap

import griffe
import pytest

import crdt_sessions
from crdt_sessions import errors
from scripts.python_reference import PAGES, described, members, package

pytestmark = pytest.mark.slow  # the whole package is read for them


@functools.cache
def public(kind):
    """Return what is public and of a kind. Read when a test needs it, not by each worker that collects."""
    return [each for each in described(package()) if isinstance(each, kind)]


def functions():
    return public(griffe.Function)


def classes():
    return public(griffe.Class)


def _said(found):
    owner = found.parent if isinstance(found.parent, griffe.Class) else None
    return "\n".join(each.docstring.value for each in (found, owner) if each is not None and each.docstring)


def test_each_public_name_says_what_it_is_for():
    assert [each.path for each in (*functions(), *classes()) if each.docstring is None] == []
    assert [each.path for each in classes() if not list(members(each)) and not each.parameters] == []


def test_each_argument_is_described():
    made = [each for each in classes() if "dataclass" not in each.labels and "Made " not in each.docstring.value]
    # fields of dataclasses are described where they stand, arguments of what users do not make by what makes it
    missing = {
        each.path: [one.name for one in each.parameters if not _spoken_of(one.name, _said(each))]
        for each in (*functions(), *made)
    }
    assert {path: names for path, names in missing.items() if names} == {}


def _spoken_of(name, said):
    """Whether an argument is named, or what it stands for: the message of a message_id, the seconds of a wait_s."""
    words = re.sub(r"_(id|s|ms)$", "", name).replace("_", " ")
    return name in ("self", "cls") or re.search(rf"\b({name}|{words}|{words.split()[-1]})s?\b", said, re.I)


def test_what_is_returned_is_said():
    silent = [
        each.path for each in functions()
        if str(each.returns) not in ("None", "Self")
        and not re.search(r"\b(return|yield|tell|whether|result)", each.docstring.value, re.I)
    ]  # fmt: skip
    assert silent == []


def test_what_is_raised_is_said():
    missing = {each.path: _raised(each) - _named(_said(each)) for each in functions()}
    assert {path: kinds for path, kinds in missing.items() if kinds} == {}


def _raised(function):
    """Return the errors that a function makes and raises itself."""
    made = (each.exc for each in ast.walk(ast.parse(textwrap.dedent(function.source))) if isinstance(each, ast.Raise))
    names = {ast.unparse(each.func).rpartition(".")[2] for each in made if isinstance(each, ast.Call)}
    return {name for name in names if name[0].isupper()}  # others are functions that make one


def _named(said):
    """Return the errors that a docstring names, and all kinds of them."""
    known = {**vars(errors), **{kind.__name__: kind for kind in (ValueError, TypeError, IndexError, SystemExit)}}
    kinds = {name: kind for name, kind in known.items() if isinstance(kind, type) and issubclass(kind, BaseException)}
    named = tuple(kind for name, kind in kinds.items() if re.search(rf"\b{name}\b", said))
    return {name for name, kind in kinds.items() if named and issubclass(kind, named)}


def test_every_name_that_can_be_imported_from_the_top_is_in_the_reference():
    listed = {
        path.rpartition(".")[2]
        for _, _, sections in PAGES.values()
        for paths in sections.values()
        for path in paths
    }  # fmt: skip
    assert set(crdt_sessions.__all__) - listed - set(vars(errors)) == set()
