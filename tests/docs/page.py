"""What the pages tell a reader to do: their blocks, and how each of them is to be run.

The words behind a fence's language say it; they are not shown to readers.

``file=NAME``            the reader saves it under that name
``sh`` alone             the reader types it, and it ends well
``terminal=NAME``        the reader types it in another terminal, where it goes on
``output``               what the block before it prints; ``…`` stands for anything in a line, or any lines
``output=NAME``          what the terminal of that name shows after what it showed before
``text`` alone           a picture made of letters, which nobody runs
``tested=PATH``          a test of its own runs it, and names this page
``not-run="WHY"``        nobody can run it here

What prose tells the reader to do stands below it in a comment, ``<!-- reader: … -->``: a command as it would be in a
block (``<!-- reader terminal=service: crdt-sessions serve -->``), or something that is done by hand:

``kill TERMINAL``        with SIGKILL
``interrupt TERMINAL``   with Ctrl-C
``read TERMINAL LINE``   wait until it is there
``copy FILE from PAGE``  take a file that another page has
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from tests.processes import ROOT

_FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```[ ]*$", re.M | re.S)
_COMMENT = re.compile(r"<!-- reader(?P<info>[^:\n]*):\s(?P<text>.*?)-->", re.S)
_OPTIONS = {"file", "terminal", "output", "tested", "not-run"}
_COVERED_ALONE = {"sh", "text"}


@dataclass(frozen=True)
class Block:
    """A fenced block, or what a comment stands for."""

    page: Path
    line: int
    language: str
    text: str
    options: dict[str, str] = field(default_factory=dict)
    hidden: bool = False

    @property
    def place(self) -> str:
        """Where it stands, for messages."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def problem(self) -> str | None:
        """What is wrong with what it says of how it is run; None if a rule covers it."""
        if unknown := set(self.options) - _OPTIONS:
            return f"{self.place}: nobody knows what {', '.join(sorted(unknown))} means"
        if "tested" in self.options:
            test = ROOT / self.options["tested"]
            if not test.is_file() or self.page.name not in test.read_text("utf-8"):
                return f"{self.place}: {self.options['tested']} is no test of {self.page.name}"
        elif "not-run" in self.options:
            if len(self.options["not-run"]) < 10:
                return f"{self.place}: not run, but why?"
        elif self.language not in _COVERED_ALONE and not self.options:
            return f"{self.place}: no rule says how this block is run; see tests/docs/page.py"
        return None


def blocks(page: Path, text: str | None = None) -> list[Block]:
    """Return the blocks of a page, or of a *text* that is to become one, in their order."""
    text = page.read_text("utf-8") if text is None else text
    found = []
    for match in _FENCE.finditer(text):
        language, options = _options(match["info"])
        body = "".join(line.removeprefix(match["indent"]) for line in match["text"].splitlines(keepends=True))
        found.append((match.start(), Block(page, _line(text, match.start()), language, body, options)))
    fenced = [(match.start(), match.end()) for match in _FENCE.finditer(text)]
    for match in _COMMENT.finditer(text):
        if not any(begin < match.start() < end for begin, end in fenced):
            _, options = _options("sh" + match["info"])
            block = Block(page, _line(text, match.start()), "sh", match["text"].strip() + "\n", options, hidden=True)
            found.append((match.start(), block))
    return [block for _, block in sorted(found, key=lambda each: each[0])]


def _options(info: str) -> tuple[str, dict[str, str]]:
    language, *words = shlex.split(info) or [""]
    return language, {name: value for name, _, value in (word.partition("=") for word in words)}


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def pattern(expected: str) -> str:
    """Return the regular expression of what is expected to be printed, in which ``…`` stands for anything."""
    lines = []
    for line in expected.rstrip("\n").split("\n"):
        if line.strip() == "…":
            lines.append(r"(?:.*\n)*?")
        else:
            lines.append(re.escape(line).replace("…", ".*") + r" *\n")
    return "".join(lines)
