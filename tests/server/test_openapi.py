"""The OpenAPI document says of every route of the service what it takes, answers and asks for; and so does the page."""

import asyncio
import json
import re
from collections import Counter

import jsonschema
import pytest

from crdt_sessions.storage import MemoryStore
from crdt_sessions_server.auth.permissions import PUBLIC
from crdt_sessions_server.http.problems import TYPES
from crdt_sessions_server.service import Service
from crdt_sessions_server.settings import Settings
from tests.access.test_matrix import REQUESTS, filled
from tests.processes import ROOT

HERE = {"Host": "localhost"}
HOW = (
    "GET /openapi.json is made of the URL map. Give the route's function a docstring (its first line is the summary),"
    " @tag, and what the decorators of crdt_sessions_server/http/validation.py and describing.py beside it say of"
    " parameters, bodies and answers: @answers(200, {JSON: Model}), @answers(204), @takes, @reads, @refuses. A path"
    " parameter of a new name wants a line in openapi.py. Then run scripts/schemas.py"
)


@pytest.fixture
async def service():
    async with Service(Settings(sandbox=False, default_agent=""), store=MemoryStore()) as service:
        yield service


@pytest.fixture(scope="module")
def document():
    """The document as the service gives it: made once, since that takes a third of a second."""

    async def asked():
        async with Service(Settings(sandbox=False, default_agent=""), store=MemoryStore()) as service:
            answer = await service.app.test_client().get("/openapi.json", headers=HERE)
            assert answer.content_type == "application/json"
            return json.loads(await answer.get_data())

    return asyncio.run(asked())


def path_of(rule):
    return re.sub(r"<(?:[^:<>]+:)?(\w+)>", r"{\1}", rule.rule)


async def test_no_route_is_missing_and_none_says_too_little(service, document):
    for rule in service.app.url_map.iter_rules():
        where = f"{rule.rule} ({rule.endpoint}). {HOW}"
        if rule.websocket:
            assert f"`{path_of(rule)}`: " in document["info"]["description"], f"the WebSocket {where}"
            continue
        for method in rule.methods - {"HEAD", "OPTIONS"}:
            operation = document["paths"].get(path_of(rule), {}).get(method.lower())
            assert operation is not None, f"missing: {method} {where}"
            assert operation["summary"], f"no summary: {method} {where}"
            assert operation["tags"], f"no tag: {method} {where}"
            assert bool(operation["security"]) is (rule.endpoint not in PUBLIC), f"security: {method} {where}"
            answers = {status: each for status, each in operation["responses"].items() if status < "400"}
            assert answers, f"no answer that is none of a problem: {method} {where}"
            for status, answer in answers.items():
                assert bool(answer.get("content")) is (status not in ("202", "204", "304") or "content" in answer), (
                    where
                )
            problems = {status for status in operation["responses"] if status >= "400"}
            assert rule.endpoint in PUBLIC or {"401", "403", "429", "500", "503"} <= problems, f"problems: {where}"
            named = {each["name"]: each for each in operation.get("parameters", ())}
            for argument in rule.arguments:
                assert named[argument]["in"] == "path", f"parameter {argument}: {where}"
                assert named[argument]["description"] != f"The {argument}.", f"parameter {argument}: {where}"


async def test_every_path_of_the_document_exists(service, document):
    paths = {path_of(rule) for rule in service.app.url_map.iter_rules()}
    assert set(document["paths"]) <= paths
    typed = {"/v1/sessions/{name}/versions/{seq}/diff", "/v1/sessions/{name}/runs/{run}/steps/{key}"}
    assert typed <= set(document["paths"]), "what a converter stands for is kept"
    seq = document["paths"]["/v1/sessions/{name}/versions/{seq}"]["get"]["parameters"][1]
    assert (seq["name"], seq["schema"]["type"]) == ("seq", "integer")


def test_operations_have_ids_of_their_own_and_every_schema_is_used():
    text = (ROOT / "schemas/v1/openapi.json").read_text("utf-8")
    document = json.loads(text)
    ids = Counter(each["operationId"] for path in document["paths"].values() for each in path.values())
    assert [name for name, count in ids.items() if count > 1] == []
    assert all(re.fullmatch("[a-z][A-Za-z]+", name) for name in ids)
    used = set(re.findall(r'"#/components/schemas/([^"]+)"', text))
    assert used == set(document["components"]["schemas"])


def test_streams_and_bytes_are_told_as_what_they_are():
    paths = json.loads((ROOT / "schemas/v1/openapi.json").read_text("utf-8"))["paths"]

    def media(path, method, status="200"):
        return set(paths[path][method]["responses"][status]["content"])

    assert media("/v1/sessions/{name}/events", "get") == {
        "text/event-stream",
        "application/x-ndjson",
        "application/json",
    }
    for gateway in ("ai-sdk/chat", "ag-ui", "tanstack/{name}"):
        assert media(f"/v1/gateways/{gateway}", "post") == {"text/event-stream"}
    assert media("/v1/principals/{principal}/data", "get") == {"application/x-ndjson"}
    assert media("/v1/sessions/{name}/sync", "post") == {"application/octet-stream"}
    assert media("/v1/gateways/openai/models", "get", "403") == {"application/json"}, "as OpenAI spells errors"
    body = paths["/v1/sessions/{name}/runs/{run}/cancel"]["post"]["requestBody"]
    assert body["required"] is False
    assert paths["/v1/sessions/{name}/runs"]["post"]["requestBody"]["required"] is True


@pytest.mark.parametrize("endpoint", sorted(REQUESTS))
@pytest.mark.sampled(3)
async def test_what_a_route_answers_is_what_the_document_says(service, document, endpoint):
    """Once to good effect where a request can have it without preparation, once in vain."""
    method, path, body = REQUESTS[endpoint]
    (rule,) = [each for each in service.app.url_map.iter_rules() if each.endpoint == endpoint]
    operation = document["paths"][path_of(rule)][method.lower()]
    http = service.app.test_client()
    json_ = HERE | {"Content-Type": "application/json"}
    await http.post("/v1/sessions", headers=json_, data='{"id": "room"}')
    await http.post("/v1/sessions/room/messages", headers=json_, data='{"id": "q", "text": "?"}')
    await http.post("/v1/sessions/room/versions", headers=json_)
    await http.post("/v1/sessions/room/runs", headers=json_, data='{"id": "r", "messageId": "q", "agent": "x"}')
    claim = await http.post("/v1/sessions/room/runs/r/claim", headers=json_, data='{"agents": ["x"]}')
    lease = {"Lease-Token": json.loads(await claim.get_data())["token"]} if endpoint.startswith("leases.") else {}
    for room in ("room", "elsewhere"):
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(filled(body, room))
        kind = {"Content-Type": "application/octet-stream"} if isinstance(body, bytes) else json_
        async with http.request(path.replace("{room}", room), method=method, headers=HERE | kind | lease) as asked:
            if data is not None:
                await asked.send(data if isinstance(data, bytes) else data.encode())
            await asked.send_complete()
            first = await asked.receive()
            answered, headers = asked.status_code, asked.headers
            media = headers.get("Content-Type", "").partition(";")[0]
            await asked.disconnect()
        text = first + bytes(asked.response_data)
        said = operation["responses"].get(str(answered))
        assert said is not None, (answered, first, f"@answers or @refuses does not tell. {HOW}")
        told = said.get("content", {media})
        assert media in told or ("*/*" in told and not text), (answered, media)
        if media in told and media.endswith("json") and "ndjson" not in media and text:
            schema = {**said["content"][media]["schema"], "components": document["components"]}
            jsonschema.validate(json.loads(text), schema)


def balanced(page):
    open_ = []
    for end, name in re.findall(r"<(/?)([a-z0-9]+)[^>]*>", page):
        if name in ("meta", "link", "wbr"):
            continue
        if not end:
            open_.append(name)
        elif not open_ or open_.pop() != name:
            return False
    return open_ == [] and "i&gt;" not in re.sub(r"<[^>]*>", "", page) and "}i>" not in page


async def test_the_page_shows_every_route_without_scripts_or_assets_of_others(service, document):
    http = service.app.test_client()
    answer = await http.get("/docs", headers=HERE)
    page = (await answer.get_data()).decode()
    assert answer.content_type == "text/html; charset=utf-8"
    assert "script" not in answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert not re.search(r"<script|style=|https?://(?!127\.0\.0\.1:8000)", page)
    for path in document["paths"].values():
        for operation in path.values():
            assert f'id="{operation["operationId"]}"' in page
    assert balanced(page), "every element ends where it should"
    assert "-d &#x27;{&quot;text&quot;: &quot;Hello&quot;}&#x27;" in page
    links = set(re.findall(r'href="#([^"]+)"', page))
    assert links <= set(re.findall(r'id="([^"]+)"', page)), "no link leads nowhere"
    assert len(page.encode()) < 500_000
    style = await http.get("/docs/style.css", headers=HERE)
    assert style.content_type == "text/css; charset=utf-8"


def test_the_reference_lists_every_type_of_problem():
    text = (ROOT / "docs/reference/problems.md").read_text("utf-8")
    for each in TYPES:
        assert f"| `{each.slug}` | {each.status} | {each.title} | " in text, each
