"""Checks the function that answers an agent's runs: a coroutine function that takes the run and returns nothing."""

from __future__ import annotations

import ast
import collections.abc
import inspect
import textwrap
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

from crdt_sessions.errors import BadHandler

_HOW = "begin it with 'async def', write the answer with 'await run.out.write(...)', and return nothing"
_NO_COROUTINE = f"it is not a coroutine function; {_HOW}"

_UNSAID = inspect.Signature.empty
_AWAITABLE = (collections.abc.Awaitable, collections.abc.Coroutine, types.CoroutineType)
_NOTHING = (type(None), typing.Any, typing.NoReturn, typing.Never)
_LITERALS = (ast.Constant, ast.JoinedStr, ast.List, ast.Tuple, ast.Dict, ast.Set)
_VALUES = (*_LITERALS, ast.BinOp, ast.Compare, ast.ListComp, ast.DictComp, ast.SetComp, ast.GeneratorExp)
"""Expressions that are always a plain value, never an awaitable."""


def check_handler(handler: Callable[..., Any]) -> None:
    """Refuse a function that cannot answer runs, as far as its kind, its annotations and its code tell.

    Raises:
        BadHandler: it is no function, not a coroutine function, a generator, takes no run, or returns a value.
    """
    if not callable(handler):
        raise BadHandler(name=repr(handler), why=f"it is no function; {_HOW}")
    name, layers = _name(handler), _layers(handler)
    function, decorated = layers[0], len(layers) > 1
    if inspect.iscoroutinefunction(function):
        value = None if decorated else _value_of(function)
        if value is not None:
            raise BadHandler(name=name, why=f"it returns {value}, which would be lost; {_HOW}")
    elif any(inspect.isasyncgenfunction(each) or inspect.isgeneratorfunction(each) for each in layers):
        raise BadHandler(name=name, why=f"it yields, and nobody takes what it yields; {_HOW}")
    elif not decorated and _returns_nothing_to_await(function):
        raise BadHandler(name=name, why=_NO_COROUTINE)
    try:
        inspect.signature(handler, follow_wrapped=False).bind("run")
    except ValueError:
        pass  # made in C, it does not say
    except TypeError as error:
        raise BadHandler(name=name, why=f"it is called with the run alone ({error})") from None


async def call_handler(handler: Callable[..., Any], run: object) -> None:
    """Call the handler, and refuse it if it only now shows that it cannot answer runs.

    Raises:
        BadHandler: the handler is not a coroutine function after all, or returned a value.
    """
    answering = handler(run)
    if not inspect.isawaitable(answering):
        raise BadHandler(name=_name(handler), why=f"{_NO_COROUTINE} (it returned {_kind(answering)})")
    value = await answering
    if value is not None:
        raise BadHandler(name=_name(handler), why=f"it returned a value ({_kind(value)}), which is lost; {_HOW}")


def _name(handler: object) -> str:
    return str(getattr(handler, "__qualname__", None) or type(handler).__qualname__)


def _kind(value: object) -> str:
    return type(value).__qualname__


def _layers(handler: Any) -> list[Any]:
    """Return the function that is called, and those that it says it wraps."""
    while hasattr(handler, "func") and not inspect.isroutine(handler):  # functools.partial
        handler = handler.func
    if not inspect.isroutine(handler) and not inspect.isclass(handler):
        handler = type(handler).__call__
    layers = [getattr(handler, "__func__", handler)]
    while (inner := getattr(layers[-1], "__wrapped__", None)) is not None and inner not in layers:
        layers.append(inner)
    return layers


def _value_of(function: Any) -> str | None:
    """Return what a coroutine function returns, if that is something for certain."""
    says = _annotated(function)
    if says is not _UNSAID and says not in _NOTHING:
        return says.__name__ if isinstance(says, type) else str(says)
    values = (each for each in _returned(function) or () if isinstance(each, _VALUES))
    return next((ast.unparse(each) for each in values if ast.unparse(each) != "None"), None)


def _returns_nothing_to_await(function: Any) -> bool:
    """Whether that is certain of a function that is no coroutine function."""
    says = _annotated(function)
    if says is not _UNSAID and says is not typing.Any:
        return (typing.get_origin(says) or says) not in _AWAITABLE
    returned = _returned(function)
    return returned is not None and all(isinstance(each, _VALUES) for each in returned)


def _annotated(function: Any) -> Any:
    """Return what a function says that it returns, if that can be read."""
    try:
        return typing.get_type_hints(function).get("return", _UNSAID)
    except (NameError, TypeError, AttributeError, SyntaxError):
        return _UNSAID


def _returned(function: Any) -> list[ast.expr] | None:
    """Return the expression of each ``return`` of a function; None if its code cannot be read."""
    try:
        (defined,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    if not isinstance(defined, ast.FunctionDef | ast.AsyncFunctionDef):
        return None  # a lambda, in whatever statement
    return [each.value for each in _own(defined.body) if isinstance(each, ast.Return) and each.value is not None]


def _own(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Yield the nodes of a function's body, without those of functions and classes in it."""
    waiting: list[ast.AST] = list(body)
    while waiting:
        node = waiting.pop(0)
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)
