"""Errors in settings and files, for people: the place, the reason, and the nearest valid word."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from crdt_sessions.errors import BadTenant
from crdt_sessions.ids import TENANT_PATTERN
from crdt_sessions.model.strings import PLAIN

_PATTERNS = {
    r"^https?://": "must begin with http:// or https://",
    rf"^$|{TENANT_PATTERN}": str(BadTenant(text="")).partition(", not ")[0].replace("a tenant is", "must be"),
    PLAIN: "must have no control characters",
}
"""What a value that does not match was to look like. A regular expression tells most people nothing."""
_LEAST_LIKE = 0.6
_OF_THE_NAME = "[key]"
"""Pydantic's last step to a name in a table that is wrong, where the value may be right."""


def near(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean …?`` with whichever of *known* is most like *word*, or nothing if none is."""
    by_small = {name.lower(): name for name in known}
    small = word.lower()
    found = difflib.get_close_matches(small, by_small, n=1, cutoff=_LEAST_LIKE)
    found = found or [name for name in by_small if len(small) > 2 and (name.startswith(small) or small in name)][:1]
    return f"; did you mean {by_small[found[0]]}?" if found else ""


def listed(names: Iterable[Any]) -> str:
    """Return names as a list within a sentence."""
    *first, last = [str(name) or '""' for name in names]
    return f"{', '.join(first)} or {last}" if first else last


def unreadable(path: Path, error: OSError) -> str:
    """Return why a file cannot be read: which part of its path is not there, or what else is wrong."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        folder = next((each for each in reversed(path.absolute().parents) if not each.is_dir()), None)
        return f"there is no folder {folder}" if folder is not None else f"there is no file {path}"
    if isinstance(error, IsADirectoryError):
        return f"{path} is a folder, not a file"
    if isinstance(error, PermissionError):
        return f"{path} may not be read by the user the service runs as"
    return f"{path} cannot be read: {error.strerror}"


def read_file(path: Path, what: str) -> bytes:
    """Return what a file holds.

    Args:
        path: the file.
        what: what it is, for the message.

    Raises:
        ValueError: it cannot be read; the message says why.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{what}: {unreadable(path, error)}") from error
    except ValueError as error:  # a character NUL in its name
        raise ValueError(f"{what}: {str(path)!r} cannot be the name of a file") from error


def read_json(path: Path, what: str) -> Any:
    """Return the JSON in a file. Arguments as :func:`read_file`.

    Raises:
        ValueError: it cannot be read, or is not JSON; the message says why and shows nothing of it.
    """
    try:
        return json.loads(read_file(path, what).decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"{what} {path} is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{what} {path} is not JSON: {error.msg}, line {error.lineno}, column {error.colno}"
        ) from None
    except RecursionError as error:
        raise ValueError(f"{what} {path} is nested too deeply") from error


def explain(error: ValidationError, place: Callable[[Sequence[int | str]], str], known: Iterable[str]) -> list[str]:
    """Return a sentence for each thing that is wrong. None shows a value, except where there are few to choose from.

    Args:
        error: what pydantic found.
        place: returns how the place of a value is called, of its path.
        known: the names there may be where one is unknown.
    """
    sentences: dict[str, str] = {}
    for problem in error.errors(include_url=False):
        path = problem["loc"]
        if problem["type"] == "extra_forbidden":
            *above, name = path
            sentences[str(path)] = f"{place(above)}: there is no {name}{near(str(name), known)}"
        elif path[-1:] == (_OF_THE_NAME,):
            *above, name, _ = path
            sentences[str(path)] = f"{place(above)}: there is no {name}{near(str(name), _choices(problem['ctx']))}"
        else:
            sentences.setdefault(place(path), f"{place(path)} {why(problem)}")  # of a union, the first is enough
    return list(sentences.values())


def why(problem: ErrorDetails) -> str:
    """Return the reason why a value is wrong, to follow its name."""
    kind, context, value = problem["type"], problem.get("ctx", {}), problem["input"]
    if kind in ("literal_error", "enum"):
        return _not_among(context, value)
    if kind in _BOUNDS:
        word, key = _BOUNDS[kind]
        return f"must be {word} {context[key]:.15g}{_shown(value)}"
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(context["pattern"], "does not have the form that it must have")
    if kind == "string_too_short":
        least = context["min_length"]
        return "must not be empty" if least == 1 else f"must have {least} characters at least"
    if kind == "string_too_long":
        return f"must have {context['max_length']} characters at most"
    said, shows = _KINDS.get(kind, ("cannot be what it is", False))
    return said + (_shown(value) if shows else "")


def _not_among(context: Mapping[str, Any], value: object) -> str:
    words = _choices(context)
    return f"must be {listed(words)}{_shown(value)}{near(value, words) if isinstance(value, str) else ''}"


def _choices(context: Mapping[str, Any]) -> list[str]:
    return [word.strip("' ") for word in str(context["expected"]).replace(" or ", ",").split(",")]


def _shown(value: object) -> str:
    return f", not {str(value)[:40]!r}" if isinstance(value, str | int | float) else ""


_BOUNDS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}
_WHOLE, _NUMBER, _TRUTH = "must be a whole number", "must be a number", "must be true or false"
_TEXT, _LIST, _TABLE = "must be a text", "must be a list", "must be a table of names and values"
_KINDS = {
    "missing": ("is missing", False),
    "int_parsing": (_WHOLE, True),
    "int_type": (_WHOLE, True),
    "int_from_float": (_WHOLE, True),
    "int_parsing_size": (_WHOLE, True),
    "float_parsing": (_NUMBER, True),
    "float_type": (_NUMBER, True),
    "finite_number": (_NUMBER, True),
    "bool_parsing": (_TRUTH, True),
    "bool_type": (_TRUTH, True),
    "string_type": (_TEXT, False),
    "string_unicode": (_TEXT, False),
    "path_type": ("must be the name of a file", False),
    "list_type": (_LIST, False),
    "tuple_type": (_LIST, False),
    "dict_type": (_TABLE, False),
    "model_type": (_TABLE, False),
    "model_attributes_type": (_TABLE, False),
}
"""What a value of the wrong kind must be, and whether to show it: numbers and truth values hold no secrets."""
