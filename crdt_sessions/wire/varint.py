"""lib0's primitives: variable-length unsigned integers, buffers, strings; read strictly.

The encoding is that of lib0 (``encoding.js``, ``decoding.js``): base 128, low seven bits first, the high
bit set on every byte but the last. JavaScript holds integers up to 2**53 - 1, so nothing longer is read
or written.
"""

from __future__ import annotations

from crdt_sessions.errors import BadText, TooLarge, TruncatedFrame, VarintTooLong

MAX_VARUINT = 2**53 - 1
_MAX_VARUINT_BYTES = 8
ONE_BYTE = 0x80
"""Numbers below it are encoded in one byte."""
MAX_CLIENTS = 100_000
"""Entries that the state vectors which somebody sends at once may have: each is read in the event loop."""


class Reader:
    """A cursor over immutable bytes. Every method returns exactly what was asked for or raises."""

    __slots__ = ("_data", "_end", "_position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0
        self._end = len(data)

    @property
    def remaining(self) -> int:
        """Number of bytes not read yet."""
        return self._end - self._position

    def varuint(self) -> int:
        """Read an unsigned integer of at most 2**53 - 1.

        Raises:
            TruncatedFrame: the bytes end inside the integer.
            VarintTooLong: it is longer than 8 bytes or exceeds 2**53 - 1.
        """
        at, data = self._position, self._data
        if at < self._end and (byte := data[at]) < 0x80:  # most are short
            self._position = at + 1
            return byte
        if at + 1 < self._end and (high := data[at + 1]) < 0x80:
            self._position = at + 2
            return byte & 0x7F | high << 7
        value = 0
        for index in range(_MAX_VARUINT_BYTES):
            if self._position >= self._end:
                raise TruncatedFrame(wanted=1, available=0)
            byte = self._data[self._position]
            self._position += 1
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                if value > MAX_VARUINT:
                    raise VarintTooLong
                return value
        raise VarintTooLong

    def take(self, count: int) -> bytes:
        """Return exactly *count* bytes.

        Raises:
            TruncatedFrame: fewer are left.
        """
        if count > self.remaining:
            raise TruncatedFrame(wanted=count, available=self.remaining)
        start = self._position
        self._position += count
        return self._data[start : self._position]

    def buffer(self) -> bytes:
        """Read a length and that many bytes."""
        return self.take(self.varuint())

    def string(self) -> str:
        """Read a length in bytes and that much UTF-8.

        Raises:
            BadText: the bytes are not UTF-8.
        """
        try:
            return self.buffer().decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadText(what=f"not UTF-8: {error.reason}") from error


def decode_state_vector(data: bytes) -> dict[int, int]:
    """Return the clocks in an encoded state vector, by client id.

    Raises:
        WireError: it is not one, or more bytes follow.
    """
    reader = Reader(data)
    clocks = {reader.varuint(): reader.varuint() for _ in range(reader.varuint())}
    if reader.remaining:
        raise BadText(what=f"{reader.remaining} bytes after a state vector")
    return clocks


def check_clients(*state_vectors: bytes) -> None:
    """Return if state vectors that somebody sent at once have no more entries than :data:`MAX_CLIENTS` in all.

    Only how many they say they have is read.

    Raises:
        WireError: one of them says nothing.
        TooLarge: they have more.
    """
    count = sum([Reader(each).varuint() for each in state_vectors])
    if count > MAX_CLIENTS:
        raise TooLarge(what="the state vector", size=count, limit=MAX_CLIENTS, unit="clients")


def encode_state_vector(clocks: dict[int, int]) -> bytes:
    """Encode clocks by client id."""
    pairs = (varuint(client) + varuint(clock) for client, clock in clocks.items())
    return varuint(len(clocks)) + b"".join(pairs)


def varuint(value: int) -> bytes:
    """Encode an unsigned integer of at most 2**53 - 1.

    Raises:
        ValueError: *value* is negative or larger.
    """
    if 0 <= value < 0x80:  # most are short
        return bytes((value,))
    if 0x80 <= value < 0x200000:
        low, middle, high = value & 0x7F | 0x80, value >> 7 & 0x7F, value >> 14
        return bytes((low, middle | 0x80, high)) if high else bytes((low, middle))
    if not 0 <= value <= MAX_VARUINT:
        raise ValueError(f"{value} is not in 0 .. 2**53 - 1")
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def buffer(data: bytes) -> bytes:
    """Encode *data*, after its length."""
    return varuint(len(data)) + data


def string(text: str) -> bytes:
    """Encode *text* as UTF-8, after its length in bytes."""
    return buffer(text.encode("utf-8"))
