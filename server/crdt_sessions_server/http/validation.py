"""Decorators that hold bodies, queries and answers of a route against its models, and tell of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from pydantic import BaseModel
from quart import Response, request
from werkzeug.exceptions import BadRequest

from crdt_sessions_server.http.describing import describing

Function = Callable[..., Awaitable[Any]]


class Misfit(BadRequest):
    """What came in does not fit its model.

    Args:
        error: why.
        value: what came in.
        whole: what it is called as a whole.
    """

    def __init__(self, error: Exception, value: Any, whole: str) -> None:
        super().__init__()
        self.error, self.value, self.whole = error, value, whole


def validate_request(model: type[BaseModel]) -> Callable[[Function], Function]:
    """Give the function the body as ``data``, or have :class:`Misfit` raised."""
    return validate_later(lambda: model)


def validate_later(model: Callable[[], type[BaseModel]]) -> Callable[[Function], Function]:
    """Do what :func:`validate_request` does, with a model that is imported when the first request comes.

    Args:
        model: imports it.
    """

    def decorator(function: Function) -> Function:
        describing(function).request = model

        @wraps(function)
        async def wrapper(*args: Any, **given: Any) -> Any:
            body = await request.get_json()
            try:
                data = model().model_validate(body)
            except (TypeError, ValueError) as error:
                raise Misfit(error, body, "the body") from error
            return await function(*args, data=data, **given)

        return wrapper

    return decorator


def validate_querystring(model: type[BaseModel]) -> Callable[[Function], Function]:
    """Give the function the query as ``query_args``, or have :class:`Misfit` raised.

    What stands in the query more than once is a list.
    """

    def decorator(function: Function) -> Function:
        describing(function).query = model

        @wraps(function)
        async def wrapper(*args: Any, **given: Any) -> Any:
            query = {key: values if len(values) > 1 else values[0] for key, values in request.args.lists()}
            try:
                query_args = model.model_validate(query)
            except (TypeError, ValueError) as error:
                raise Misfit(error, request.args.to_dict(), "the query") from error
            return await function(*args, query_args=query_args, **given)

        return wrapper

    return decorator


def validate_response(model: type[BaseModel], status: int = 200) -> Callable[[Function], Function]:
    """Have what the function returns for *status* be a *model*; what is none is made one, or the request fails."""

    def decorator(function: Function) -> Function:
        describing(function).models[status] = model

        @wraps(function)
        async def wrapper(*args: Any, **given: Any) -> Any:
            answer = await function(*args, **given)
            value, found, *headers = answer if isinstance(answer, tuple) else (answer, 200)
            if found != status or isinstance(value, Response | model):
                return answer
            return model.model_validate(value), found, *headers

        return wrapper

    return decorator
