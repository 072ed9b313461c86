"""What the benchmark shows: both regimes side by side, and when each server has on disk what it passes on."""

from xml.etree import ElementTree

import pytest

from tests.bench.__main__ import main
from tests.bench.peers import OF_HOCUSPOCUS, PEERS
from tests.bench.picture import draw
from tests.bench.report import Figures, regimes, table

_SATURATED, _PACED = {"per_s": 67_000}, {"server_cpu": 0.25, "p50_ms": 0.1, "p99_ms": 0.7, "p999_ms": 1.2}


def figures():
    return Figures(
        [
            {"case": f"W1 50x2 {regime}", "peer": peer.name, "round": 0, **found}
            for peer in PEERS
            for regime, found in (("saturated", _SATURATED), ("paced", _PACED))
            if peer.name != "Hocuspocus"
        ]
    )


def test_both_regimes_stand_in_one_row_with_when_it_is_on_disk():
    lines = regimes(figures()).split("\n")
    assert len({line.count("|") for line in lines}) == 1
    assert "| 50x2 | crdt-sessions | before it is passed on | 67 k | 0.25 | 0.1 | 0.7 |" in lines
    assert "| 50x2 | y-websocket | never | 67 k | 0.25 | 0.1 | 0.7 |" in lines
    assert "| 50x2 | Hocuspocus + SQLite | later | 67 k | 0.25 | 0.1 | 0.7 |" in lines
    assert not any("| Hocuspocus |" in line for line in lines), "it was not measured"
    assert "p99 ms" in table(figures())


def test_our_endpoint_for_hocuspocus_stands_beside_hocuspocus():
    case = "W1 50x2 by Hocuspocus' protocol"
    found = Figures(
        [
            {"case": f"{case} {regime}", "peer": peer.name, "round": 0, **each}
            for peer in OF_HOCUSPOCUS
            for regime, each in (("saturated", _SATURATED), ("paced", _PACED))
        ]
    )
    shape = "50x2 by Hocuspocus' protocol"
    assert f"| {shape} | crdt-sessions | before it is passed on | 67 k | 0.25 | 0.1 | 0.7 |" in regimes(found)
    assert f"| {shape} | Hocuspocus + SQLite | later | 67 k | 0.25 | 0.1 | 0.7 |" in regimes(found)
    assert ElementTree.fromstring(draw(found)) is not None


def test_the_picture_has_both_beside_each_other():
    picture = ElementTree.fromstring(draw(figures()))
    columns = [each.get("transform") for each in picture if each.tag.endswith("}g")]
    assert columns == ["translate(0 0)", "translate(1000 0)"]
    assert picture.get("viewBox", "").startswith("0 0 2000 ")
    said = "".join(picture.itertext())
    assert "On disk: crdt-sessions before it is passed on; y-websocket never" in said


@pytest.mark.parametrize("arguments", [("nonsense",), ("W1", "--only", "nobody")])
def test_what_there_is_not_is_refused_before_anything_is_measured(arguments, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["bench", *arguments])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert arguments[-1] in capsys.readouterr().err
