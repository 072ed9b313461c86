"""What going back to an earlier state of a document takes back, and what has happened for good."""

import pytest
from pycrdt import Doc, Map

from crdt_sessions.model import revert_update
from crdt_sessions.model.layout import ROOT_NAMES

HAPPENED = {"runs", "receipts", "delegated", "edits", "suggestions"}


@pytest.mark.parametrize("root", ROOT_NAMES)
def test_what_happened_is_not_taken_back_and_everything_else_is(root):
    doc = Doc(client_id=7)
    entries = doc.get(root, type=Map)
    entries["x"] = "before"
    earlier = doc.get_update()
    entries["x"] = "since"
    doc.apply_update(revert_update(doc.get_update(), earlier, 8))
    assert entries["x"] == ("since" if root in HAPPENED else "before")
