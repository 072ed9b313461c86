"""``/docs``: the OpenAPI document as one page of HTML, without scripts and without assets of others.

A library that shows such documents weighs megabytes and wants inline styles and scripts, against the policy that all
pages of the service have. This is read, linked to and searched with what browsers have.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

STYLE = Path(__file__).parent.parent / "web" / "docs.css"
PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

Json = dict[str, Any]

_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} · HTTP API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/style.css">
<body>
<nav aria-label="Sections"><a class="brand" href="#top">{title}</a><ul>{menu}</ul></nav>
<main id="top">
<header>
<h1>HTTP API</h1>
<p class="version">version {version} · <a href="openapi.json">openapi.json</a></p>
{about}
</header>
{sections}
<section id="schemas"><h2>Schemas</h2>{schemas}</section>
</main>
</body>
</html>
"""


def page(document: Json) -> str:
    """Return the page of an OpenAPI document."""
    tags = document["tags"]
    by_tag: dict[str, list[tuple[str, str, Json]]] = {tag["name"]: [] for tag in tags}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            by_tag[operation["tags"][0]].append((method, path, operation))
    menu = [f'<li><a href="#{tag["name"]}">{tag["name"].capitalize()}</a></li>' for tag in tags]
    sections = [
        f'<section id="{tag["name"]}"><h2>{tag["name"].capitalize()}</h2><p>{escape(tag["description"])}</p>'
        + "".join(_operation(*each, document) for each in by_tag[tag["name"]])
        + "</section>"
        for tag in tags
    ]
    schemas = document["components"]["schemas"]
    return _PAGE.format(
        title=escape(document["info"]["title"]),
        version=escape(document["info"]["version"]),
        about=_text(document["info"]["description"]),
        menu="".join(menu) + '<li><a href="#schemas">Schemas</a></li>',
        sections="\n".join(sections),
        schemas="".join(_component(name, schema) for name, schema in sorted(schemas.items())),
    )


def _operation(method: str, path: str, operation: Json, document: Json) -> str:
    shown = escape(path).replace("/", "/<wbr>").replace("{", "<i>{").replace("}", "}</i>")
    parts = [
        f'<details class="operation" id="{operation["operationId"]}"><summary>'
        f'<span class="method {method}">{method.upper()}</span> <code>{shown}</code>'
        f' <span class="what">{_inline(operation["summary"])}</span></summary>'
    ]
    parts.append(_text(operation.get("description", "")))
    if not operation["security"]:
        parts.append("<p>Needs no token.</p>")
    if parameters := operation.get("parameters"):
        parts.append("<h3>Parameters</h3><dl>" + "".join(map(_parameter, parameters)) + "</dl>")
    body = operation.get("requestBody")
    if body is not None:
        needed = "" if body["required"] else ' <span class="faint">may be left out</span>'
        parts.append(f"<h3>Body{needed}</h3>" + _content(body["content"]))
    parts.append(f"<h3>Try it</h3><pre><code>{escape(_curl(method, path, operation, document))}</code></pre>")
    parts.append("<h3>Answers</h3><dl>")
    for status, answer in operation["responses"].items():
        kind = "fine" if status < "4" else "refused"
        shapes = _content(answer.get("content", {})) if kind == "fine" else ""
        headers = "".join(
            f'<p class="faint">Header <code>{name}</code>: {_inline(each["description"])}</p>'
            for name, each in answer.get("headers", {}).items()
        )
        said = _inline(answer["description"])
        parts.append(f'<dt class="{kind}">{status}</dt><dd>{said}{shapes}{headers if kind == "fine" else ""}</dd>')
    return "".join(parts) + "</dl></details>"


def _parameter(parameter: Json) -> str:
    needed = ' <span class="needed">required</span>' if parameter["required"] else ""
    return (
        f'<dt><code>{escape(parameter["name"])}</code> <span class="faint">{parameter["in"]},'
        f" {_shape(parameter['schema'])}</span>{needed}</dt><dd>{_inline(parameter.get('description', ''))}</dd>"
    )


def _content(content: Json) -> str:
    rows = [
        f'<li><code>{escape(media)}</code> <span class="faint">{_shape(each["schema"])}</span></li>'
        for media, each in content.items()
    ]
    return f'<ul class="content">{"".join(rows)}</ul>' if rows else ""


def _component(name: str, schema: Json) -> str:
    required = schema.get("required", ())
    rows = [
        f"<dt><code>{escape(each)}</code> <span class='faint'>{_shape(value)}</span>"
        + (' <span class="needed">required</span>' if each in required else "")
        + f"</dt><dd>{_inline(value.get('description', ''))}</dd>"
        for each, value in schema.get("properties", {}).items()
    ]
    inside = f"<dl>{''.join(rows)}</dl>" if rows else f'<p class="faint">{_shape(schema)}</p>'
    about = _text(schema.get("description", ""))
    return (
        f'<details class="schema" id="schema-{name}"><summary><code>{name}</code></summary>{about}{inside}</details>'
    )


def _shape(schema: Json) -> str:
    """Return in a few words, as HTML, what a schema is."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#schema-{name}">{name}</a>'
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(map(_shape, schema[key])))
    if "const" in schema:
        return f"<code>{escape(json.dumps(schema['const']))}</code>"
    if "enum" in schema:
        return " ".join(f"<code>{escape(json.dumps(each))}</code>" for each in schema["enum"])
    kind = schema.get("type", "any value")
    if kind == "array":
        return f"list of {_shape(schema.get('items', {}))}"
    words = [" or ".join(kind) if isinstance(kind, list) else str(kind)]
    words += [f"{text} {schema[key]}" for key, text in _BOUNDS.items() if key in schema]
    return escape(", ".join(words))


_BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "more than",
    "maximum": "at most",
    "maxLength": "characters at most",
    "default": "by default",
}


def _curl(method: str, path: str, operation: Json, document: Json) -> str:
    """Return a command that makes the request."""
    lines = [f"curl -N -X {method.upper()} " + f"'http://127.0.0.1:8000{path.replace('{name}', 'demo')}'"]
    if operation["security"]:
        lines.append("-H 'Authorization: Bearer TOKEN'")
    parameters = operation.get("parameters", ())
    needed = (each["name"] for each in parameters if each["in"] == "header" and each["required"])
    lines += [f"-H '{name}: …'" for name in needed]
    content = operation.get("requestBody", {}).get("content", {})
    if "application/json" in content and len(content) == 1:
        example = _example(content["application/json"]["schema"], document)
        lines += ["-H 'Content-Type: application/json'", f"-d '{json.dumps(example, ensure_ascii=False)}'"]
    elif content:
        lines += [f"-H 'Content-Type: {next(iter(content))}'", "--data-binary @FILE"]
    return " \\\n  ".join(lines)


def _example(schema: Json, document: Json, depth: int = 4) -> Any:
    """Return the least that fits a schema, and what it has examples of."""
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if "examples" in schema:
        return schema["examples"][0]
    if branches := schema.get("anyOf") or schema.get("oneOf"):
        return _example(branches[0], document, depth)
    if "const" in schema or "enum" in schema or schema.get("default") is not None:
        return schema.get("default", schema.get("const", schema.get("enum", [None])[0]))
    if schema.get("type") == "object":
        fields, required = schema.get("properties", {}), schema.get("required", ())
        names = [name for name, each in fields.items() if depth and (name in required or "examples" in each)]
        return {name: _example(fields[name], document, depth - 1) for name in names}
    if schema.get("type") == "array":
        return [_example(schema.get("items", {}), document, depth - 1)] if schema.get("minItems") and depth else []
    plain = {"string": "…", "integer": max(0, schema.get("minimum", 0)), "number": 1, "boolean": True}
    return plain.get(str(schema.get("type")))


def _text(markdown: str) -> str:
    """Return paragraphs and lists as HTML."""
    return "".join(_blocks(markdown))


def _blocks(markdown: str) -> Iterator[str]:
    for block in re.split(r"\n\s*\n", markdown.strip()):
        if block.startswith("- "):
            items = re.split(r"\n- ", block[2:])
            yield "<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in items) + "</ul>"
        elif block:
            yield f"<p>{_inline(block)}</p>"


def _inline(text: str) -> str:
    found = re.sub(r"`+(.+?)`+", r"<code>\1</code>", escape(" ".join(text.split()), quote=False))
    return re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", found)
