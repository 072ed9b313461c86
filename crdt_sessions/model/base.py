"""The base of the JSON values of a session document."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from crdt_sessions.model.checks import MAX_INTEGER, check_json

Integer = Annotated[int, Field(ge=-MAX_INTEGER, le=MAX_INTEGER)]
"""An integer that JavaScript can hold."""


class Value(BaseModel):
    """The base of all values: camelCase outside, snake_case inside, unknown keys kept."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="allow")

    def json_value(self) -> dict[str, Any]:
        """Return the value as written to the document: in camelCase, without absent optional keys.

        Raises:
            BadValue: it holds something that the document cannot.
        """
        value: dict[str, Any] = check_json(self.to_json())
        return value

    def to_json(self) -> dict[str, Any]:
        """Return the value for readers: as :meth:`json_value`, but what it holds is not judged.

        Of a value that was read from a document that is JSON, however odd it was there
        (:func:`crdt_sessions.model.spelling.spelled`).
        """
        return self.model_dump(by_alias=True, exclude_none=True)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with *changes*."""
        return self.model_copy(update=changes)
