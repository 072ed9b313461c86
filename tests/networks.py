"""Networks of their own for processes, with cables that are cut: namespaces of Linux, which take root.

What a cut cable carries is dropped by the kernel, in one direction or both. Nobody is told: connections stay open, and
their bytes are sent again, ever more seldom.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import itertools
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_HERE = "/proc/thread-self/ns/net"
_DROP = "root bfifo limit 1"  # no packet is as small
_CLONE_NEWNET = 0x40000000
_numbers = itertools.count()


@functools.cache
def missing() -> str:
    """Return why there can be no networks here; nothing if there can be."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "network namespaces take root"
    if shutil.which("ip") is None or shutil.which("tc") is None:
        return "no ip and tc: apt-get install iproute2"
    try:
        with networks() as made:
            made.place().plug(made.network()).cut()
    except subprocess.CalledProcessError as error:
        return f"no network namespaces here: {error.stderr.strip()}"
    return ""


def enter(place: str) -> None:
    """Have the calling thread be in a place; what it has opened stays where it was."""
    with open(place) as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"no way into {place}")


@contextmanager
def networks() -> Iterator[Networks]:
    """Have networks, and remove them."""
    made = Networks()
    try:
        yield made
    finally:
        made.close()


class Networks:
    """Places, and networks between them that this process is in, too."""

    def __init__(self) -> None:
        self._mark = f"{os.getpid():x}x{next(_numbers):x}"
        self._bridges: list[str] = []
        self._places: list[str] = []

    def network(self) -> Network:
        """Return one more network."""
        number, pid = len(self._bridges), os.getpid()
        network = Network(f"b{self._mark}.{number}", f"10.{64 + (pid >> 8) % 128}.{pid % 256}.{64 * number}")
        self._bridges.append(network.bridge)
        _do(f"link add {network.bridge} type bridge", f"link set {network.bridge} up")
        _do(f"addr add {network.address(1)}/26 dev {network.bridge}")
        return network

    def place(self) -> Place:
        """Return one more place, which is in no network yet."""
        place = Place(f"p{self._mark}.{len(self._places)}", self._mark, len(self._places))
        self._places.append(place.name)
        _do(f"netns add {place.name}", f"-n {place.name} link set lo up")
        return place

    def close(self) -> None:
        """Remove all of them; whoever is still there is in no network any more."""
        _do(*(f"netns del {name}" for name in self._places), *(f"link del {name}" for name in self._bridges))


@dataclass(frozen=True)
class Network:
    """A network of up to 60 places."""

    bridge: str
    base: str

    def address(self, number: int) -> str:
        """Return an address; the first one is this process's."""
        before, _, last = self.base.rpartition(".")
        return f"{before}.{int(last) + number}"


@dataclass(frozen=True)
class Place:
    """Where processes are that reach each other, and others by cables."""

    name: str
    mark: str
    number: int

    @property
    def path(self) -> str:
        """What :func:`enter` takes."""
        return f"/run/netns/{self.name}"

    def plug(self, network: Network) -> Cable:
        """Connect this place with a network."""
        cable = Cable(self.name, f"v{self.mark}.{self.number}.{network.base.rpartition('.')[2]}", network)
        address = network.address(2 + self.number)
        _do(
            f"link add {cable.name} type veth peer name {cable.inside} netns {self.name}",
            f"link set {cable.name} master {network.bridge} up",
            f"-n {self.name} addr add {address}/26 dev {cable.inside}",
            f"-n {self.name} link set {cable.inside} up",
        )
        return cable

    async def dial(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to who listens on this place's loopback, from there."""
        made = await asyncio.to_thread(self._socket)
        try:
            await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", port))
        except BaseException:
            made.close()
            raise
        return await asyncio.open_connection(sock=made)

    def _socket(self) -> socket.socket:
        with open(_HERE) as here:
            back = f"/proc/self/fd/{here.fileno()}"
            enter(self.path)
            try:
                made = socket.socket()
            finally:
                enter(back)
        made.setblocking(False)
        return made


class Cable:
    """What connects a place with a network."""

    def __init__(self, place: str, name: str, network: Network) -> None:
        self.name = name
        self.inside = f"e{network.base.rpartition('.')[2]}"
        self._ends = {"says": f"-n {place} qdisc {{}} dev {self.inside}", "hears": f"qdisc {{}} dev {name}"}
        self._cut: list[str] = []

    def cut(self, what: str = "") -> None:
        """Drop what the place *says* or what it *hears*; both if nothing is named."""
        self._cut = [end for way, end in self._ends.items() if what in (way, "")]
        for end in self._cut:
            _run("tc", f"{end.format('add')} {_DROP}")

    def heal(self) -> None:
        """Carry everything again."""
        for end in self._cut:
            _run("tc", f"{end.format('del')} root")
        self._cut = []


def _do(*commands: str) -> None:
    for each in commands:
        _run("ip", each)


def _run(program: str, words: str) -> None:
    subprocess.run([program, *words.split()], check=True, capture_output=True, text=True)
