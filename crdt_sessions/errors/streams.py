"""Errors of durable streams."""

from __future__ import annotations

from crdt_sessions.errors.base import CrdtSessionsError


class StreamError(CrdtSessionsError):
    """A durable stream that does not do what was asked of it."""


class StreamNotFound(StreamError):
    """There is no such stream, or its time has come."""

    def __init__(self, *, path: str) -> None:
        super().__init__(f"there is no stream {path!r}")
        self.path = path


class StreamGone(StreamError):
    """The stream was deleted, or its time came; what it held is kept for its forks only."""

    def __init__(self, *, path: str) -> None:
        super().__init__(f"the stream {path!r} was deleted, and only its forks are left")
        self.path = path


class StreamExists(StreamError):
    """There is a stream at that path, and it was made otherwise."""

    def __init__(self, *, path: str, differs: str) -> None:
        super().__init__(f"the stream {path!r} exists already, with another {differs}")
        self.path = path
        self.differs = differs


class StreamEnded(StreamError):
    """The stream is closed. It can be read, and takes nothing more."""

    def __init__(self, *, path: str, offset: str) -> None:
        super().__init__(f"the stream {path!r} is closed")
        self.path = path
        self.offset = offset


class StreamConflict(StreamError):
    """What was sent does not fit the stream as it is."""

    def __init__(self, *, path: str, why: str) -> None:
        super().__init__(f"the stream {path!r} {why}")
        self.path = path


class StaleProducer(StreamError):
    """A producer of that id has written with a later epoch: whoever asks has been replaced."""

    def __init__(self, *, producer: str, epoch: int) -> None:
        super().__init__(f"the producer {producer!r} has gone on to epoch {epoch}")
        self.producer = producer
        self.epoch = epoch


class ProducerGap(StreamError):
    """A batch of this producer came before an earlier one."""

    def __init__(self, *, producer: str, expected: int, received: int) -> None:
        super().__init__(f"the producer {producer!r} sent batch {received}, but batch {expected} is the next one")
        self.producer = producer
        self.expected = expected
        self.received = received


class OffsetExpired(StreamError):
    """What was read of a stream up to there was taken back since, so nothing follows it."""

    def __init__(self, *, path: str) -> None:
        super().__init__(f"what was read of the stream {path!r} was taken back since")
        self.path = path


class StreamReadOnly(StreamError):
    """The stream shows something of a session that is not written this way."""

    def __init__(self, *, path: str) -> None:
        super().__init__(f"the stream {path!r} shows what is in a session, and can only be read")
        self.path = path


class BadStreamRequest(StreamError):
    """A request that does not follow the protocol of durable streams."""

    def __init__(self, *, why: str) -> None:
        super().__init__(why)
