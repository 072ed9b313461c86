"""What comes in and goes out: how bodies are read, and the bases of their models."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, TypeAdapter, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import to_jsonable_python
from quart import Quart, Request
from quart.json.provider import DefaultJSONProvider

from crdt_sessions.errors import TooLarge
from crdt_sessions.model.checks import parse_json
from crdt_sessions_server.http.compression import inflated
from crdt_sessions_server.http.problem_documents import Refusal
from crdt_sessions_server.http.problems import MALFORMED_JSON, UNSUPPORTED_MEDIA_TYPE

OCTETS, JSON, NDJSON = "application/octet-stream", "application/json", "application/x-ndjson"


class StrictRequest(Request):
    """A request whose body is what its headers say, or is refused in words of ours."""

    async def get_data(self, cache: bool = True, as_text: bool = False, parse_form_data: bool = False) -> Any:
        """Return the body as it was before it was compressed.

        Raises:
            Refusal: it cannot be read.
            TooLarge: it is larger than a body may be.
        """
        body = await super().get_data(cache, False, False)
        limit = self.max_content_length or len(body)
        if len(body) > limit:
            raise TooLarge(what="the body", size=len(body), limit=limit)
        whole = inflated(body, self.headers.get("Content-Encoding", ""), limit)
        return whole.decode() if as_text else whole

    async def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        """Return the body, as JSON; an empty one is an empty object, so that a route may need none.

        Raises:
            Refusal: it is none.
        """
        if not (await self.get_data()).strip():
            return {}
        if not self.is_json:
            check_content_type(self.mimetype, JSON)
        return await super().get_json(force=True, silent=silent, cache=cache)

    def on_json_loading_failed(self, error: Exception) -> NoReturn:
        """Say where it is none."""
        where = f" at line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise Refusal(MALFORMED_JSON, f"the body cannot be read as JSON{where}")


def check_content_type(sent: str, *taken: str) -> None:
    """Check the type of a body; one without a type is what it is taken for.

    Raises:
        Refusal: it is none of those that are taken.
    """
    if sent and sent not in taken:
        detail = f"the body came as {sent}, and this takes {' or '.join(taken)}"
        raise Refusal(UNSUPPORTED_MEDIA_TYPE, detail, accepted=list(taken))


class StrictJson(DefaultJSONProvider):
    """JSON as RFC 8259 knows it, see :func:`parse_json`, and with values that only pydantic can spell."""

    @staticmethod
    def default(value: Any) -> Any:
        """Return what can be spelled for a *value* that cannot.

        Raises:
            TypeError: nothing can.
        """
        try:
            return DefaultJSONProvider.default(value)
        except TypeError:
            return to_jsonable_python(value)

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        """Return what the text *s* says.

        Raises:
            ValueError: it is no JSON.
        """
        return parse_json(s)


class Api(Quart):
    """An application that reads JSON strictly, and whose routes may return models."""

    request_class = StrictRequest
    json_provider_class = StrictJson

    async def make_response(self, result: Any) -> Any:
        """Return the response that a route's *result* stands for: a value, or one with a status and headers."""
        value, *rest = result if isinstance(result, tuple) else (result,)
        if isinstance(value, BaseModel | list | dict):
            value = _ANYTHING.dump_python(value, by_alias=True, exclude_none=True)
            result = (value, *rest) if rest else value
        return await super().make_response(result)


_ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)


class Body(BaseModel):
    """The base of what comes in: camelCase, and unknown fields are refused."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", defer_build=True)


class Query(Body):
    """The base of query parameters. Every route takes ``token`` besides, for clients that cannot set headers."""

    @model_validator(mode="before")
    @classmethod
    def _without_token(cls, values: Any) -> Any:
        return {key: value for key, value in values.items() if key != "token"} if isinstance(values, dict) else values


class Answer(BaseModel):
    """The base of what goes out: camelCase."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, defer_build=True)
