"""Lines between nodes, and to their database, that are cut: cables of networks where there can be some, else proxies."""

from contextlib import AsyncExitStack
from urllib.parse import urlsplit

from tests.networks import missing, networks
from tests.proxy import Proxy


class Proxies:
    """All on this machine; who goes to a node or to the database goes through a proxy, which holds back what it has.

    Args:
        postgres: the servers, a :class:`~tests.postgres.Pair`; anything else is reached directly.
        database: the name of the database.
        ports: of the nodes, by which clients reach them.
        inner: of the nodes, by which they reach each other.
    """

    what = "proxies"

    def __init__(self, postgres, database, ports, inner):
        self._postgres, self._database = postgres, database
        self.fronts = [*ports]
        """Where clients come to nodes."""
        self._inner = inner
        self._to_database, self._to_node = [], []
        self.stack = AsyncExitStack()

    async def __aenter__(self):
        for at, port in enumerate(self._inner):
            line = Proxy(self._postgres.primary.port) if at and hasattr(self._postgres, "primary") else None
            self._to_database.append(line and await self.stack.enter_async_context(line))
            self._to_node.append(await self.stack.enter_async_context(Proxy(port)))
        return self

    async def __aexit__(self, *error):
        await self.stack.aclose()

    def url(self, at):
        """Return the database's address for a node. The first one knows all servers, the others one, by a line."""
        if self._to_database[at] is None:
            return self._postgres.url(self._database)
        return _at(self._postgres.primary.url(self._database), self._to_database[at])

    def between(self, at):
        """Return where a node listens for others, and how they reach it."""
        return f"127.0.0.1:{self._inner[at]}", f"127.0.0.1:{self._to_node[at].port}"

    def env(self, at):
        """Return what a node's process is started with."""
        return {}

    def redirect(self):
        """Have lines to the database lead to the server that is the primary now."""
        for line in self._to_database:
            if line is not None:
                line.port_there = self._postgres.primary.port

    def cut_from_database(self, at, *, one_way):
        """Have nothing pass between a node and the database, or only what that says; return what mends it."""
        return self._cut(self._to_database[at], one_way)

    def cut_from_nodes(self, at, *, one_way):
        """Have nothing pass between a node and who comes to it from others, or only what it says."""
        return self._cut(self._to_node[at], one_way)

    def _cut(self, line, one_way):
        line.network.one_way = one_way
        line.cut()
        return line.heal


class Cables(Proxies):
    """Each node is in a place of its own, with one cable to the database and one to the other nodes."""

    what = "network namespaces"

    async def __aenter__(self):
        made = self.stack.enter_context(networks())
        self._between = made.network()
        of_database = made.network()
        host = of_database.address(1)
        self._places = [made.place() for _ in self._inner]
        self._database_cables = [place.plug(of_database) for place in self._places]
        self._node_cables = [place.plug(self._between) for place in self._places]
        for at, place in enumerate(self._places):
            line = Proxy(self._postgres.primary.port, host=host) if at else None
            self._to_database.append(line and await self.stack.enter_async_context(line))
            front = Proxy(self.fronts[at], dial=place.dial)
            self.fronts[at] = (await self.stack.enter_async_context(front)).port
        servers = [Proxy(port, host=host) for port in self._postgres.ports]
        self._servers = [await self.stack.enter_async_context(each) for each in servers]
        return self

    def url(self, at):
        if self._to_database[at] is not None:
            return _at(self._postgres.primary.url(self._database), self._to_database[at])
        return _at(self._postgres.url(self._database), *self._servers)

    def between(self, at):
        address = f"{self._between.address(2 + at)}:{self._inner[at]}"
        return address, address

    def env(self, at):
        return {"PLACE": self._places[at].path}

    def cut_from_database(self, at, *, one_way):
        return self._cut(self._database_cables[at], one_way and "says")

    def cut_from_nodes(self, at, *, one_way):
        return self._cut(self._node_cables[at], one_way and "hears")

    def _cut(self, cable, what):
        cable.cut(what or "")
        return cable.heal


def _at(url, *proxies):
    """Return a database's address as it is by proxies."""
    parts = urlsplit(url)
    hosts = ",".join(f"{each.host}:{each.port}" for each in proxies)
    return parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@{hosts}").geturl()


def lines(postgres, *arguments):
    """Return the best lines that there can be here."""
    return (Proxies if missing() or not hasattr(postgres, "primary") else Cables)(postgres, *arguments)
