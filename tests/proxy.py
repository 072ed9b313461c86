"""A loopback proxy that can cut a connection the nasty way: nothing is closed, nothing arrives."""

import asyncio
from contextlib import suppress


class Proxy:
    """Forwards TCP to *port*; while :attr:`cut`, bytes wait on both sides."""

    def __init__(self, port):
        self._port = port
        self._passes = asyncio.Event()
        self._passes.set()
        self._tasks, self._writers = set(), []

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error):
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

    def cut(self):
        self._passes.clear()

    def heal(self):
        self._passes.set()

    async def _serve(self, reader, writer):
        task = asyncio.current_task()
        self._tasks.add(task)
        self._writers.append(writer)
        try:
            await self._passes.wait()
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
            self._writers.append(far_writer)
            pumping = [asyncio.create_task(self._pump(*way)) for way in ((reader, far_writer), (far_reader, writer))]
            try:
                await asyncio.wait(pumping, return_when=asyncio.FIRST_COMPLETED)
                await self._passes.wait()
            finally:
                for pump in pumping:
                    pump.cancel()
                await asyncio.gather(*pumping, return_exceptions=True)
                far_writer.transport.abort()
        except OSError:
            pass  # the far side is away: the near side sees its connection end
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _pump(self, reader, writer):
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._passes.wait()
                writer.write(data)
                await writer.drain()
