"""All servers in one run, alternating: ``python -m tests.bench`` (or ``make bench``, ``crdt-sessions bench``).

Every round measures every server once, so that a slow minute of the machine hits all of them. Medians over the rounds,
and ours as a ratio to the best of the others, are printed; all figures go to a file of JSON, and a picture beside it.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.bench import endtoend, fanout, growth, idling, joining, picture
from tests.bench.document import history
from tests.bench.peers import HERE, OF_HOCUSPOCUS, OURS, PEERS, RELAY, Peer
from tests.bench.report import Figures, regimes, table

WORKLOADS = ("W1", "W2", "W3", "W5", "W6")
"""W4, a cold start, is measured with W2: the same document after a restart."""

Record = dict[str, Any]


def measures(workload: str, *, quick: bool) -> Iterator[tuple[str, Callable[[Peer, Path], Any], tuple[Peer, ...]]]:
    """Yield the cases of a workload: name, what measures one server, and which servers."""
    seconds = 1.5 if quick else 4.0
    if workload == "W1":
        for shape in list(fanout.SHAPES)[: 3 if quick else None]:
            yield (
                f"W1 {shape} saturated",
                lambda peer, folder, shape=shape: fanout.saturated(peer, folder, shape, seconds=seconds),
                (*PEERS, RELAY),
            )
            yield (
                f"W1 {shape} paced",
                lambda peer, folder, shape=shape: fanout.paced(peer, folder, shape, seconds=seconds),
                PEERS,
            )
        for shape in fanout.SLOW_SHAPES:
            yield (
                f"W1 {shape} at {fanout.SLOW} tokens/s paced",
                lambda peer, folder, shape=shape: fanout.paced(
                    peer, folder, shape, seconds=seconds, rate=fanout.SLOW, warmup=fanout.SLOW_WARMUP_S
                ),
                PEERS,
            )
        for regime, measure in (("saturated", fanout.saturated), ("paced", fanout.paced)):
            yield (
                f"W1 50x2 by Hocuspocus' protocol {regime}",
                lambda peer, folder, measure=measure: measure(peer, folder, "50x2", seconds=seconds),
                OF_HOCUSPOCUS,
            )
        for regime, rate in (("saturated", None), ("paced", 20)):
            yield (
                f"W1 20x2 by Hocuspocus' own clients {regime}",
                lambda peer, folder, rate=rate: fanout.by_stock_clients(peer, folder, seconds=seconds, rate=rate),
                OF_HOCUSPOCUS,
            )
    elif workload == "W2":
        content = history(500 if quick else 10_000, 500)
        yield "W2", lambda peer, folder: joining.joins(peer, folder, content), PEERS
    elif workload == "W3":
        for sessions in (200,) if quick else (1_000, 5_000, 10_000):
            yield (
                f"W3 {sessions} idle",
                lambda peer, folder, sessions=sessions: idling.idle(peer, folder, sessions, seconds=seconds),
                PEERS,
            )
    elif workload == "W5":
        tokens = 20_000 if quick else 1_000_000
        yield "W5 one message", lambda peer, folder: growth.one_long_message(peer, folder, tokens), PEERS[:5]
        for messages in (100, 1_000) if quick else (1_000, 100_000):
            yield (
                f"W5 {messages} messages",
                lambda peer, folder, messages=messages: growth.many_messages(peer, messages),
                PEERS[:5],
            )
            yield (
                f"W5 folding {messages} rows",
                lambda peer, folder, messages=messages: growth.folding(messages),
                (OURS,),
            )
    elif workload == "W6":
        yield (
            "W6",
            lambda peer, folder: endtoend.overhead(folder, questions=20 if quick else 200),
            (OURS,),
        )


def run(workloads: list[str], rounds: int, only: str, *, quick: bool) -> list[Record]:
    """Measure; return a record for each case, server and round."""
    records: list[Record] = []
    begun = time.monotonic()
    for workload in workloads:
        for case, measure, peers in measures(workload, quick=quick):
            for number in range(rounds):
                for peer in peers if number % 2 == 0 else reversed(peers):
                    if only not in peer.name:
                        continue
                    print(
                        f"[{time.monotonic() - begun:5.0f} s] {case}, round {number + 1}: {peer.name} ...",
                        file=sys.stderr,
                    )
                    found = _guarded(measure, peer)
                    for name, figures in (
                        found.items() if all(isinstance(each, dict) for each in found.values()) else [("", found)]
                    ):
                        records.append(
                            {"case": f"{case} {name}".strip(), "peer": peer.name, "round": number, **figures}
                        )
    return records


def _guarded(measure: Callable[[Peer, Path], Any], peer: Peer) -> Record:
    """Measure one server; one that breaks under the load is a result too."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            found: Record = measure(peer, Path(folder))
        except RuntimeError as error:
            if peer.name == OURS.name:
                raise
            print(f"        {peer.name} failed: {error}", file=sys.stderr)
            return {"failed": str(error)}
    return found


def machine() -> Record:
    """Return what was measured on, and what was measured."""
    lock = json.loads((HERE / "js" / "package-lock.json").read_text())["packages"]
    npm = ("@y/websocket-server", "@hocuspocus/server", "@hocuspocus/extension-sqlite", "y-leveldb", "yjs", "ws")
    pypi = ("crdt-sessions", "pycrdt", "pycrdt-websocket", "hypercorn", "quart", "uvloop", "websockets")
    model = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": model[0] if model else platform.machine(),
        "cores": len(model),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "node": subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip(),
        "versions": {name: lock[f"node_modules/{name}"]["version"] for name in npm}
        | {name: version(name) for name in pypi},
    }


def _workload(name: str) -> str:
    if name not in WORKLOADS:
        raise argparse.ArgumentTypeError(f"there is no workload {name!r}, but {', '.join(WORKLOADS)}")
    return name


def _part_of_a_name(part: str) -> str:
    names = [peer.name for peer in (*PEERS, RELAY)]
    if not any(part in name for name in names):
        raise argparse.ArgumentTypeError(f"no server has {part!r} in its name: {', '.join(names)}")
    return part


def main() -> None:
    """Measure, print, and write the files."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    parser.add_argument(
        "workloads",
        nargs="*",
        type=_workload,
        metavar="WORKLOAD",
        help=f"some of {', '.join(WORKLOADS)}; all if none",
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often each server is measured (default: 3)")
    parser.add_argument(
        "--only", default="", type=_part_of_a_name, metavar="NAME", help="only servers with this in their name"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument(
        "--out", type=Path, default=Path("build/bench.json"), metavar="FILE", help="(default: build/bench.json)"
    )
    chosen = parser.parse_args()
    records = run(chosen.workloads or list(WORKLOADS), chosen.rounds, chosen.only, quick=chosen.quick)
    figures = Figures(records)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps({"machine": machine(), "records": records}, indent=1))
    chosen.out.with_suffix(".svg").write_text(picture.draw(figures))
    print(f"{regimes(figures)}\n\n{table(figures)}")
    print(f"\nall figures: {chosen.out}, picture: {chosen.out.with_suffix('.svg')}", file=sys.stderr)


if __name__ == "__main__":
    main()
