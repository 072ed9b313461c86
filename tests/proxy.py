"""A loopback proxy that does to connections what networks do: slow, late, unsteady, cut, half-open, reset, in pieces."""

import asyncio
import functools
import random
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass


@dataclass
class Network:
    """What the network does to each direction of each connection."""

    delay_s: float = 0.0
    """Every piece arrives so much later,"""
    jitter_s: float = 0.0
    """or up to so much more; bytes stay in order, as TCP keeps them."""
    bytes_per_s: float = 0.0
    """0 is no limit."""
    piece: int = 65536
    """The largest number of bytes that arrive together; 1 splits at every byte."""
    reset_after: tuple[int, int] = (0, 0)
    """Connections are reset after a number of bytes between these; 0 never."""
    one_way: bool = False
    """While cut, only what goes to the service is: it sees nothing, and its own words still arrive."""


class Proxy:
    """Forwards TCP to *port*; while :attr:`cut`, bytes wait on both sides, and nothing is closed.

    It listens at *host*, and reaches *port* by *dial*: on this machine, if nothing else is said.
    """

    def __init__(self, port, network=None, seed=0, host="127.0.0.1", dial=None):
        self.port_there = port
        """Where connections lead that come from now on."""
        self.network = network or Network()
        self.host = host
        self._dial = dial or functools.partial(asyncio.open_connection, "127.0.0.1")
        self.resets = 0
        self._rng = random.Random(seed)
        self._passes = asyncio.Event()
        self._passes.set()
        self._tasks, self._writers = set(), []

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, self.host, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error):
        for listening in self._server.sockets:  # asyncio forgets whom it has accepted when the server is closed then
            asyncio.get_running_loop().remove_reader(listening.fileno())
        for _ in range(5):  # turns of the loop: whoever came just now is there by then, to be ended
            await asyncio.sleep(0)
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self):
        return f"ws://127.0.0.1:{self.port}/v1/sync"

    def cut(self):
        self._passes.clear()

    def heal(self):
        self._passes.set()

    def sever(self):
        """End all connections there are; new ones may come."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader, writer):
        task = asyncio.current_task()
        self._tasks.add(task)
        self._writers.append(writer)
        try:
            await self._passes.wait()
            far_reader, far_writer = await self._dial(self.port_there)
            self._writers.append(far_writer)
            pumping = [
                asyncio.create_task(self._pump(reader, far_writer, self._passes.wait)),
                asyncio.create_task(self._pump(far_reader, writer, self._nothing if self.network.one_way else self._passes.wait)),
            ]  # fmt: skip
            try:
                await asyncio.wait(pumping, return_when=asyncio.FIRST_COMPLETED)
                await self._passes.wait()
            finally:
                for pump in pumping:
                    pump.cancel()
                await asyncio.gather(*pumping, return_exceptions=True)
                far_writer.transport.abort()
        except (OSError, asyncio.CancelledError):
            pass  # the far side is away, or the proxy ends: the near side sees its connection end
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _nothing(self):
        pass

    async def _pump(self, reader, writer, passes):
        network, left = (
            self.network,
            self._rng.randint(*self.network.reset_after) if any(self.network.reset_after) else 0,
        )
        with suppress(OSError):
            while data := await reader.read(network.piece):
                await passes()
                pause = network.delay_s + self._rng.uniform(0, network.jitter_s)
                if network.bytes_per_s:
                    pause += len(data) / network.bytes_per_s
                if pause:
                    await asyncio.sleep(pause)
                if any(network.reset_after):
                    if len(data) >= left:
                        writer.write(data[:left])
                        self._reset(writer)
                        return
                    left -= len(data)
                writer.write(data)
                await writer.drain()

    def _reset(self, writer):
        self.resets += 1
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
