"""Documents as plain files: each holds one update (encoding v1), such as ``Y.encodeStateAsUpdate`` makes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from crdt_sessions_server.migration.source import unreadable

SUFFIXES = frozenset({".bin", ".update", ".yjs", ".y", ".ydoc"})
"""How names of files end that are taken out of a folder."""


class PlainFiles:
    """A file, or a folder with files. A document has the path of its file in the folder, without the ending, as name.

    Args:
        path: the file or folder.
    """

    kind = "plain updates"

    def __init__(self, path: Path) -> None:
        if path.is_file():
            self._files = {path.stem: path}
        else:
            found = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file())
            self._files = {file.relative_to(path).with_suffix("").as_posix(): file for file in found}
        if not self._files:
            raise unreadable(path, f"no file in it ends with {', '.join(sorted(SUFFIXES))}, and it is nothing else")

    def names(self) -> Sequence[str]:
        """See :meth:`Source.names`."""
        return list(self._files)

    def updates(self, name: str) -> list[bytes]:
        """See :meth:`Source.updates`."""
        try:
            return [self._files[name].read_bytes()]
        except OSError as error:
            raise unreadable(self._files[name], error.strerror or str(error)) from error

    def close(self) -> None:
        """See :meth:`Source.close`."""
