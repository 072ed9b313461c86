"""Calls into the CRDT library with foreign bytes: its errors and panics become :class:`UpdateError`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from pycrdt import Doc, merge_updates

from crdt_sessions.errors import MalformedUpdate, PanickedUpdate
from crdt_sessions.wire import EMPTY_UPDATE

Result = TypeVar("Result")


def apply_guarded(doc: Doc[Any], update: bytes) -> None:
    """Apply foreign bytes to *doc*. The only call of ``apply_update`` in the code base.

    Raises:
        MalformedUpdate: the library rejected the bytes.
        PanickedUpdate: the library panicked on them, or gave up in the middle.
    """
    guarded(lambda: doc.apply_update(update), size=len(update))


def merge(updates: Iterable[bytes]) -> bytes:
    """Return one update that says what *updates* say, gaps included.

    Raises:
        MalformedUpdate: one of them cannot be decoded.
    """
    listed = [update for update in updates if update != EMPTY_UPDATE]
    if not listed:
        return EMPTY_UPDATE
    if len(listed) == 1:
        return listed[0]
    return guarded(lambda: merge_updates(*listed), size=sum(map(len, listed)))


def guarded(call: Callable[[], Result], *, size: int) -> Result:
    """Call into the library with foreign bytes of *size*; its errors and panics become :class:`UpdateError`."""
    try:
        return call()
    except ValueError as error:
        raise MalformedUpdate(size=size) from error
    except BaseException as error:
        # It decodes, but contradicts itself or the document: the library gives up or panics in the middle.
        gave_up = isinstance(error, RuntimeError) and str(error).startswith("Cannot apply update")
        if not (gave_up or is_panic(error)):
            raise  # cancellation and interrupts pass
        raise PanickedUpdate(size=size) from error


def is_panic(error: BaseException) -> bool:
    """Tell whether *error* is pyo3's PanicException, a BaseException that cannot be imported."""
    return type(error).__name__ == "PanicException"
