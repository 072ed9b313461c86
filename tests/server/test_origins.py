"""Pages of other origins: one rule for HTTP and WebSockets, and what browsers are told."""

import asyncio
import re
from pathlib import Path

import httpx
import pytest
import websockets

from crdt_sessions.errors import AccessDenied
from crdt_sessions_server.gateways.conversation import RUN_HEADER, SESSION_HEADER
from crdt_sessions_server.http import origins as origins_module
from crdt_sessions_server.http.origins import Cors, Origins
from tests.processes import PATIENCE, Server, command

HOST = "127.0.0.1:8000"
VITE = "http://localhost:5173"


def scope(origin=None, host=HOST, method="GET", kind="http", **more):
    named = {"host": host, "origin": origin, **{name.replace("_", "-"): value for name, value in more.items()}}
    headers = [(name.encode(), value.encode()) for name, value in named.items() if value is not None]
    return {"type": kind, "method": method, "path": "/v1/sessions", "headers": headers}


def lets_in(origins, **request):
    try:
        origins.check(scope(**request))
    except AccessDenied:
        return False
    return True


@pytest.mark.parametrize(
    ("origin", "may"),
    [
        (None, True),
        (f"http://{HOST}", True),
        (VITE, True),
        ("https://localhost", True),
        ("http://127.0.0.1:3000", True),
        ("http://127.1.2.3:3000", True),
        ("http://[::1]:3000", True),
        ("http://app.localhost:3000", True),
        ("https://app.example", True),
        ("https://APP.example", True),
        ("https://app.example:8443", False),
        ("http://app.example", False),
        ("https://app.example.evil", False),
        ("https://evil.example", False),
        ("http://localhost.evil.example", False),
        ("http://evillocalhost", False),
        ("http://192.168.1.5:5173", False),
        ("file://localhost", False),
        ("null", False),
        ("", False),
        ("http://[", False),
    ],
)
def test_an_open_service_lets_in_pages_of_this_machine(origin, may):
    origins = Origins(["https://app.example/"], loopback=True)
    assert lets_in(origins, origin=origin) is may
    allowed = dict(origins.headers(scope(origin))).get(b"access-control-allow-origin")
    assert allowed == (origin.encode() if may and origin is not None else None), "who may ask, may read the answer"


def test_a_service_with_tokens_lets_in_its_own_pages_and_those_it_was_told_of():
    origins = Origins(["https://app.example", "http://localhost:5173"])
    for origin in ("https://app.example", VITE, "https://sessions.example", None):
        assert lets_in(origins, origin=origin, host="sessions.example"), origin
    for origin in ("http://localhost:5174", "https://other.example", "null"):
        assert not lets_in(origins, origin=origin, host="sessions.example"), origin


@pytest.mark.parametrize("host", ["evil.example", "192.168.1.5:8000", "", "[", "localhost.evil.example"])
def test_an_open_service_answers_to_names_of_this_machine_only(host, caplog):
    origins = Origins(loopback=True)
    for origin in (None, f"http://{host}", VITE):
        assert not lets_in(origins, origin=origin, host=host)
    (said,) = caplog.messages
    assert "--tokens-file" in said


@pytest.mark.parametrize(
    "origin", ["app.example", "*", "https://", "https://app.example/chat", "http://[", "http://a:b"]
)
def test_an_allowed_origin_that_is_none_is_refused_at_start(origin):
    with pytest.raises(ValueError, match="is no origin; one is a scheme and a host"):
        Origins([origin])


def test_a_refused_origin_is_logged_once_with_the_option_that_allows_it(caplog):
    origins = Origins()
    for _ in range(3):
        for kind in ("http", "websocket"):
            assert not lets_in(origins, origin=VITE, kind=kind)
    assert caplog.messages == [
        f"a page of the origin {VITE} was refused; to let it in, add the option --allowed-origins {VITE}"
    ]
    assert not lets_in(origins, origin="null")
    assert "serve the page over HTTP" in caplog.messages[-1]
    for number in range(1000):
        lets_in(origins, origin=f"https://{number}.example\x1b[1m")
    assert len(caplog.messages) == 100, "strangers do not fill the log"
    assert "\x1b" not in "".join(caplog.messages)


def test_a_preflight_allows_what_the_client_sends():
    origins = Origins(loopback=True)
    asked = "authorization,content-type,x-stainless-arch,x-stainless-lang"
    preflight = scope(
        VITE, method="OPTIONS", access_control_request_method="POST", access_control_request_headers=asked
    )
    told = dict(origins.preflight(preflight))
    assert told[b"access-control-allow-headers"] == asked.encode()
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        assert method.encode() in told[b"access-control-allow-methods"]
    odd = scope(VITE, method="OPTIONS", access_control_request_method="GET", access_control_request_headers="a b;c")
    assert b"Last-Event-ID" in dict(origins.preflight(odd))[b"access-control-allow-headers"]
    for other in (
        scope("https://evil.example", method="OPTIONS", access_control_request_method="POST"),
        scope(VITE, method="OPTIONS"),
        scope(VITE, method="POST", access_control_request_method="POST"),
    ):
        assert origins.preflight(other) is None


def test_scripts_may_read_every_header_that_routes_set():
    """Those that are not named are hidden from pages of other origins."""
    told = dict(Origins(loopback=True).headers(scope(VITE)))[b"access-control-expose-headers"].decode().lower()
    folder = Path(origins_module.__file__).parent
    source = "".join(path.read_text("utf-8") for path in folder.rglob("*.py"))
    named = set(re.findall(r'\.headers\["([\w-]+)"\] =', source)) | {RUN_HEADER, SESSION_HEADER, "Location"}
    for_others = {"Connection", "Sec-WebSocket-Protocol", "Content-Encoding", "Vary"}  # browsers', and caches'
    assert {name for name in named - for_others if name.lower() not in told.split(", ")} == set()


async def test_every_answer_says_that_it_depends_on_the_origin():
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 500, "headers": [(b"vary", b"Accept")]})
        await send({"type": "http.response.body", "body": b"broken"})

    async def send(message):
        sent.append(message)

    cors = Cors(app, Origins(loopback=True))
    for origin in (None, VITE, "https://evil.example"):
        sent.clear()
        await cors(scope(origin), None, send)
        headers = sent[0]["headers"]
        assert (b"vary", b"Accept") in headers
        assert (b"vary", b"Origin") in headers
        assert ((b"access-control-allow-origin", VITE.encode()) in headers) is (origin == VITE)
        assert sent[1]["body"] == b"broken"


# -- a service ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def open_service(tmp_path_factory):
    """A service without tokens."""
    server = Server(tmp_path_factory.mktemp("origins") / "s.db", "--default-agent", "")
    yield server
    server.close()


@pytest.fixture
def page(open_service):
    """What a page of a development server asks."""
    with open_service.http(headers={"Origin": VITE}) as http:
        yield http


def readable(answer):
    assert answer.headers["access-control-allow-origin"] == VITE, answer.text
    assert "Origin" in answer.headers["vary"]
    assert "access-control-allow-credentials" not in answer.headers, "there are no cookies to send along"
    return answer


def test_a_development_server_may_read_every_answer(page):
    preflight = page.options(
        "/v1/sessions",
        headers={"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"},
    )
    assert readable(preflight).status_code == 204
    assert preflight.headers["access-control-allow-headers"] == "content-type"
    assert readable(page.post("/v1/sessions", json={"id": "room"})).status_code == 201
    for method, path, body, status in (
        ("GET", "/v1/sessions/room", None, 200),
        ("GET", "/v1/sessions/nobody", None, 404),
        ("GET", "/v1/no/such/route", None, 404),
        ("PUT", "/v1/sessions", {}, 405),
        ("POST", "/v1/sessions", {"id": ["no", "name"]}, 422),
        ("GET", "/healthz", None, 200),
        ("GET", "/openapi.json", None, 200),
    ):
        answer = readable(page.request(method, path, json=body))
        assert answer.status_code == status, (path, answer.text)
    posted = readable(page.post("/v1/sessions/room/messages", json={"text": "hei"}))
    assert posted.status_code == 201


@pytest.mark.parametrize("path", ["/v1/sessions/flow/events", "/v1/gateways/ag-ui/flow"])
def test_a_development_server_may_follow_streams(page, path):
    page.post("/v1/sessions", json={"id": "flow"})
    with page.stream("GET", path, headers={"Accept": "text/event-stream"}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["access-control-allow-origin"] == VITE
        assert next(answer.iter_bytes())


@pytest.mark.parametrize(
    ("origin", "may"),
    [(VITE, True), ("http://app.localhost:1", True), ("https://evil.example", False), ("null", False)],
)
async def test_both_doors_follow_one_rule(open_service, origin, may):
    async with httpx.AsyncClient(base_url=open_service.url, timeout=PATIENCE) as http:
        answer = await http.get("/v1/sessions", headers={"Origin": origin})
        assert answer.status_code == (200 if may else 403)
        assert ("access-control-allow-origin" in answer.headers) is may
    ws = open_service.url.replace("http", "ws")
    if may:
        for path in ("/v1/sync/doors", "/v1/gateways/ai-sdk/chat"):
            async with websockets.connect(ws + path, origin=origin):
                pass
        return
    with pytest.raises(
        websockets.ConnectionClosed
    ) as closed:  # behind the accept, with a code that browsers are told
        async with websockets.connect(f"{ws}/v1/sync/doors", origin=origin) as socket:
            while True:
                await asyncio.wait_for(socket.recv(), PATIENCE)
    assert closed.value.rcvd.code == 4403
    with pytest.raises(websockets.InvalidStatus) as refused:
        await websockets.connect(f"{ws}/v1/gateways/ai-sdk/chat", origin=origin)
    assert refused.value.response.status_code == 403
    option = "serve the page" if origin == "null" else f"--allowed-origins {origin}"
    open_service.wait_for(option)
    assert sum(option in line for line in open_service.lines) == 1


def test_an_origin_that_is_none_ends_the_start(tmp_path):
    done = command("serve", "--database", tmp_path / "s.db", "--port", "0", "--allowed-origins", "app.example")
    assert done.returncode == 2
    assert "'app.example' is no origin" in done.stderr
