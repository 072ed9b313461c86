"""Relative positions: a place that Yjs names is the same place for the service, and the other way round."""

from random import Random

import pytest

from tests.interop.node import needs_node
from tests.profiles import sample

pytestmark = [pytest.mark.interop, needs_node]


def units(text):
    """Return how many UTF-16 units stand before each character, and in all of the text."""
    ends = [0]
    for char in text:
        ends.append(ends[-1] + 1 + (ord(char) > 0xFFFF))
    return ends


@pytest.mark.parametrize("seed", range(sample("places")))
def test_yjs_and_the_service_name_the_same_places(server, js, seed):
    random, room, peer = Random(seed), f"positions-{seed}", f"p{seed}"
    with server.http() as http:
        http.post("/v1/sessions", json={"id": room})
        plan = f"/v1/sessions/{room}/artifacts/plan"
        http.post(plan.removesuffix("/plan"), json={"id": "plan", "content": "# Grüße 😀 aus Köln\n"})
        js("open", peer=peer, url=server.ws, room=room)
        text = js.until(bool, command="text", peer=peer, artifact="plan")
        for _ in range(6):  # both write, so that neighbours are of different clients, and some are deleted
            at = random.choice(units(text))
            js("write", peer=peer, artifact="plan", index=at, text=random.choice(["é", "😀", "ab", "👍🏽\n"]))
            text = js("text", peer=peer, artifact="plan")
            js.until(
                lambda _, text=text: http.get(plan).json()["content"] == text,
                command="text",
                peer=peer,
                artifact="plan",
            )
            at = random.randrange(len(text))
            http.post(f"{plan}/splice", json={"index": at, "delete": 1, "insert": random.choice(["ü", "xy", ""])})
            text = http.get(plan).json()["content"]
            js.until(lambda now, text=text: now == text, command="text", peer=peer, artifact="plan")
        places = []
        for index, unit in enumerate(units(text)):
            for assoc in (0, -1):
                ours = http.get(f"{plan}/position", params={"index": index, "assoc": assoc}).json()["position"]
                theirs = js("place", peer=peer, artifact="plan", index=unit, assoc=assoc)
                assert js("placeOf", peer=peer, place=ours) == unit, (index, assoc, ours, theirs)
                places.append((index, theirs))
        for index, place in random.sample(places, 8):
            answer = http.post(f"{plan}/splice", json={"position": place})
            assert (answer.status_code, answer.json()["index"]) == (200, index), place
        js("destroy", peer=peer)
