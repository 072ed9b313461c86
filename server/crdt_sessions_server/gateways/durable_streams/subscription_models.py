"""What is said of subscriptions, with the names that the protocol gives; what it does not know is left unread."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Path = Annotated[str, Field(min_length=1, max_length=500)]


class _Told(BaseModel):
    model_config = ConfigDict(extra="ignore")


class AskedWebhook(_Told):
    """Where workers are woken."""

    url: Annotated[str, Field(min_length=1, max_length=2000)]


class Asked(_Told):
    """What a subscription is to be."""

    type: Literal["webhook", "pull-wake"] = Field(description="How workers are woken.")
    pattern: Path | None = Field(None, description="Paths that are followed: `*` is one segment, `**` any number.")
    streams: Annotated[list[Path], Field(max_length=1000)] = Field([], description="Further paths.")
    webhook: AskedWebhook | None = Field(None, description="Where to post; needed for `webhook`.")
    wake_stream: Path | None = Field(None, description="A JSON stream that workers read; needed for `pull-wake`.")
    lease_ttl_ms: int = Field(30_000, ge=1000, le=600_000, strict=True, description="How long a worker has its turn.")
    description: Annotated[str, Field(max_length=1000)] | None = None


class AskedStreams(_Told):
    """Streams that are to be followed, too."""

    streams: Annotated[list[Path], Field(min_length=1, max_length=1000)]


class AskedClaim(_Told):
    """A worker that asks for its turn."""

    worker: Annotated[str, Field(min_length=1, max_length=200)]


class AskedRelease(_Told):
    """Whose turn is over."""

    wake_id: str
    generation: int = Field(strict=True)


class Ack(_Told):
    """Up to where a worker has come."""

    stream: Path
    offset: Annotated[str, Field(min_length=1, max_length=256)]


class AskedAck(AskedRelease):
    """How far a worker has come."""

    acks: Annotated[list[Ack], Field(max_length=1000)] = []
    done: bool = Field(False, strict=True, description="Whether its turn is over; else it goes on as long again.")


class ToldLink(_Told):
    """A stream that is followed."""

    path: str
    link_type: Literal["explicit", "glob"]
    acked_offset: str


class ToldStream(ToldLink):
    """A stream, for a worker."""

    tail_offset: str
    has_pending: bool


class ToldSubscription(_Told):
    """A subscription as it is."""

    id: str
    subscription_id: str
    type: Literal["webhook", "pull-wake"]
    pattern: str | None
    streams: list[ToldLink]
    webhook: dict[str, object] | None
    wake_stream: str | None
    lease_ttl_ms: int
    created_at: str
    status: Literal["active", "failed"]
    description: str | None


class ToldClaim(_Told):
    """What a worker is told whose turn it is."""

    wake_id: str
    generation: int
    token: str
    streams: list[ToldStream]
    lease_ttl_ms: int


class ToldAck(_Told):
    """What became of it."""

    ok: Literal[True] = True
    next_wake: bool = Field(description="Whether a worker is woken again: something is new since.")
