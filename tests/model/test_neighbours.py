"""Many neighbours of one update, as who was offline for long brings them: looking at them stays cheap."""

import random

import pytest
from pycrdt import Doc, Text, merge_updates

from crdt_sessions.errors import UpdateError
from crdt_sessions.model import SessionDoc, check_neighbours, neighbours
from crdt_sessions.wire.varint import decode_state_vector
from tests.sync.forged import text_beside

AUTHOR, OFFLINE = 50, 60


def jumping_about(pieces):
    """A document that one client wrote here and there, so that what stands side by side was seldom written in a row."""
    document, rng = Doc(client_id=AUTHOR), random.Random(1)
    draft = document.get("draft", type=Text)
    draft += "abcdefgh"  # clocks 0 to 7, in a row
    for _ in range(pieces):
        draft.insert(rng.randrange(8, len(draft) + 1), "xy")
    return document.get_update()


def written_offline(whole, insertions):
    document, rng = Doc(client_id=OFFLINE), random.Random(2)
    document.apply_update(whole)
    before, draft = document.get_state(), document.get("draft", type=Text)
    for _ in range(insertions):
        draft.insert(rng.randrange(8, len(draft) + 1), "z")
    return document.get_update(before)


class Looked:
    """A document that has taken an update, and counts how often it is encoded meanwhile."""

    def __init__(self, whole, update, monkeypatch):
        self.document, self.encoded = SessionDoc(9), 0
        for each in (whole, update):
            self.document.apply(each)
        encode = SessionDoc.encode

        def counted(document, *state_vector):
            self.encoded += 1
            return encode(document, *state_vector)

        monkeypatch.setattr(SessionDoc, "encode", counted)
        check_neighbours(update, self.document, decode_state_vector(self.document.state_vector()))


@pytest.mark.parametrize("most_read", [1024 * 1024, 1000], ids=["a document that is read", "a large one"])
def test_a_document_is_not_encoded_for_each_of_many_neighbours(monkeypatch, most_read):
    """A tail of the document was encoded for each: 3,000 insertions in a document of 10,000 pieces took a second, and
    more would have been refused as harmful."""
    monkeypatch.setattr(neighbours, "_MOST_READ", most_read)
    whole = jumping_about(400)
    looked = Looked(whole, written_offline(whole, 300), monkeypatch)
    assert looked.encoded <= 1 + 2 * neighbours._FEW


def test_one_forged_pair_among_many_is_found(monkeypatch):
    whole = jumping_about(100)
    honest, forged = written_offline(whole, 60), text_beside((AUTHOR, 1), "X", client=70, right=(AUTHOR, 5))
    with pytest.raises(UpdateError):
        Looked(whole, merge_updates(honest, forged), monkeypatch)
    Looked(whole, merge_updates(honest, text_beside((AUTHOR, 1), "X", client=70, right=(AUTHOR, 2))), monkeypatch)
