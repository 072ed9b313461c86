"""docs/design/interop.md names tests that are there, and has no empty cell."""

import ast
import re

from tests.processes import ROOT

PAGE = (ROOT / "docs/design/interop.md").read_text()


def test_every_cell_says_something_and_every_test_is_there():
    rows = [line.strip("|").split("|") for line in PAGE.splitlines() if line.startswith("|")][2:]
    assert len(rows) == 10
    assert all(len(row) == 4 and all(cell.strip() for cell in row) for row in rows)
    named = re.findall(r"`(tests/[\w/.]+)::(\w+)`", PAGE)
    assert len(named) > 15
    for path, name in named:
        tree = ast.parse((ROOT / path).read_text())
        assert any(getattr(node, "name", "") == name for node in tree.body), f"{path} has no {name}"
