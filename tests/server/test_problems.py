"""Whatever is refused over HTTP is refused in words of ours: which problem it is, what happened, what to do next."""

import json
import re

import pytest
from pydantic import BaseModel

from crdt_sessions import errors
from crdt_sessions.storage import MemoryStore
from crdt_sessions_server.http.problem_documents import problem_for
from crdt_sessions_server.http.problems import OF_ERRORS, TYPES, URN, type_of
from crdt_sessions_server.service import Service
from crdt_sessions_server.settings import Settings
from tests.processes import PROBLEM
from tests.profiles import NIGHTLY

JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
HERE = {"Host": "localhost"}


@pytest.fixture(scope="module")
def anyio_backend():
    """One loop for all, and so one service: refusals change nothing in it."""
    return "asyncio"


@pytest.fixture(scope="module")
async def client(anyio_backend):
    async with Service(Settings(sandbox=False), store=MemoryStore()) as service:
        http = service.app.test_client()

        async def ask(method, path, data=None, headers=None):
            return await http.open(path, method=method, data=data, headers=HERE | (headers or {}))

        ask.rules = list(service.app.url_map.iter_rules())
        await ask("POST", "/v1/sessions", '{"id": "room"}', JSON)
        await ask("POST", "/v1/sessions/room/messages", '{"id": "q", "text": "?", "agent": "nobody"}', JSON)
        yield ask


def classes(kind):
    for each in kind.__subclasses__():
        yield each.__name__
        yield from classes(each)


def readable(text):
    """Whether people can read it: nothing of Python's or a framework's, nothing that is cut or doubled."""
    odd = r"^:|^\W*$|: :|Input should|<html|<p>|Traceback|Exception|manually|proxy|Expecting"
    internal = {
        name
        for name in (*classes(BaseModel), *classes(errors.CrdtSessionsError))
        if name[0] == "_" or re.search("[a-z][A-Z]", name)
    }
    return not re.search(odd, text) and not internal & set(re.findall(r"\w+", text))


async def refused(answer):
    """Check that an answer is a problem document, as everybody can read it; return it."""
    assert answer.content_type == "application/problem+json", (answer.status, await answer.get_data())
    problem = json.loads(await answer.get_data())
    assert problem["status"] == answer.status_code
    assert re.fullmatch(PROBLEM + "[a-z]+(-[a-z]+)*", problem["type"]), problem
    assert readable(problem["title"]), problem
    assert readable(problem["detail"]), problem
    assert problem["detail"].endswith("."), problem
    return problem


def test_types_have_slugs_of_their_own_and_say_what_to_do():
    slugs = [each.slug for each in TYPES]
    assert len(set(slugs)) == len(slugs)
    for each in TYPES:
        assert re.fullmatch("[a-z]+(-[a-z]+)*", each.slug), each
        assert 400 <= each.status < 600, each
        assert readable(each.title), each
        assert not each.title.endswith("."), each
        assert re.match("[A-Z].*[.]$", each.remedy), each
    assert URN == PROBLEM


def test_an_errors_facts_are_members_and_its_class_is_not_told():
    told = problem_for(errors.RunNotClaimable(run="r", status="queued"))
    assert told.status_code == 409
    assert type_of(errors.MalformedUpdate(size=3)) is OF_ERRORS[errors.UpdateError], "that of its parent"


@pytest.mark.parametrize(
    ("method", "path", "data", "headers", "slug", "detail"),
    [
        ("GET", "/v1/nothing", None, {}, "no-such-route 404", "there is no GET /v1/nothing. Look at /docs"),
        ("PUT", "/v1/sessions", "{}", JSON, "method-not-allowed 405", "there is no PUT /v1/sessions, but GET, HEAD"),
        ("GET", "/v1/sync/room", None, {}, "upgrade-required 426", "/v1/sync/room is a WebSocket. Connect with"),
        ("POST", "/v1/sessions", '{"id": "x",}', JSON, "malformed-json 400", "at line 1, column 12. Send JSON"),
        ("POST", "/v1/sessions", b'{"id": "\xff"}', JSON, "malformed-json 400", "not UTF-8: see its byte 8."),
        ("POST", "/v1/sessions", "id=x", FORM, "unsupported-media-type 415", "came as application/x-www-form-urlencoded, and this takes application/json."),
        ("POST", "/v1/sessions/room/import", "x", FORM, "unsupported-media-type 415", "this takes application/octet-stream or application/json or"),
        ("POST", "/v1/sessions/room/sync", "x", JSON, "unsupported-media-type 415", "this takes application/octet-stream."),
        ("POST", "/v1/sessions", "[]", JSON, "invalid-input 422", "the body should be a JSON object. Mend"),
        ("POST", "/v1/sessions", "null", JSON, "invalid-input 422", "the body should be a JSON object."),
        ("POST", "/v1/sessions", '{"nmae": "x"}', JSON, "invalid-input 422", "nmae is no field of this."),
        ("POST", "/v1/sessions/room/runs", "", {}, "invalid-input 422", "messageId is missing."),
        ("GET", "/v1/sessions?limit=x", None, {}, "invalid-input 422", "limit should be a valid integer"),
        ("GET", "/v1/sessions?nope=1", None, {}, "invalid-input 422", "nope is no field of this."),
        (
            "POST", "/v1/sessions/room/messages", '{"parts": [{"type": "tool"}, {"type": "text", "text": 3}]}', JSON,
            "invalid-input 422", "parts.0.toolCallId is missing; parts.0.toolName is missing.",
        ),
        (
            "POST", "/v1/sessions/room/messages", '{"parts": [{"type": "song"}, 3]}', JSON,
            "invalid-input 422", "parts.0 should have as 'type' one of 'text', 'reasoning', ",
        ),
        ("POST", "/v1/revocations", "{}", JSON, "invalid-input 422", "the body give either tokenId or principal"),
        ("POST", "/v1/gateways/ag-ui", '{"threadId": "x"}', JSON, "invalid-input 422", "runId is missing"),
        ("POST", "/v1/gateways/tanstack/room/send", "{", JSON, "malformed-json 400", "at line 1, column 2"),
        ("POST", "/v1/sessions/room/import", "{", JSON, "bad-document 422", "it is no JSON. Send what GET"),
        ("POST", "/v1/sessions/new/import", '{"meta": 1}', JSON, "bad-document 422", "not a session export: meta should be a JSON object."),
        ("GET", "/v1/sessions/other", None, {}, "session-not-found 404", "there is no session 'other'. Check the name"),
        ("GET", "/v1/sessions/room/runs/x", None, {}, "not-found 404", "there is no run 'x'. Check the id"),
        ("POST", "/v1/sessions", "x" * 17_000_000, JSON, "too-large 413", "the body exceeds the limit of"),
    ],
)  # fmt: skip
async def test_what_is_refused_says_which_problem_it_is_and_what_to_do(
    client, method, path, data, headers, slug, detail
):
    answer = await client(method, path, data, headers)
    problem = await refused(answer)
    assert f"{problem['type'].removeprefix(PROBLEM)} {answer.status_code}" == slug
    assert detail in problem["detail"], problem


async def test_a_method_that_is_not_allowed_is_told_with_those_that_are(client):
    answer = await client("PUT", "/v1/sessions")
    assert {"GET", "POST"} <= set(answer.headers["Allow"].split(", "))


async def told(rule, answer):
    """Check that an answer refuses in the form that clients of the route read."""
    if rule.endpoint.startswith("openai."):
        error = json.loads(await answer.get_data())["error"]
        assert readable(error["message"]), error
        assert re.fullmatch("[a-z]+(_[a-z]+)*", error["code"]), error
    elif rule.endpoint in ("ai-sdk.send", "ai-sdk.resume"):
        assert answer.content_type == "text/plain; charset=utf-8"
        assert readable((await answer.get_data()).decode()), rule
    elif rule.endpoint.startswith("mcp.") and answer.content_type == JSON["Content-Type"]:
        error = json.loads(await answer.get_data())["error"]  # JSON-RPC, in the words of the library
        assert isinstance(error["code"], int)
        assert error["message"]
    else:
        await refused(answer)


@pytest.mark.slow
async def test_no_route_answers_anything_else_to_nonsense(client):
    """Every route that is there, with a body that is none, of another kind, or of another form.

    Before the nightly profile a route gets each third of the bodies, the next one the ones beside them.
    """
    asked = 0
    bodies = [
        (b"{", JSON),
        (b"a=b", FORM),
        (b"[]", JSON),
        (b'{"nonsense": {"a": 1}}', JSON),
        (b"\xff", JSON),
        (b"", {}),
    ]
    for number, rule in enumerate(client.rules):
        given = bodies if NIGHTLY else bodies[number % 3 :: 3]
        if rule.endpoint in ("ag-ui.join", "ai-sdk.resume", "tanstack.subscribe", "events.stream_events"):
            continue  # they go on
        for method in rule.methods - {"HEAD", "OPTIONS"}:
            for data, headers in given if method in ("POST", "PUT", "PATCH") else [(None, {})]:
                path = re.sub(r"<int:\w+>", "7", re.sub(r"<(?:\w+:)?name>", "elsewhere", rule.rule))
                answer = await client(method, re.sub(r"<(?:\w+:)?\w+>", "x", path), data, headers)
                if answer.status_code < 400:
                    continue
                asked += 1
                assert answer.status_code != 500, (rule, data)
                await told(rule, answer)
    assert asked > 100


async def test_use_chat_is_told_in_words_and_programs_are_told_which_problem_it_is(client):
    path = "/v1/gateways/ai-sdk/chat"
    answer = await client("POST", path, '{"id": "x\\n"}', JSON)
    assert answer.status_code == 422
    assert (await answer.get_data()).decode().startswith("a session's name is 1 to 200 characters")
    assert answer.headers["X-Problem-Type"] == PROBLEM + "bad-session-id"
    problem = await refused(
        await client("POST", path, '{"id": "x\\n"}', JSON | {"Accept": "application/problem+json"})
    )
    assert problem["type"] == PROBLEM + "bad-session-id"


async def test_openais_clients_are_told_as_openai_tells_them(client):
    answer = await client("POST", "/v1/gateways/openai/chat/completions", "{", JSON)
    error = json.loads(await answer.get_data())["error"]
    assert (answer.status_code, error["code"], error["type"]) == (400, "malformed_json", "invalid_request_error")
    answer = await client(
        "POST", "/v1/gateways/openai/chat/completions", '{"messages": [{"role": "user", "content": 3}]}', JSON
    )
    error = json.loads(await answer.get_data())["error"]
    assert (answer.status_code, error["param"]) == (422, "messages.0.content")


@pytest.mark.parametrize(("data", "headers"), [(None, {}), ("", JSON), ("{}", JSON), ("{}", {})])
async def test_to_press_stop_takes_no_body(client, data, headers):
    answer = await client("POST", "/v1/sessions/room/runs/run-q/cancel", data, headers)
    run = json.loads(await answer.get_data())
    assert (answer.status_code, run["status"]) == (200, "cancelled"), run


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/sessions", 201), ("PUT", "/v1/sessions/room/receipt", 200), ("POST", "/v1/sessions/room/versions", 201),
        ("PATCH", "/v1/sessions/room", 200), ("POST", "/v1/gateways/ai-sdk/chat/room/stop", 200),
    ],
)  # fmt: skip
async def test_no_body_is_needed_where_nothing_must_be_said(client, method, path, status):
    assert (await client(method, path)).status_code == status


async def test_a_token_in_the_query_stands_beside_other_parameters(client):
    for path in (
        "/v1/sessions?limit=1",
        "/v1/sessions/room/messages?after=0",
        "/v1/sessions/room/export?format=json",
    ):
        assert (await client("GET", f"{path}&token=any")).status_code == 200, path
