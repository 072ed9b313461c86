"""Stock clients that write in UTF-16 units, and so inside of emoji: nobody is closed, and all see the same."""

import asyncio
from random import Random

import pytest
from pycrdt import Text, XmlFragment

from crdt_sessions import connect
from crdt_sessions.model import SessionDoc, decode_extent, encode_verified
from tests.interop.node import needs_node
from tests.profiles import sample

pytestmark = [pytest.mark.interop, needs_node]


def in_python(server, room):
    """Return what a Python client sees that joins now, after it has seen to it that its document is sound."""

    async def look():
        async with connect(server.url, room, name="Py") as peer:
            document = peer._replica.document
            again = SessionDoc(1)
            again.apply(encode_verified(document))
            doc = again.doc
            return {
                "draft": str(doc.get("draft", type=Text)),
                "rich": [
                    {"insert": piece} | ({"attributes": marks} if marks else {})
                    for piece, marks in doc.get("rich", type=Text).diff()
                ],
                "xml": str(doc.get("xml", type=XmlFragment)),
            }

    return asyncio.run(look())


def seen(dump):
    return {name: dump[name] for name in ("draft", "rich", "xml")}


def extent(dump):
    return decode_extent(bytes.fromhex(dump["snapshot"]))


def agreed(js, server, room, *peers):
    """Return what all see, those that come now as well."""
    first = js.until(
        lambda dump: all(extent(js("dump", peer=peer)) == extent(dump) for peer in peers),
        command="dump",
        peer=peers[0],
    )
    js("open", peer=f"{room} late", url=server.ws, room=room)
    js.synced(f"{room} late")
    for peer in (*peers, f"{room} late"):
        assert seen(js("dump", peer=peer)) == seen(first)
        status = js("status", peer=peer)
        assert max(status["closes"], default=0) < 4000
    assert in_python(server, room) == seen(first)
    for peer in (*peers, f"{room} late"):
        js("destroy", peer=peer)
    return first


HALVES = {
    "typing": (lambda js, peer: js("insert", peer=peer, index=2, text="X"), "a\ufffdX\ufffdb"),
    "deleting the first half": (lambda js, peer: js("remove", peer=peer, index=1, length=1), "a\ufffdb"),
    "deleting the second half": (lambda js, peer: js("remove", peer=peer, index=2, length=1), "a\ufffdb"),
    "deleting from before": (lambda js, peer: js("remove", peer=peer, index=0, length=2), "\ufffdb"),
    "deleting to behind": (lambda js, peer: js("remove", peer=peer, index=2, length=2), "a\ufffd"),
    "formatting": (
        lambda js, peer: js("format", peer=peer, index=2, length=2, attributes={"bold": True}),
        "a\ufffd\ufffdb",
    ),
}


@pytest.mark.parametrize("way", HALVES)
@pytest.mark.parametrize("whose", ["its own", "somebody else's"])
def test_who_writes_inside_an_emoji_stays_and_all_see_what_yjs_makes_of_it(server, js, way, whose):
    room = f"{way} {whose}".replace(" ", "-").replace("'", "")
    ann, ben = f"{room} ann", f"{room} ben"
    for peer in (ann, ben):
        js("open", peer=peer, url=server.ws, room=room)
    js.synced(ann, ben)
    js("insert", peer=ann, index=0, text="a😀b")
    js.until(lambda dump: dump["draft"] == "a😀b", command="dump", peer=ben)
    act, expected = HALVES[way]
    act(js, ann if whose == "its own" else ben)
    for peer in (ann, ben):
        js.until(lambda dump: dump["draft"] == expected, command="dump", peer=peer)
    js("insert", peer=ben, index=0, text="on ")
    js.until(lambda dump: dump["draft"] == f"on {expected}", command="dump", peer=ann)
    agreed(js, server, room, ann, ben)


def test_what_was_typed_offline_inside_an_emoji_that_another_one_took_apart_as_well_is_kept(server, js):
    for peer in ("off", "on"):
        js("open", peer=peer, url=server.ws, room="offline")
    js.synced("off", "on")
    js("insert", peer="off", index=0, text="😀😀")
    js.until(lambda dump: dump["draft"] == "😀😀", command="dump", peer="on")
    js("disconnect", peer="off")
    js("insert", peer="off", index=1, text="X")
    js("insert", peer="off", index=4, text="Y")
    js("remove", peer="on", index=3, length=1)
    js("insert", peer="on", index=1, text="Z")
    js.until(lambda dump: dump["draft"] == "\ufffdZ\ufffd\ufffd", command="dump", peer="on")
    js("connect", peer="off")
    js.until(lambda dump: {"X", "Y", "Z"} <= set(dump["draft"]), command="dump", peer="on")
    assert "😀" not in agreed(js, server, "offline", "off", "on")["draft"]


@pytest.mark.parametrize("seed", range(sample("scribbles")))
def test_whatever_clients_write_format_and_delete_by_utf16_offsets_all_see_the_same(server, js, seed):
    random, room = Random(seed), f"scribble-{seed}"
    names = [f"{room} {n}" for n in range(3)]
    for n, name in enumerate(names):
        js("open", peer=name, url=server.ws, room=room, version=1 + n)
    js.synced(*names)
    js("writeXml", peer=names[0], text="x😀y")
    js("insert", peer=names[1], root="rich", index=0, text="😀😀 and 👩‍👩‍👧")
    for name in names:
        js.until(lambda dump: dump["xml"] and dump["rich"], command="dump", peer=name)
    away = None
    for _ in range(12):
        if away is None and random.random() < 0.3:
            away = random.choice(names)
            js("disconnect", peer=away)
        elif away is not None and random.random() < 0.5:
            away = js("connect", peer=away)
        js("scribble", peer=random.choice(names), seed=random.randrange(2**31), count=random.randrange(1, 12))
    for name in names:
        js("connect", peer=name)
    js.synced(*names)
    agreed(js, server, room, *names)
