"""Updates that no library writes: text beside any item at all, of which it takes parent and key."""

from crdt_sessions.wire.update_v1 import (
    HAS_KEY,
    HAS_ORIGIN,
    HAS_RIGHT_ORIGIN,
    NO_DELETIONS,
    STRING,
    parse,
    read_head,
)
from crdt_sessions.wire.varint import Reader, buffer, varuint

FORGER = 777
"""A Yjs client that nobody else is."""


def text_beside(origin, text, *, client=FORGER, clock=0, right=None):
    """Return the update that inserts *text* after the struct *origin*, and before *right* if that is one."""
    head, beside = map(varuint, (1, 1, client, clock)), map(varuint, (*origin, *(right or ())))
    info = STRING | HAS_ORIGIN | (HAS_RIGHT_ORIGIN if right is not None else 0)
    return b"".join((*head, bytes((info,)), *beside, buffer(text.encode()), NO_DELETIONS))


def text_as_entry(text, root, key):
    """Return the update that makes *text* an entry of a root map."""
    head, where = map(varuint, (1, 1, FORGER, 0)), (varuint(1), buffer(root.encode()), buffer(key.encode()))
    return b"".join((*head, bytes((STRING | HAS_KEY,)), *where, buffer(text.encode()), NO_DELETIONS))


def entry(document, key):
    """Return the last struct that was written anew as the entry *key* of any map."""
    return [at for at, head in _structs(document.encode()) if head.key == key][-1]


def items(document):
    """Return each struct of the document that can be a neighbour: its first character, and its last."""
    found = parse(document.encode()).inserted
    ends = ((client, {each.clock, each.clock + each.size - 1}) for client, listed in found.items() for each in listed)
    return sorted((client, at) for client, both in ends for at in both)


def _structs(update):
    for client, listed in parse(update).inserted.items():
        for each in listed:
            if not each.skip:
                yield (client, each.clock), read_head(Reader(update[each.start : each.end]))
