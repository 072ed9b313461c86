"""Append and fan-out of a durable stream, ours beside the reference server: ``python -m tests.bench.streams``.

Both keep what they are sent on disk before they acknowledge it: ours in SQLite, the reference with one fdatasync for
each append. Every round measures both, one after the other, so that a slow minute of the machine hits both. The load
speaks HTTP/1.1 on connections that stay open, and is the same for both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from tests.bench.peers import HERE, OURS, Peer, running

REFERENCE = Peer(
    "Durable Streams (reference)",
    lambda port, data: ["node", str(HERE / "js" / "durable-streams.mjs"), str(port), str(data)],
)
PEERS = (OURS, REFERENCE)
RATIO = "ours / reference"
"""Under this name stand the ratios: of throughput more is better, of milliseconds less."""
_NUMBER = re.compile(rb"#(\d+)#")
_LONGEST = 32
"""Bytes of the longest number, marks included: so much is kept of a piece for the next one."""
_FILLING = "x" * 80
"""An append is as long as a few tokens in a frame."""


class Connection:
    """An HTTP/1.1 connection to a server that is measured."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def request(self, method: str, path: str, body: str = "") -> int:
        """Return the status that answers a request; its body is read and thrown away."""
        status, headers = await self._ask(method, path, body)
        if headers.get("transfer-encoding") != "chunked":
            await self._reader.readexactly(int(headers.get("content-length", 0)))
            return status
        while size := int(await self._reader.readline(), 16):
            await self._reader.readexactly(size + 2)
        await self._reader.readline()
        return status

    async def follow(self, path: str) -> AsyncIterator[tuple[int, float]]:
        """Yield the numbers of the appends of a stream as they come, each with the time when it did."""
        status, _ = await self._ask("GET", f"{path}?offset=-1&live=sse")
        assert status == 200, status
        rest = b""
        while piece := await self._reader.read(1 << 16):
            now, rest, end = time.perf_counter(), rest + piece, 0
            for found in _NUMBER.finditer(rest):
                end = found.end()
                yield int(found[1]), now
            rest = rest[max(end, len(rest) - _LONGEST) :]

    async def _ask(self, method: str, path: str, body: str = "") -> tuple[int, dict[str, str]]:
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
        self._writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        return int(lines[0].split()[1]), headers


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Connection]:
    """Return a context with a connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()


async def _append(connection: Connection, path: str, number: int) -> float:
    """Append something with a number in it; return how many seconds that took until it was acknowledged."""
    begin = time.perf_counter()
    status = await connection.request("POST", path, f"#{number}#{_FILLING}")
    assert status in (200, 204), status
    return time.perf_counter() - begin


async def appends(port: int, writers: int, each: int) -> dict[str, float]:
    """Have several writers append to a stream each, one append after the other; return how fast that was."""

    async def write(writer: int) -> list[float]:
        async with connected(port) as connection:
            path = f"/v1/stream/appends-{writer}"
            assert await connection.request("PUT", path) == 201
            return [await _append(connection, path, number) for number in range(each)]

    begin = time.perf_counter()
    took = [time for times in await asyncio.gather(*map(write, range(writers))) for time in times]
    return {"appends_per_s": round(writers * each / (time.perf_counter() - begin), 1), **_spread(took)}


async def fan_out(port: int, readers: int, count: int) -> dict[str, float]:
    """Have one writer append while readers follow by server-sent events; return how late these got it."""
    path, sent, ready = "/v1/stream/fan-out", dict[int, float](), asyncio.Semaphore(0)

    async def read() -> list[float]:
        async with connected(port) as connection:
            late: list[float] = []
            async for number, at in connection.follow(path):
                if number == 0:
                    ready.release()
                else:
                    late.append(at - sent[number])
                if number == count:
                    break
            return late

    async with connected(port) as connection:
        assert await connection.request("PUT", path) == 201
        await _append(connection, path, 0)
        following = [asyncio.create_task(read()) for _ in range(readers)]
        for _ in following:
            await ready.acquire()
        for number in range(1, count + 1):
            sent[number] = time.perf_counter()
            await _append(connection, path, number)
        return _spread([late for each in await asyncio.gather(*following) for late in each])


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    places = quantiles(seconds, n=100, method="inclusive")
    return {"p50_ms": round(places[49] * 1000, 2), "p99_ms": round(places[98] * 1000, 2)}


def measured(peer: Peer, folder: Path, *, writers: int, readers: int, count: int) -> dict[str, dict[str, float]]:
    """Measure a server that is started for it, with nothing on its disk."""
    folder.mkdir()
    with running(peer, folder / "data") as server:
        return {
            "append": asyncio.run(appends(server.port, writers, count)),
            "fan-out": asyncio.run(fan_out(server.port, readers, count)),
        }


def run(*, rounds: int, writers: int, readers: int, count: int) -> dict[str, Any]:
    """Measure both servers by turns; return the medians of each over the rounds, and of ours by the reference's."""
    found: dict[str, list[dict[str, dict[str, float]]]] = {peer.name: [] for peer in PEERS}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            for peer in PEERS if number % 2 == 0 else PEERS[::-1]:
                place = Path(folder) / f"{number}-{PEERS.index(peer)}"
                found[peer.name].append(measured(peer, place, writers=writers, readers=readers, count=count))
    ours, theirs = (found[peer.name] for peer in PEERS)
    ratios = [_by(mine, other) for mine, other in zip(ours, theirs, strict=True)]
    return {**{name: _medians(figures) for name, figures in found.items()}, RATIO: _medians(ratios)}


def _by(ours: dict[str, dict[str, float]], theirs: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return what ours needs, or does, for one of the reference's, in one round."""
    return {
        case: {name: round(value / theirs[case][name], 3) for name, value in figures.items()}
        for case, figures in ours.items()
    }


def _medians(figures: Sequence[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    return {
        case: {name: median(each[case][name] for each in figures) for name in figures[0][case]} for case in figures[0]
    }


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="tests.bench.streams", description=__doc__, allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--writers", type=int, default=16)
    parser.add_argument("--readers", type=int, default=50)
    parser.add_argument("--count", type=int, default=500, help="appends of each writer")
    print(json.dumps(run(**vars(parser.parse_args(arguments))), indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
