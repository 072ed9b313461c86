"""Many neighbours of one update, as who was offline for long brings them: looking at them stays cheap."""

import random

import pytest
from pycrdt import Doc, Text

from crdt_sessions.model import SessionDoc, neighbours
from crdt_sessions.wire.varint import decode_state_vector

AUTHOR, OFFLINE = 50, 60


def jumping_about(pieces):
    """A document that one client wrote here and there."""
    document, rng = Doc(client_id=AUTHOR), random.Random(1)
    draft = document.get("draft", type=Text)
    for _ in range(pieces):
        draft.insert(rng.randrange(len(draft) + 1) if len(draft) else 0, "xy")
    return document


def written_offline(whole, insertions):
    document, rng = Doc(client_id=OFFLINE), random.Random(2)
    document.apply_update(whole)
    before, draft = document.get_state(), document.get("draft", type=Text)
    for _ in range(insertions):
        draft.insert(rng.randrange(len(draft) + 1), "z")
    return document.get_update(before)


@pytest.mark.parametrize("deleted", [False, True])
@pytest.mark.parametrize("most_read", [1024 * 1024, 1000], ids=["a document that is read", "a large one"])
def test_a_document_is_not_encoded_for_each_of_many_neighbours(monkeypatch, most_read, deleted):
    """The patience is a second of computing: more than that would be refused as harmful."""
    monkeypatch.setattr(neighbours, "_MOST_READ", most_read)
    author = jumping_about(400)
    update = written_offline(author.get_update(), 300)
    if deleted:
        del author.get("draft", type=Text)[:]
    document, encode, encoded = SessionDoc(9), SessionDoc.encode, []
    for each in (author.get_update(), update):
        document.apply(each)
    monkeypatch.setattr(SessionDoc, "encode", lambda *args: encoded.append(1) or encode(*args))
    neighbours.check_neighbours(
        update, neighbours.check_entries(update), document, decode_state_vector(document.state_vector())
    )
    assert len(encoded) <= 1 + neighbours._FEW
