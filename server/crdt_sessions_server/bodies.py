"""The bases of request and response bodies."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

OCTETS = "application/octet-stream"


class Body(BaseModel):
    """The base of what comes in: camelCase, and unknown fields are refused."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class Answer(BaseModel):
    """The base of what goes out: camelCase."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)
