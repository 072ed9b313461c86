"""The edges of the service: TLS, secrets, the command that makes tokens, headers, CORS, sessions that expire."""

import asyncio
import contextlib
import json
import re
import shutil
import ssl
import sys
import time
from fnmatch import fnmatchcase

import httpx
import jwt
import pytest
import websockets
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import example, given
from hypothesis import strategies as st

from crdt_sessions import connect
from crdt_sessions.errors import AccessDenied, StoreUnavailable, TooMany
from crdt_sessions.ids import Millis, session_id
from crdt_sessions.model import seed
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions.storage import MemoryStore
from crdt_sessions.streams.changes import Creation
from crdt_sessions.testing import FakeClock, settle
from crdt_sessions_server.auth import patterns_within
from crdt_sessions_server.auth.rate_limits import Buckets, Rate
from crdt_sessions_server.ops.expiry import expire, expire_once, sweep
from crdt_sessions_server.settings import Settings
from tests.access.conftest import SECRET, bearer, guarded, token
from tests.processes import PATIENCE, ROOT, Process, Server, command

# -- tokens and secrets ------------------------------------------------------------------------------------------------


def test_the_command_makes_tokens_that_the_service_takes(tmp_path, service):
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET + b"\n")
    made = command(
        "token", "ann", "--role", "viewer", "--name", "Ann", "--sessions", "trip-*", "home", "--ttl", "15m",
        "--secret-file", secret,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    claims = jwt.decode(made.stdout.strip(), SECRET, algorithms=["HS256"])
    assert claims["exp"] - claims["iat"] == 900
    with service.http(headers={"Authorization": f"Bearer {made.stdout.strip()}"}) as http:
        me = http.get("/v1/me").json()
        assert (me["principal"], me["name"], me["role"], me["permissions"]) == ("ann", "Ann", "viewer", ["read"])
        assert http.get("/v1/sessions/other").status_code == 403
    from_env = command("token", "ann", CRDT_SESSIONS_JWT_SECRET=SECRET.decode())
    assert jwt.decode(from_env.stdout.strip(), SECRET, algorithms=["HS256"])["sub"] == "ann"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "there is no secret to sign with: give --secret-file"),
        (("--secret-file", "/nonexistent/secret"), "secret file: there is no folder /nonexistent"),
        (("--secret-file", "{short}"), "make one with: openssl rand -base64 48"),
        (("--secret-file", "{secret}", "--ttl", "soon"), "'soon' is no duration; give one such as 90s, 15m"),
    ],
)
def test_the_command_says_what_to_do(tmp_path, arguments, said):
    (tmp_path / "short").write_text("short")
    (tmp_path / "secret").write_bytes(SECRET)
    paths = {"short": tmp_path / "short", "secret": tmp_path / "secret"}
    refused = command("token", "ann", *(each.format(**paths) for each in arguments))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert said in refused.stderr


def test_a_secret_is_never_given_on_the_command_line(tmp_path):
    assert "--jwt-secret-file" in (help := command("serve", "--help").stdout)
    assert "--jwt-secret " not in help
    refused = command("serve", "--jwt-secret", "x" * 40)
    assert refused.returncode == 2
    short = command("serve", "--database", tmp_path / "s.db", CRDT_SESSIONS_JWT_SECRET="short")
    assert (short.returncode, "needs 32" in short.stderr) == (2, True)
    assert "short" not in short.stderr.replace("make one", "")
    hidden = command("serve", "--port", "x", CRDT_SESSIONS_JWT_SECRET=SECRET.decode())
    assert SECRET.decode() not in hidden.stderr


def test_tokens_are_made_over_http_for_ones_own_tenant(service):
    with service.http(headers=bearer("backend", "service", tenant="acme")) as http:
        made = http.post("/v1/tokens", json={"principal": "bob", "role": "viewer", "ttlS": 60, "sessions": ["a-*"]})
        assert made.status_code == 201
        mine = {"Authorization": f"Bearer {made.json()['token']}"}
        me = http.get("/v1/me", headers=mine).json()
        assert (me["principal"], me["role"], me["tenant"]) == ("bob", "viewer", "acme")
        assert me["expiresAt"] <= (time.time() + 66) * 1000
        assert http.post("/v1/tokens", json={"principal": "eve"}, headers=mine).status_code == 403
        assert http.post("/v1/tokens", json={"principal": "x", "tenant": "umbrella"}).status_code == 422
        assert http.post("/v1/tokens", json={"principal": "x", "ttlS": 10**9}).status_code == 422
        assert http.post("/v1/revocations", json={}).status_code == 422
        assert http.post("/v1/revocations", json={"tokenId": "x", "principal": "y"}).status_code == 422
        audit = http.get("/v1/audit", params={"action": "token.mint"}).json()["entries"]
        assert audit[-1]["detail"] == {"of": "bob", "role": "viewer"}


def test_a_token_for_some_sessions_makes_none_for_others_nor_for_longer(service):
    own = bearer("backend", "service", sessions=["mine/*", "a?"], agents=["writer"], ttl_s=600)
    with service.http(headers=own) as http:

        def made(**wanted):
            return http.post("/v1/tokens", json={"principal": "bob", **wanted})

        def claims(answer):
            return jwt.decode(answer.json()["token"], options={"verify_signature": False})

        inherited = claims(made())
        assert (inherited["sessions"], inherited["agents"]) == (["mine/*", "a?"], ["writer"])
        assert inherited["exp"] <= time.time() + 600
        assert claims(made(sessions=["mine/x-*", "ab"], agents=["writer"], ttlS=60))["sessions"] == ["mine/x-*", "ab"]
        for more in ({"sessions": ["*"]}, {"sessions": ["mine/x", "yours"]}, {"agents": ["w*"]}, {"ttlS": 700}):
            refused = made(**more)
            assert (refused.status_code, "this token is" in refused.json()["detail"]) == (403, True), more
        asked = http.post("/v1/y-sweet/doc/mine%2Fx/auth", json={"userId": "ann", "validForSeconds": 700})
        assert asked.status_code == 403


NAMES = st.text(st.sampled_from("ab*?[]!-"), max_size=6)


@given(inner=NAMES, outer=NAMES, name=st.text(st.sampled_from("ab*?[]!-"), max_size=6))
@example(inner="*", outer="[*]", name="a")
@example(inner="[ab]", outer="*a*", name="b")
@example(inner="a*", outer="a?", name="abb")
def test_what_a_pattern_within_another_opens_that_one_opens_too(inner, outer, name):
    try:
        patterns_within([outer], [inner], "sessions")
    except AccessDenied:
        return
    assert not fnmatchcase(name, inner) or fnmatchcase(name, outer)


def test_a_name_as_glob_escapes_it_is_within_what_it_matches():
    assert patterns_within(["a*"], ["a[*]b", "a[?]"], "sessions") == ["a[*]b", "a[?]"]


def test_without_a_secret_tokens_are_made_elsewhere(tmp_path):
    tokens = tmp_path / "tokens.json"
    tokens.write_text('{"t": {"principal": "b", "kind": "service"}}')
    server = Server(tmp_path / "s.db", "--tokens-file", tokens)
    try:
        with server.http(headers={"Authorization": "Bearer t"}) as http:
            refused = http.post("/v1/tokens", json={"principal": "x"})
            assert (refused.status_code, "jwt_secret" in refused.json()["detail"]) == (404, True)
    finally:
        server.close()


async def test_an_issuers_keys_are_fetched_and_its_claims_are_read(tmp_path):
    """As with an issuer such as Keycloak, Auth0 or Clerk: its keys, its names for claims."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key())) | {"kid": "k1", "alg": "ES256"}
    issuer = await asyncio.start_server(lambda r, w: _publish(r, w, {"keys": [public]}), "127.0.0.1", 0)
    address = f"http://127.0.0.1:{issuer.sockets[0].getsockname()[1]}/jwks.json"
    config = tmp_path / "c.toml"
    config.write_text(
        f'jwks_url = "{address}"\njwt_audience = "sessions"\njwt_issuer = "https://id.example/"\n'
        'jwt_default_role = "editor"\n[jwt_claims]\ntenant = "org_id"\n'
    )
    server = await asyncio.to_thread(Server, tmp_path / "s.db", "--config", config)
    try:
        now = int(time.time())
        said = {"sub": "auth0|17", "aud": ["sessions"], "iss": "https://id.example/", "iat": now, "exp": now + 60,
                "org_id": "org_7"}  # fmt: skip
        mine = jwt.encode(said, key, algorithm="ES256", headers={"kid": "k1"})
        async with httpx.AsyncClient(base_url=server.url, headers={"Authorization": f"Bearer {mine}"}) as http:
            me = (await http.get("/v1/me")).json()
            assert (me["principal"], me["tenant"], me["role"]) == ("auth0|17", "org_7", "editor")
        async with connect(server.url, "room", token=mine) as peer:
            assert (await peer.post("hi")).author.id == "auth0|17"
    finally:
        server.close()
        issuer.close()


async def _publish(reader, writer, keys):
    await reader.readuntil(b"\r\n\r\n")
    body = json.dumps(keys).encode()
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )
    await writer.drain()
    writer.close()


# -- TLS, headers, CORS --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direct", ["--direct", "--no-direct"])
async def test_the_service_speaks_tls(tmp_path, certificate, direct):
    cert, key = certificate
    server = await asyncio.to_thread(guarded, tmp_path, "--tls-certificate", cert, "--tls-key", key, direct)
    trusted = ssl.create_default_context(cafile=str(cert))
    try:
        url = f"https://localhost:{server.port}"
        async with httpx.AsyncClient(base_url=url, verify=trusted, headers=bearer("ann", "owner")) as http:
            answer = await http.post("/v1/sessions", json={"id": "room"})
            assert answer.status_code == 201
            assert "max-age" in answer.headers["strict-transport-security"]
            assert answer.http_version == "HTTP/1.1"
        async with httpx.AsyncClient(base_url=url, verify=trusted, headers=bearer("ann"), http2=True) as http:
            answer = await http.get("/v1/sessions/room")
            assert (answer.status_code, answer.http_version) == (200, "HTTP/2")
        socket = f"wss://localhost:{server.port}/v1/sync/room?token={token()}"
        trusted.set_alpn_protocols(["http/1.1"])  # as browsers do
        async with websockets.connect(socket, ssl=trusted) as peer:
            assert ("Server" in peer.response.headers) == (direct == "--no-direct"), "Hypercorn names itself"
            assert isinstance(await asyncio.wait_for(peer.recv(), PATIENCE), bytes)
            await peer.send(b"\x00\x00\x01\x00")
            assert isinstance(await asyncio.wait_for(peer.recv(), PATIENCE), bytes)
    finally:
        server.close()


def test_half_a_certificate_is_refused(tmp_path, certificate):
    refused = command("serve", "--database", tmp_path / "s.db", "--tls-certificate", certificate[0])
    assert (refused.returncode, "--tls-key" in refused.stderr) == (2, True)


def test_browsers_are_told_what_they_may_not_do(service):
    with service.http() as http:
        for path in ("/", "/v1/sessions", "/healthz", "/nowhere"):
            headers = http.get(path).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
            assert headers["referrer-policy"] == "no-referrer"
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
        policy = http.get("/").headers["content-security-policy"]
        assert "script-src 'self';" in policy
        assert "default-src 'none'" in policy
        first, second = (http.get("/") for _ in range(2))
        nonces = [
            answer.headers["content-security-policy"].split("nonce-")[1].split("'")[0] for answer in (first, second)
        ]
        assert nonces[0] != nonces[1]
        assert nonces[0] in first.text


async def test_pages_of_origins_that_are_allowed_may_use_the_service(tmp_path):
    server = await asyncio.to_thread(guarded, tmp_path, "--allowed-origins", "https://app.example")
    page = {"Origin": "https://app.example"}
    try:
        async with httpx.AsyncClient(base_url=server.url) as http:
            preflight = await http.request(
                "OPTIONS", "/v1/sessions", headers=page | {"Access-Control-Request-Method": "POST"}
            )
            assert preflight.headers["access-control-allow-origin"] == "https://app.example"
            answer = await http.get("/v1/me", headers=page | bearer("ann"))
            assert answer.headers["access-control-allow-origin"] == "https://app.example"
            assert "access-control-allow-credentials" not in answer.headers, "there are no cookies to send along"
            other = await http.get("/v1/me", headers={"Origin": "https://app.example.evil"} | bearer("ann"))
            assert other.status_code == 403
        url = f"{server.ws}/room?token={token()}"
        async with websockets.connect(url, origin="https://app.example") as peer:
            assert isinstance(await asyncio.wait_for(peer.recv(), PATIENCE), bytes)
    finally:
        server.close()


# -- how often -----------------------------------------------------------------------------------------------------------


def test_a_bucket_fills_again_and_forgets_who_has_not_asked_for_longest():
    now = [0.0]
    bucket = Buckets("tests", Rate(2, 3), lambda: now[0])

    def taken(key, times):
        count = 0
        for _ in range(times):
            with contextlib.suppress(TooMany):
                bucket.take(key)
                count += 1
        return count

    assert (taken("a", 5), taken("b", 5)) == (3, 3)
    now[0] += 1
    assert taken("a", 5) == 2
    with pytest.raises(TooMany, match="more than 3 tests at once, then 2 a second"):
        bucket.check("a")
    now[0] += 100
    assert taken("a", 5) == 3
    assert bucket.refused == 2 + 2 + 3 + 1 + 2
    for n in range(60_000):
        bucket.take(f"key-{n}")
    assert len(bucket._buckets) <= 50_000


# -- sessions that expire --------------------------------------------------------------------------------------------------


async def test_sessions_that_nobody_changes_are_deleted_for_good(tmp_path):
    clock, store = FakeClock(), MemoryStore()
    async with SessionRegistry(store, clock=clock) as registry:
        long_ago = Millis(clock.now() - 10 * 86_400_000)
        for name in ("old", "busy", "new"):
            wanted = session_id(name, "acme")
            begin = seed(name, generation=1, created_at=long_ago, client_id=1)
            await store.create(wanted, begin, generation=1, title=None, now=long_ago)
        async with registry.open(session_id("busy", "acme")) as session:
            await session.edit(lambda view: view.set_title("x"))
        await registry.create(session_id("fresh"))
        assert await expire_once(registry, 7) == [session_id("new", "acme"), session_id("old", "acme")]
        assert [each.id for each in await store.sessions(after=None, limit=9)] == ["acme/busy", "fresh"]
        assert await expire_once(registry, 7) == []
        await registry.audit.flush()
        entries = await store.audit("acme", limit=9)
        assert [(each.session, each.action, each.principal) for each in entries] == [
            ("new", "session.expire", "retention"), ("old", "session.expire", "retention"),
        ]  # fmt: skip
        assert await store.last_generation(session_id("old", "acme")) == 1, "it does not come back by being joined"


@contextlib.asynccontextmanager
async def old_sessions(*names):
    """A registry with sessions that nobody has changed for ten days, and its clock."""
    clock, store = FakeClock(), MemoryStore()
    async with SessionRegistry(store, clock=clock) as registry:
        long_ago = Millis(clock.now() - 10 * 86_400_000)
        for name in names:
            begin = seed(name, generation=1, created_at=long_ago, client_id=1)
            await store.create(session_id(name), begin, generation=1, title=None, now=long_ago)
        yield registry, clock


async def test_what_is_changed_while_old_sessions_are_deleted_stays(monkeypatch):
    """The list was read before: whoever comes to a session behind the first one is not too late."""
    async with old_sessions("first", "left", "open") as (registry, _):
        delete = registry.store.delete

        async def while_the_first_goes(id, *, now):
            if id == session_id("first"):
                await _entitled(registry, "left")
                await visit.enter_async_context(registry.open(session_id("open")))
            await delete(id, now=now)

        monkeypatch.setattr(registry.store, "delete", while_the_first_goes)
        async with contextlib.AsyncExitStack() as visit:
            assert await expire_once(registry, 7) == [session_id("first")]


async def test_who_comes_while_an_old_session_is_loaded_to_be_deleted_keeps_it(monkeypatch):
    async with old_sessions("old") as (registry, _):
        gate, load = asyncio.Event(), registry.store.load

        async def late(*arguments, **named):
            await gate.wait()
            return await load(*arguments, **named)

        monkeypatch.setattr(registry.store, "load", late)
        expiring = asyncio.create_task(expire_once(registry, 7))
        await settle()
        visit = asyncio.create_task(_entitled(registry, "old"))
        await settle()
        gate.set()
        assert await expiring == []
        await visit


async def _entitled(registry, name):
    async with registry.open(session_id(name)) as session:
        await session.edit(lambda view: view.set_title("x"))


async def test_an_outage_does_not_end_retention(monkeypatch, caplog):
    async with old_sessions("old") as (registry, clock):
        sessions = registry.store.sessions

        async def away(**_):
            raise StoreUnavailable("the disk is full")

        monkeypatch.setattr(registry.store, "sessions", away)
        expiring = asyncio.create_task(expire(registry, 7))
        await settle()
        assert "not deleted until the next look" in caplog.text
        monkeypatch.setattr(registry.store, "sessions", sessions)
        await clock.advance(3601)
        await settle()
        assert await sessions(after=None, limit=9) == []
        expiring.cancel()


async def test_streams_whose_time_has_come_are_removed_though_nobody_asks_for_them():
    clock, store = FakeClock(), MemoryStore()
    async with SessionRegistry(store, clock=clock) as registry:
        sweeping = asyncio.create_task(sweep(registry))
        for path, ttl in (("short", 60), ("long", 3600)):
            await registry.streams.create(Creation("", path, "ann", "text/plain", ttl_s=ttl))
        await clock.advance(599)
        assert await store.count_streams("") == 2
        await clock.advance(2)
        assert await store.count_streams("") == 1
        sweeping.cancel()


# -- the how-to ------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_settings_of_the_how_to_are_settings(tmp_path):
    """Its commands are run with the other pages, against a service without an issuer, which nobody has at hand."""
    text = (ROOT / "docs/how-to/identity.md").read_text("utf-8")
    (config,) = re.findall(r"```toml[^\n]*\n(.*?)```", text, re.S)
    (tmp_path / "service.toml").write_text(config, "utf-8")
    settings = Settings.load({}, tmp_path / "service.toml")
    assert (settings.jwt_claims["tenant"], settings.jwt_default_role) == ("org_id", "editor")


def test_the_examples_take_a_token_from_the_environment(service):
    env = {"CRDT_SESSIONS_TOKEN": token("writer", "agent", kind="agent"), "OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}
    agent = Process(
        sys.executable,
        ROOT / "examples/model_agent.py",
        "--url",
        service.url,
        env=env | {"OPENAI_API_KEY": "none"},
        fork=True,
    )
    peer = Process(
        sys.executable, ROOT / "examples/terminal_peer.py", "--url", service.url, "--session", "terminal", "--name",
        "Ann", stdin=True, fork=True, env={"CRDT_SESSIONS_TOKEN": token("ann", "editor")},
    )  # fmt: skip
    try:
        peer.child.stdin.write("hello\n")
        peer.child.stdin.flush()
        with service.http(headers=bearer("backend", "service")) as http:
            deadline = time.monotonic() + 20
            found = []
            while not found and time.monotonic() < deadline:
                answer = http.get("/v1/sessions/terminal/messages")
                found = answer.json()["messages"] if answer.status_code == 200 else []
                time.sleep(0.1)
        assert (found[0]["by"], found[0]["author"]["name"]) == ("ann", "Ann")
        assert agent.child.poll() is None, agent.lines
    finally:
        for process in (peer, agent):
            process.terminate()
            process.close()
