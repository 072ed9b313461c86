"""Writes docs/reference/python.md and embedding.md from docstrings and signatures. ``make schemas`` runs it.

Only names that users are to use are in them; the lists below say which, and a test sees that none is forgotten.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import griffe

ROOT = Path(__file__).parent.parent

PAGES: dict[str, tuple[str, str, dict[str, list[str]]]] = {
    "python.md": (
        "Python: peers, agents, bridges",
        "What programs use that take part in sessions: `pip install crdt-sessions`."
        " [Embedding](embedding.md) has what serves them. All times are milliseconds since the Unix epoch, unless a"
        " name ends in `_s` (seconds).",
        {
            "Taking part": ["connect", "client.session.SessionPeer", "client.messages.FollowedMessages"],
            "Answering": [
                "client.agent.Agent", "client.run.AgentRun", "client.child.ChildRun",
                "client.stream.TextStream", "client.tool_calls.ToolCall",
                "client.artifact_editor.ArtifactEditor", "client.insertion.Insertion", "client.stream.MessageStream",
                "client.toolbox.RunTools", "client.toolbox.ToolSource",
            ],
            "Bridges from model libraries": [
                "bridges.openai.write_chat", "bridges.openai.write_response", "bridges.anthropic.write",
                "bridges.langchain.write", "bridges.pydantic_ai.write", "bridges.deltas.write",
                "bridges.deltas.Delta", "bridges.openai.parameters", "bridges.openai.response_parameters",
                "bridges.anthropic.parameters", "bridges.langchain.bound", "bridges.pydantic_ai.parameters",
                "bridges.mcp.Server",
            ],
            "Looking back": ["client.history.Past", "client.history.KeptVersion"],
            "What is in a session": [
                "model.session.SessionView", "model.values.Message", "model.values.Author", "model.parts.TextPart",
                "model.parts.ToolPart", "model.parts.ValuePart", "model.decisions.Approval", "model.run_values.Run",
                "model.run_values.RunOutcome", "model.inputs.RunInput", "model.inputs.ToolSpec",
                "model.inputs.ContextItem", "model.schedules.Schedule",
                "model.values.Presence", "model.values.SessionExport",
            ],
        },
    ),
    "embedding.md": (
        "Python: embedding",
        "What a server of your own uses; [embed sessions](../how-to/embed.md) has a whole one."
        " What programs use that take part is on [another page](python.md).",
        {
            "Serving": [
                "runtime.registry.SessionRegistry", "runtime.session.Session", "runtime.presence.SessionPresence",
                "runtime.access.Access", "runtime.channel.Channel", "runtime.sandbox.Sandbox",
                "runtime.versions.Versions", "runtime.webhooks.Webhook", "ids.session_id", "ids.name_of",
                "wire.closing.Closing",
            ],
            "Stores": [
                "storage.base.UpdateStore", "storage.log.SessionLog", "storage.lists.SessionIndex",
                "storage.runs.RunIndex", "storage.deliveries.Deliveries", "storage.access.AccessRecords",
                "storage.audit.AuditRecords", "storage.sqlite.SqliteStore", "storage.memory.MemoryStore",
            ],
            "Numbers": [
                "limits.Limits", "limits.InputLimits", "limits.ScheduleLimits", "limits.ChildLimits",
                "limits.Timing", "limits.Compaction", "limits.Retention",
                "limits.RunRules",
            ],
        },
    ),
}  # fmt: skip

_WITH_A_PLACE = {"crdt_sessions.storage." + name for name in (
    "log.SessionLog", "lists.SessionIndex", "runs.RunIndex", "deliveries.Deliveries", "access.AccessRecords",
    "audit.AuditRecords",
)}  # fmt: skip
_ROLE = re.compile(r":\w+:`~?\.?(?:[\w.]+\.)?(\w+)`")
_EXAMPLE = '```python not-run="an example of a docstring; README and the how-tos have whole programs"'


def package() -> griffe.Module:
    """Return what is read of the library's source."""
    loaded = griffe.load("crdt_sessions", search_paths=[str(ROOT)], resolve_aliases=True, resolve_external=False)
    assert isinstance(loaded, griffe.Module)
    return loaded


def generate() -> dict[str, str]:
    """Return file name to content."""
    source = package()
    return {
        name: "\n".join(_page(source, title, words, sections)) + "\n"
        for name, (title, words, sections) in PAGES.items()
    } | {"errors.md": "\n".join(_errors(source)) + "\n"}


def described(source: griffe.Module) -> Iterator[griffe.Object]:
    """Yield every class and function that the pages describe, and their public members."""
    for _, _, sections in PAGES.values():
        for path in (path for paths in sections.values() for path in paths):
            found = _find(source, path)
            yield found
            if isinstance(found, griffe.Class):
                yield from members(found)


def members(found: griffe.Class) -> Iterator[griffe.Object]:
    """Yield the public methods, properties and documented fields of a class, and those it inherits from ours.

    Those of a Protocol with a place of its own on the pages are described there.
    """
    for name, member in {**found.inherited_members, **found.members}.items():
        if name.startswith("_") or not member.path.startswith("crdt_sessions."):
            continue
        target = member.final_target if isinstance(member, griffe.Alias) else member
        words = target.docstring.value if target.docstring is not None else ""
        if words.startswith("See :") or (not words and _implements(target)):
            continue  # a protocol describes it
        if target.parent is not found and target.parent.path in _WITH_A_PLACE:
            continue
        if isinstance(target, griffe.Function) or words or _is_field(target):
            yield target


def _implements(member: griffe.Object) -> bool:
    """Whether a base of its class has a member of that name with a docstring."""
    owner = member.parent
    bases = owner.mro() if isinstance(owner, griffe.Class) else []
    return any(member.name in base.members and base.members[member.name].docstring for base in bases)


def _find(source: griffe.Module, path: str) -> griffe.Object:
    found = source[path]
    return found.final_target if isinstance(found, griffe.Alias) else found


def _is_field(member: griffe.Object) -> bool:
    """Whether it is a field of a dataclass or a model, rather than what a constructor sets."""
    if not isinstance(member, griffe.Attribute) or "property" in member.labels or member.annotation is None:
        return False
    return "class-attribute" in member.labels or member.value is None


def _page(source: griffe.Module, title: str, words: str, sections: dict[str, list[str]]) -> Iterator[str]:
    yield from (
        f"# {title}",
        "",
        words,
        "",
        "Made from the source's docstrings by `scripts/python_reference.py`.",
        "",
    )
    for heading, paths in sections.items():
        yield from (f"## {heading}", "")
        for path in paths:
            yield from _described(_find(source, path))


def _described(found: griffe.Object) -> Iterator[str]:
    imported = f"`from {_door(found)} import {found.name}`"
    name = found.name
    if ".bridges." in found.path:  # several have one name
        imported = "`from crdt_sessions import bridges`"
        name = found.path.removeprefix("crdt_sessions.").replace(".deltas.", ".")
    if isinstance(found, griffe.Class):
        made = [parameter for parameter in found.parameters if parameter.name != "self"]
        yield from (f"### `{name}`", "", imported, "")
        yield from _docstring(found, made)
        shown = list(members(found))
        yield from _fields([each for each in shown if isinstance(each, griffe.Attribute) and _is_field(each)])
        for member in shown:
            if not _is_field(member):
                yield from _member(member)
    elif isinstance(found, griffe.Function):
        yield from (f"### `{_signature(found, name)}`", "", imported, "")
        yield from _docstring(found, list(found.parameters))


def _fields(fields: list[griffe.Attribute]) -> Iterator[str]:
    if not fields:
        return
    yield from ("| field | type | default | meaning |", "|---|---|---|---|")
    for each in fields:
        kind = _cell(each.annotation)
        default = _cell(each.value) if each.value is not None else ""
        words = _line(each.docstring.value) if each.docstring is not None else ""
        if isinstance(each.value, griffe.ExprCall) and str(each.value.function) == "_bound":
            first, text, *_ = each.value.arguments
            default, words = _cell(first), _line(ast.literal_eval(str(text)))
        yield f"| `{each.name}` | {kind} | {default} | {words} |"
    yield ""


def _cell(expression: object) -> str:
    return f"`{expression}`".replace("|", "\\|")


def _member(member: griffe.Object) -> Iterator[str]:
    if isinstance(member, griffe.Function):
        yield from (f"#### `{_signature(member, member.name)}`", "")
        yield from _docstring(member, [each for each in member.parameters if each.name not in ("self", "cls")])
    else:
        annotation = getattr(member, "annotation", None)
        yield from (f"#### `{member.name}`" + (f": `{annotation}`" if annotation is not None else ""), "")
        yield from _docstring(member, [])


def _signature(function: griffe.Function, shown: str) -> str:
    parts, starred = [], False
    for each in function.parameters:
        if each.name in ("self", "cls"):
            continue
        kind = str(each.kind.value)
        if kind == "keyword-only" and not starred:
            parts.append("*")
            starred = True
        starred = starred or kind == "variadic positional"
        name = {"variadic positional": "*", "variadic keyword": "**"}.get(kind, "") + each.name
        has_default = each.default is not None and not name.startswith("*")
        parts.append(f"{name}={each.default}" if has_default else name)
    returns = f" -> {function.returns}" if function.returns is not None and str(function.returns) != "None" else ""
    return f"{'async ' if 'async' in function.labels else ''}{shown}({', '.join(parts)}){returns}"


def _door(found: griffe.Object) -> str:
    """Return the shortest module that offers a name."""
    module = found.module.path
    best = module
    while "." in module:
        module = module.rpartition(".")[0]
        offered = _MODULES.get(module)
        if offered is None:
            offered = _MODULES.setdefault(module, _exports(module))
        if found.name in offered:
            best = module
    return best


_MODULES: dict[str, set[str]] = {}


def _exports(module: str) -> set[str]:
    path = ROOT / module.replace(".", "/") / "__init__.py"
    if not path.exists():
        return set()
    listed = re.search(r"__all__ = \[(.*?)\]", path.read_text("utf-8"), re.S)
    return set(re.findall(r'"(\w+)"', listed[1])) if listed is not None else set()


def _docstring(found: griffe.Object, parameters: list[griffe.Parameter]) -> Iterator[str]:
    if found.docstring is None:
        return
    for section in found.docstring.parse("google", warnings=False):
        if section.kind is griffe.DocstringSectionKind.text:
            yield from (_text(section.value), "")
        elif section.kind is griffe.DocstringSectionKind.parameters:
            types = {each.name: each for each in parameters}
            yield from ("| argument | type | meaning |", "|---|---|---|")
            for each in section.value:
                annotation = types[each.name].annotation if each.name in types else None
                cell = _cell(annotation) if annotation is not None else ""
                yield f"| `{each.name}` | {cell} | {_line(each.description)} |"
            yield ""
        elif section.kind is griffe.DocstringSectionKind.raises:
            yield from ("Raises:", "")
            yield from (f"* `{each.annotation}`: {_line(each.description)}" for each in section.value)
            yield ""


def _text(text: str) -> str:
    """Return reStructuredText as Markdown: roles, literals and literal blocks, which is all that docstrings have."""
    lines: list[str] = []
    literal = False
    for line in text.split("\n"):
        if literal and line.strip() and not line.startswith(" "):
            lines += ["```", ""]
            literal = False
        if line.endswith("::"):
            lines += [*([line[:-1], ""] if line.strip() != "::" else []), _EXAMPLE]
            literal = True
        elif literal:
            if lines[-1] != _EXAMPLE or line.strip():
                lines.append(line.removeprefix("    "))
        else:
            lines.append(_line(line))
    if literal:
        lines.append("```")
    return "\n".join(lines).replace("\n\n```\n", "\n```\n").replace("\n\n```\n", "\n```\n")


def _line(text: str) -> str:
    return _ROLE.sub(r"`\1`", " ".join(text.split())).replace("``", "`")


def _errors(source: griffe.Module) -> Iterator[str]:
    module = source["errors"]
    tree = module.docstring.value.split("::\n\n", 1)[1].split("\n\nErrors carry", 1)[0]
    lines = [line.removeprefix("    ") for line in tree.split("\n")]
    yield from ("# Errors", "", "What the library raises, all of it from `crdt_sessions.errors`, in one tree:", "")
    yield from ("```text", *lines, "```", "")
    yield from (
        "Errors carry their facts as attributes; the sentence is derived from them."
        " How they look outside: [close codes](../protocol.md#close-codes),"
        " [troubleshooting](../how-to/troubleshooting.md).",
        "",
    )  # fmt: skip
    in_the_tree = re.findall(r"^[^\w\n]*(\w+)", tree, re.M)
    for name in dict.fromkeys([*in_the_tree, *map(str, module.exports or ())]):
        found = module[name].final_target
        yield from (f"## `{name}`", "")
        yield from _docstring(found, list(found.parameters))
        facts = [each.name for each in _facts(found)]
        if facts:
            yield from (f"Attributes: {', '.join(f'`{fact}`' for fact in facts)}.", "")


def _facts(found: griffe.Class) -> Iterator[griffe.Attribute]:
    for name, member in {**found.inherited_members, **found.members}.items():
        target = member.final_target if isinstance(member, griffe.Alias) else member
        if (
            isinstance(target, griffe.Attribute)
            and not name.startswith("_")
            and "instance-attribute" in target.labels
        ):
            yield target


if __name__ == "__main__":
    for name, content in generate().items():
        (ROOT / "docs/reference" / name).write_text(content, "utf-8")
