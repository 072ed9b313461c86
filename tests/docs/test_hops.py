"""The journeys that docs/design/data-flow.md tells hop by hop go through functions that are there."""

import ast
import re

from tests.processes import ROOT

PAGE = ROOT / "docs/design/data-flow.md"


def names(path):
    """Yield the functions and methods of a module, as the page writes them."""

    def below(node, prefix=""):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                yield from below(child, f"{child.name}.")
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{prefix}{child.name}"
                yield from below(child)

    return below(ast.parse(path.read_text("utf-8")))


def test_every_hop_is_there():
    hops = re.findall(r"`([\w/]+\.py)` `([\w.]+)`", PAGE.read_text("utf-8"))
    assert len(hops) > 30
    assert [f"{path} {name}" for path, name in hops if name not in names(ROOT / path)] == []
