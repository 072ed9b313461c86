"""What is remembered of a few things only: a dictionary that forgets the oldest."""

from __future__ import annotations

from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Recent(dict[Key, Value]):
    """A dictionary with a bound.

    Args:
        most: how many entries it has at the most.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def remember(self, key: Key, value: Value) -> Value:
        """Make *key* the newest entry, and forget the oldest if there are too many; return *value*."""
        self.pop(key, None)
        self[key] = value
        if len(self) > self._most:
            del self[next(iter(self))]
        return value
