"""A service whose ``/mcp`` has what the conformance suite asks for by name: ``python -m tests.mcp.everything FOLDER``.

The suite tests what libraries make of the protocol: it calls tools and prompts that only a server made for it has. So
here our routes, and the library behind them, serve such a one.
"""

import asyncio
import base64
import json
import sys
from pathlib import Path

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp.types import (
    AudioContent,
    Completion,
    EmbeddedResource,
    EmptyResult,
    ImageContent,
    SamplingMessage,
    SubscribeRequestParams,
    TextContent,
    TextResourceContents,
    UnsubscribeRequestParams,
)
from pydantic import BaseModel

import crdt_sessions_server.mcp.server as ours
from crdt_sessions_server.process import serve
from crdt_sessions_server.settings import Settings

PNG = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8cfc0000003010100"
        "18dd8db00000000049454e44ae426082"
    )
).decode()
WAV = base64.b64encode(b"RIFF$\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0@\x1f\0\0\x80>\0\0\2\0\x10\0data\0\0\0\0").decode()
server = MCPServer("everything")
low = server._lowlevel_server


def image():
    return ImageContent(data=PNG, mime_type="image/png")


def embedded(uri, text, kind="text/plain"):
    return EmbeddedResource(resource=TextResourceContents(uri=uri, mime_type=kind, text=text))


# -- tools -----------------------------------------------------------------------------------------------------------------


@server.tool()
def test_simple_text() -> str:
    """Return text."""
    return "This is a simple text response for testing."


@server.tool(structured_output=False)
def test_image_content() -> ImageContent:
    """Return an image."""
    return image()


@server.tool(structured_output=False)
def test_audio_content() -> AudioContent:
    """Return audio."""
    return AudioContent(data=WAV, mime_type="audio/wav")


@server.tool(structured_output=False)
def test_embedded_resource() -> EmbeddedResource:
    """Return a resource."""
    return embedded("test://embedded-resource", "This is an embedded resource content.")


@server.tool(structured_output=False)
def test_multiple_content_types() -> list[TextContent | ImageContent | EmbeddedResource]:
    """Return all sorts."""
    data = embedded("test://mixed-content-resource", '{"test":"data","value":123}', "application/json")
    return [TextContent(text="Multiple content types test:"), image(), data]


@server.tool()
async def test_tool_with_logging(context: Context) -> str:
    """Log."""
    for text in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await context.request_context.session.send_log_message("info", text, related_request_id=context.request_id)
        await asyncio.sleep(0.05)
    return "logged"


@server.tool()
def test_error_handling() -> str:
    """Fail."""
    raise ToolError("This tool intentionally returns an error for testing")


@server.tool()
async def test_tool_with_progress(context: Context) -> str:
    """Tell progress."""
    for done in (0, 50, 100):
        await context.report_progress(done, 100)
        await asyncio.sleep(0.05)
    return "done"


@server.tool()
async def test_sampling(prompt: str, context: Context) -> str:
    """Ask the client's model."""
    asked = [SamplingMessage(role="user", content=TextContent(text=prompt))]
    found = await context.request_context.session.create_message(
        asked, max_tokens=100, related_request_id=context.request_id
    )
    return f"LLM response: {found.content.text}"


async def elicit(context, message, properties, required=()):
    schema = {"type": "object", "properties": properties, "required": list(required)}
    said = await context.request_context.session.elicit_form(message, schema, context.request_id)
    return f"action={said.action}, content={json.dumps(said.content)}"


@server.tool()
async def test_elicitation(message: str, context: Context) -> str:
    """Ask people."""
    fields = {name: {"type": "string", "description": name} for name in ("username", "email")}
    return f"User response: {await elicit(context, message, fields, fields)}"


@server.tool()
async def test_elicitation_sep1034_defaults(context: Context) -> str:
    """Ask people, with defaults."""
    fields = {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "default": True},
    }
    return f"Elicitation completed: {await elicit(context, 'Defaults', fields)}"


@server.tool()
async def test_elicitation_sep1330_enums(context: Context) -> str:
    """Ask people to choose."""
    options, titled = (
        ["option1", "option2", "option3"],
        [{"const": "value1", "title": "First"}, {"const": "value2", "title": "Second"}],
    )
    fields = {
        "untitledSingle": {"type": "string", "enum": options},
        "titledSingle": {"type": "string", "oneOf": titled},
        "legacyEnum": {"type": "string", "enum": ["opt1", "opt2"], "enumNames": ["Option One", "Option Two"]},
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": options}},
        "titledMulti": {"type": "array", "items": {"anyOf": titled}},
    }
    return f"Elicitation completed: {await elicit(context, 'Choices', fields)}"


@server.tool()
async def test_reconnection(context: Context) -> str:
    """Close the stream, and go on."""
    await context.close_sse_stream()
    await asyncio.sleep(0.1)
    return "Reconnection test completed successfully"


@server.tool(name="json_schema_2020_12_tool")
def schema_2020(name: str = "", address: dict = {}) -> str:  # noqa: B006
    """Tool with JSON Schema 2020-12 features"""
    return name


server._tool_manager.get_tool("json_schema_2020_12_tool").parameters = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {"type": "object", "properties": {"street": {"type": "string"}, "city": {"type": "string"}}}
    },
    "properties": {"name": {"type": "string"}, "address": {"$ref": "#/$defs/address"}},
    "additionalProperties": False,
}

# -- resources and prompts -------------------------------------------------------------------------------------------------


@server.resource("test://static-text", mime_type="text/plain")
def static_text() -> str:
    """A text."""
    return "This is the content of the static text resource."


@server.resource("test://static-binary", mime_type="image/png")
def static_binary() -> bytes:
    """An image."""
    return base64.b64decode(PNG)


@server.resource("test://template/{id}/data", mime_type="application/json")
def template(id: str) -> str:
    """Data by its id."""
    return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})


@server.resource("test://watched-resource", mime_type="text/plain")
def watched() -> str:
    """Something to watch."""
    return "watched"


@server.prompt()
def test_simple_prompt() -> str:
    """A prompt."""
    return "This is a simple prompt for testing."


@server.prompt()
def test_prompt_with_arguments(arg1: str, arg2: str) -> str:
    """A prompt with arguments."""
    return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"


@server.prompt()
def test_prompt_with_embedded_resource(resourceUri: str) -> list[UserMessage]:
    """A prompt with a resource."""
    return [
        UserMessage(embedded(resourceUri, "Embedded resource content for testing.")),
        UserMessage(TextContent(text="Please process the embedded resource above.")),
    ]


@server.prompt()
def test_prompt_with_image() -> list[UserMessage]:
    """A prompt with an image."""
    return [
        UserMessage(image()),
        UserMessage(TextContent(text="Please analyze the image above.")),
    ]


@server.completion()
async def complete(ref, argument, context) -> Completion:
    return Completion(values=[], total=0, has_more=False)


async def nothing(context, params):
    return EmptyResult()


class Level(BaseModel):
    level: str


low.add_request_handler("resources/subscribe", SubscribeRequestParams, nothing)
low.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, nothing)
low.add_request_handler("logging/setLevel", Level, nothing)


def main(folder):
    ours.build = lambda api_of: low
    settings = Settings(database=Path(folder) / "s.db", port=0, sandbox=False, default_agent="")
    asyncio.run(serve(settings, announce=lambda url: print(f"serves on {url}", flush=True)))


if __name__ == "__main__":
    main(sys.argv[1])
