"""Tools of MCP servers, for the agents of a session. Needs the package ``mcp``: ``crdt-sessions[mcp]``."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import ValidationError

from crdt_sessions.client.token import Token, current_token
from crdt_sessions.client.tool_calls import ToolOutcome
from crdt_sessions.errors import RunFailed
from crdt_sessions.model import ToolSpec

if TYPE_CHECKING:
    from mcp import Client
    from mcp.types import CallToolResult, RequestParamsMeta, Tool

Approve = Literal["always", "writes", "never"] | Callable[[ToolSpec, Any], bool]
"""Before which calls people are asked: all; those of tools that the server does not call read-only; none; or what a
function says of the tool and its input."""

_KEY = "crdt-sessions/idempotency-key"
_FRESH_S = 60.0
"""How long a list of tools is taken at its word."""
_MOST_BYTES = 256 * 1024
_CONNECT_S, _STREAM_S = 30.0, 300.0
"""How long a server may take to answer at all, and be silent while it answers."""

_log = logging.getLogger("crdt_sessions.agent")


class Server:
    """An MCP server whose tools an agent's runs can call: ``Agent(url, name=..., tools=[Server("https://…/mcp")])``.

    There is a connection for each request, so that nothing is kept open while a model thinks. Calls are recorded as
    tool calls of the answer. What a server says of its tools is its own word; only name servers that you trust with
    what the conversation holds.

    Args:
        url: where it speaks Streamable HTTP.
        token: if it asks for one; or a function that gets a fresh one.
        approve: before which calls people are asked.
        prefix: what its tools' names begin with here, to tell those of several servers apart.
        only: the tools that are offered, by the server's names; all if None.
        timeout_s: how long a call may take.
        max_bytes: the largest result that is taken, as JSON.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token | None = None,
        approve: Approve = "always",
        prefix: str = "",
        only: Collection[str] | None = None,
        timeout_s: float = 60.0,
        max_bytes: int = _MOST_BYTES,
    ) -> None:
        self._url = url
        self._token = token
        self._approve = approve
        self._prefix = prefix
        self._only = only
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._known: dict[str, tuple[ToolSpec, bool]] = {}
        self._known_at = -_FRESH_S

    async def tools(self) -> list[ToolSpec]:
        """See :meth:`crdt_sessions.client.toolbox.ToolSource.tools`."""
        if time.monotonic() - self._known_at >= _FRESH_S:
            try:
                async with self._connected() as client:
                    self._known = {spec.name: (spec, reads) async for spec, reads in self._listed(client)}
            except _failures() as error:
                raise RunFailed(f"the tools of {self._url} cannot be had: {_why(error)}") from error
            self._known_at = time.monotonic()
        return [spec for spec, _ in self._known.values()]

    def asks(self, name: str, input: Any) -> bool:
        """See :meth:`crdt_sessions.client.toolbox.ToolSource.asks`."""
        spec, reads = self._known[name]
        if callable(self._approve):
            return self._approve(spec, input)
        return self._approve == "always" or (self._approve == "writes" and not reads)

    async def call(self, name: str, input: Any, *, key: str) -> ToolOutcome:
        """See :meth:`crdt_sessions.client.toolbox.ToolSource.call`."""
        theirs, meta = name.removeprefix(self._prefix), cast("RequestParamsMeta", {_KEY: key})
        try:
            async with self._connected() as client:
                found = await client.call_tool(theirs, input or {}, meta=meta)
        except _failures() as error:
            return ToolOutcome("failed", error=f"{self._url}: {_why(error)}")
        return self._outcome(found)

    def _outcome(self, found: CallToolResult) -> ToolOutcome:
        texts = [block.text for block in found.content if block.type == "text"]
        if found.is_error:
            return ToolOutcome("failed", error="\n".join(texts) or "the tool failed")
        if found.structured_content is not None:
            output = found.structured_content
        elif len(texts) == len(found.content):
            output = "\n".join(texts)
        else:
            output = [block.model_dump(by_alias=True, mode="json", exclude_none=True) for block in found.content]
        if (size := len(json.dumps(output))) > self._max_bytes:
            return ToolOutcome("failed", error=f"the result has {size} bytes; {self._max_bytes} are taken at most")
        return ToolOutcome("done", output=output)

    async def _listed(self, client: Client) -> AsyncIterator[tuple[ToolSpec, bool]]:
        """Yield the tools that are offered, and whether they say that they change nothing."""
        cursor = None
        while True:
            page = await client.list_tools(cursor=cursor)
            for tool in page.tools:
                spec = self._spec(tool) if self._only is None or tool.name in self._only else None
                if spec is not None:
                    yield spec, tool.annotations is not None and tool.annotations.read_only_hint is True
            cursor = page.next_cursor
            if cursor is None:
                return

    def _spec(self, tool: Tool) -> ToolSpec | None:
        try:
            return ToolSpec(
                name=self._prefix + tool.name, description=tool.description or "", input_schema=tool.input_schema
            )
        except ValidationError as error:
            _log.warning("a tool of %s cannot be offered: %s", self._url, error)
            return None

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Client]:
        from httpx2 import AsyncClient, Timeout
        from mcp import Client
        from mcp.client.streamable_http import streamable_http_client

        token = await current_token(self._token)
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        try:
            async with (
                AsyncClient(headers=headers, timeout=Timeout(_CONNECT_S, read=_STREAM_S)) as http,
                Client(
                    streamable_http_client(self._url, http_client=http),
                    read_timeout_seconds=self._timeout_s,
                    cache=None,
                ) as client,
            ):
                yield client
        except ExceptionGroup as group:  # the library's tasks raise so, each for itself
            known, other = group.split(_failures())
            if known is None or other is not None:
                raise
            raise _first(known) from group


def _failures() -> tuple[type[Exception], ...]:
    """Return what the library raises where a server is away, refuses, or does not speak the protocol."""
    from httpx2 import HTTPError
    from mcp.shared.exceptions import MCPError

    return (MCPError, HTTPError, OSError, ValidationError)


def _first(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__
