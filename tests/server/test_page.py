"""The demo page: served where everybody is let in anyway, or somebody asked for it."""

import json

import pytest

from crdt_sessions.storage import MemoryStore
from crdt_sessions_server.service import Service
from crdt_sessions_server.settings import Settings
from tests.processes import command


@pytest.mark.parametrize(
    ("tokens", "asked", "served"),
    [(False, None, True), (False, False, False), (True, None, False), (True, True, True), (True, False, False)],
)
async def test_the_page_is_served_where_there_are_no_tokens_or_on_request(tmp_path, tokens, asked, served):
    file = tmp_path / "tokens.json"
    file.write_text(json.dumps({"t": {"principal": "ann"}}))
    settings = Settings(tokens_file=file if tokens else None, page=asked)
    client = Service(settings, store=MemoryStore()).app.test_client()
    for path in ("/", "/demo/app.js", "/demo/style.css", "/demo/icon.svg"):
        answer = await client.get(path)
        assert answer.status_code == (200 if served else 404), path
        if not served:
            assert "--page" in (await answer.get_json())["detail"]
    assert (await client.get("/healthz")).status_code == 200
    icon = await client.get("/favicon.ico")  # whatever a browser shows of the service, it asks for this
    assert (icon.status_code, icon.content_type) == (200, "image/svg+xml; charset=utf-8")


def test_the_command_line_switches_the_page():
    said = command("serve", "--help").stdout
    assert "--page" in said
    assert "--no-page" in said
