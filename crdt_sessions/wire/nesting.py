"""How deeply values are nested: whatever reads them again may not be able to go as deep as what read them first."""

from __future__ import annotations

from typing import Any

Kinds = type[Any] | tuple[type[Any], ...]


def nests_deeper(value: Any, levels: int, objects: Kinds = dict, lists: Kinds = list) -> bool:
    """Tell whether a value has more than so many levels.

    Args:
        value: JSON, or something like it.
        levels: how many it may have.
        objects: what has values by name.
        lists: what has them one after the other.
    """
    if isinstance(value, objects):
        return levels == 0 or any(nests_deeper(each, levels - 1, objects, lists) for each in value.values())
    if isinstance(value, lists):
        return levels == 0 or any(nests_deeper(each, levels - 1, objects, lists) for each in value)
    return False
