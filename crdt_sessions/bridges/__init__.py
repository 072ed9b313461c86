"""Bridges: from the streams of model libraries into a run's message.

Each takes what the library yields and needs nothing of the library itself::

    stream = await client.chat.completions.create(model=..., messages=run.history(), stream=True)
    await bridges.openai.write_chat(run.out, stream)

Text, thoughts and tool inputs go where they belong; why the model stopped becomes the run's reason; a stream that
ends without an end, or with an error, fails the run and keeps what was written.

:mod:`.mcp` is another kind: it gives an agent the tools of an MCP server.
"""

from crdt_sessions.bridges import anthropic, langchain, mcp, openai, pydantic_ai
from crdt_sessions.bridges.deltas import Delta, write

__all__ = ["Delta", "anthropic", "langchain", "mcp", "openai", "pydantic_ai", "write"]
