"""Patterns of paths, as subscriptions have them: ``*`` is one segment, ``**`` any number of them, none included."""

from __future__ import annotations


def matches(pattern: str, path: str) -> bool:
    """Whether *path* is one that *pattern* means."""
    wanted, segments = pattern.split("/"), path.split("/")
    ends = {0}  # after how many segments what was looked at of the pattern may end
    for each in wanted:
        if each == "**":
            ends = set(range(min(ends), len(segments) + 1)) if ends else ends
        else:
            ends = {end + 1 for end in ends if end < len(segments) and each in ("*", segments[end])}
    return len(segments) in ends
