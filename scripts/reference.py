"""Writes what docs/reference says of permissions and settings, from the code. `make schemas` runs it."""

from __future__ import annotations

import re
from pathlib import Path

from crdt_sessions.storage import MemoryStore
from crdt_sessions_server.access import PERMISSIONS, Permission, Role, permissions
from crdt_sessions_server.access.permissions import PUBLIC, ROUTES
from crdt_sessions_server.app import Service
from crdt_sessions_server.settings import Settings

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
Health, the OpenAPI document and the demo page need no token.
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
    """Return docs/reference/settings.md, which is *page*, with the table as it should be."""
    table = ["| setting | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "none" if field.default in (None, (), {}) else f"`{field.default}`"
        table.append(f"| `{name}` | {default} | {field.description} |")
    begin = page.index("| setting |")
    return page[:begin] + "\n".join(table) + page[page.index("\n\n", begin) :]


def generate() -> dict[str, str]:
    """Return file name to content."""
    page = (FOLDER / "settings.md").read_text("utf-8")
    return {"permissions.md": permissions_page(), "settings.md": settings_page(page)}


if __name__ == "__main__":
    for name, content in generate().items():
        (FOLDER / name).write_text(content, "utf-8")
    print(f"wrote {FOLDER}")
