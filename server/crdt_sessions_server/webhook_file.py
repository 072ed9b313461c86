"""The file that names the webhooks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from crdt_sessions.ids import TENANT_PATTERN
from crdt_sessions.runtime import Webhook
from crdt_sessions_server.explain import explain, read_json


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=100)
    url: str = Field(pattern=r"^https?://")
    secret: str
    events: tuple[str, ...] = ()
    content: bool = False
    tenant: str = Field("", pattern=rf"^$|{TENANT_PATTERN}")


_ENTRIES = TypeAdapter(list[_Entry])


def read_webhooks(path: Path) -> list[Webhook]:
    """Read a file of webhooks.

    Raises:
        ValueError: it cannot be read or is not of that form; the message says what to do and shows no secret.
    """
    what = f"webhooks file {path}"

    def place(where: Sequence[int | str]) -> str:
        return ": ".join((what, *(f"entry {each + 1}" if isinstance(each, int) else each for each in where[:2])))

    try:
        entries = _ENTRIES.validate_python(read_json(path, "webhooks file"))
    except ValidationError as error:
        raise ValueError("\n".join(explain(error, place, _Entry.model_fields))) from None
    try:
        return [
            Webhook(entry.name, entry.url, entry.secret, entry.events, entry.tenant, entry.content)
            for entry in entries
        ]
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None
