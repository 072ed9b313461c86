"""Writes docs/reference, tables and the Python interface, from the code. `make schemas` runs it."""

from __future__ import annotations

import re
from pathlib import Path

from crdt_sessions.storage import MemoryStore
from crdt_sessions_server.arguments import choices_of
from crdt_sessions_server.auth import PERMISSIONS, Permission, Role, permissions
from crdt_sessions_server.auth.permissions import PUBLIC, ROUTES
from crdt_sessions_server.explain import listed
from crdt_sessions_server.http.problems import TYPES, URN
from crdt_sessions_server.service import Service
from crdt_sessions_server.settings import GROUPS, Settings
from scripts import python_reference

FOLDER = Path(__file__).parent.parent / "docs/reference"

_INTRODUCTION = """\
# Permissions

What a principal may do is its *role*, as its token says, or as the session says where it gives one (`PUT /v1/sessions/<id>/members/<principal>`).
A test goes through every cell of these tables, over every protocol.
"""  # noqa: E501
_ROLES = """\
**owner** is somebody whose session it is, **editor** takes part, **viewer** looks on and shows presence, **agent** works on runs and does not decide what it asks people, **service** is a backend of the tenant, which speaks for its users.

On the sync protocol everybody who may read gets the document and shows presence.
A write without `write` closes the connection with 4403; what needs `post` (a request of a run), `decide` or `cancel` is put back.
A viewer's or an agent's connection creates no session.
Holders of a run need `claim` and the lease's token; `agents` of the token says as which agents one may work.
"""  # noqa: E501
_END = """\
`POST …/import` into a session that exists also asks for `write`; decisions through a gateway for `decide`; somebody else's data for `admin`; the old versions of a session are read with `read`.
Health, the OpenAPI document with its page and the demo page need no token.
"""  # noqa: E501


def permissions_page() -> str:
    """Return docs/reference/permissions.md."""
    source = Path(permissions.__file__).read_text("utf-8")
    means = dict(re.findall(r'    (\w+) = "\w+"\n    """(.*?)"""', source, re.S))
    table = [f"| permission | means | {' | '.join(Role)} |", "|---|---|" + "---|" * len(Role)]
    for permission in Permission:
        cells = " | ".join("yes" if permission in PERMISSIONS[role] else "" for role in Role)
        table.append(f"| `{permission}` | {means[permission.name]} | {cells} |")
    routes = []
    for rule in Service(Settings(), store=MemoryStore()).app.url_map.iter_rules():
        if rule.endpoint in ROUTES and rule.endpoint not in PUBLIC:
            method = "WEBSOCKET" if rule.websocket else min((rule.methods or set()) - {"HEAD", "OPTIONS"})
            path = re.sub(r"<(?:\w+:)?(\w+)>", r"<\1>", rule.rule)
            routes.append((path, method, ROUTES[rule.endpoint] or "anybody known"))
    listed = ["## Routes", "", "| route | asks for |", "|---|---|"]
    listed += [f"| `{method} {path}` | {needs} |" for path, method, needs in sorted(routes)]
    return "\n".join([_INTRODUCTION, *table, "", _ROLES, *listed, "", _END])


def settings_page(page: str) -> str:
    """Return docs/reference/settings.md, which is *page*, with the tables as they should be."""
    tables: list[str] = []
    for name, field in Settings.model_fields.items():
        if name in GROUPS:
            tables += ["", f"## {GROUPS[name]}", "", "| setting | default | meaning |", "|---|---|---|"]
        default = "none" if field.default in (None, (), {}) else f"`{field.default}`"
        choices = f" It is {listed(found)}." if (found := choices_of(field)) else ""
        tables.append(f"| `{name}` | {default} | {field.description}{choices} |")
    begin, end = page.index("\n## "), page.index("\n## Files and variables")
    return page[:begin] + "\n".join(tables) + "\n" + page[end:]


_PROBLEMS = f"""\
# Problems

Whatever the service refuses over HTTP it answers with a problem document ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457), `application/problem+json`):

```json not-run="what the service answers, shortened to one case"
{{
  "type": "{URN}session-not-found",
  "title": "No such session",
  "status": 404,
  "detail": "there is no session 'trip'. Check the name, which is percent-encoded in a path, or make the session with POST /v1/sessions.",
  "session": "trip"
}}
```

`type` is for programs: `{URN}` and a slug, which does not change. `detail` is for people: what happened, and what to do next. Further members are facts of this occurrence; `errors` names fields that do not fit.

Status 429 and 503 come with `Retry-After`, 401 with `WWW-Authenticate`, 405 with `Allow`.

OpenAI's clients get `{{"error": {{"message", "type", "param", "code"}}}}`, where `code` is the slug with underscores, but for `invalid_api_key` (401), `rate_limit_exceeded` (429) and `model_not_found`. `useChat` of the AI SDK shows the body as it is, so it gets the `detail` as text, with the type in the header `X-Problem-Type`; `Accept: application/problem+json` brings the document.

"""  # noqa: E501


def problems_page() -> str:
    """Return docs/reference/problems.md."""
    table = ["| slug | status | meaning | what to do |", "|---|---|---|---|"]
    listed = sorted(TYPES, key=lambda each: (each.status, each.slug))
    table += [
        f"| `{each.slug}` | {each.status} | {each.title} | {each.remedy.replace('<', '&lt;')} |" for each in listed
    ]
    return _PROBLEMS + "\n".join(table) + "\n"


def generate() -> dict[str, str]:
    """Return file name to content."""
    page = (FOLDER / "settings.md").read_text("utf-8")
    tables = {
        "permissions.md": permissions_page(),
        "problems.md": problems_page(),
        "settings.md": settings_page(page),
    }
    return tables | python_reference.generate()


if __name__ == "__main__":
    for name, content in generate().items():
        (FOLDER / name).write_text(content, "utf-8")
    print(f"wrote {FOLDER}")
