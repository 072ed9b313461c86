"""What agents, peers and readers of the past say of a service that they do not reach, or that does not want them."""

import asyncio
import logging
import ssl
import time
from contextlib import suppress

import httpx
import jwt
import pytest

from crdt_sessions import Agent, Past, connect
from crdt_sessions.client.background import BackgroundSync
from crdt_sessions.client.service import Assignment, ServiceClient
from crdt_sessions.client.token import Bearer, current_token
from crdt_sessions.clock import SystemClock
from crdt_sessions.errors import ConnectionClosed, NoService, NoToken, RequestRefused, ServiceUnreachable
from crdt_sessions.model import Run
from tests.agents import working
from tests.processes import PATIENCE, Server, free_port

SECRET = b"a secret of tests that is long enough for HS256"


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A service that asks for tokens."""
    folder = tmp_path_factory.mktemp("reaching")
    (folder / "secret").write_bytes(SECRET)
    (folder / "secret").chmod(0o600)
    server = Server(
        folder / "s.db", "--jwt-secret-file", folder / "secret", "--default-agent", "", "--bad-token-burst", "1000",
    )  # fmt: skip
    yield server
    server.close()


@pytest.fixture
def room(request):
    return request.node.name.split("[")[0]


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.INFO, "crdt_sessions")
    return lambda: [record.getMessage() for record in caplog.records if record.name.startswith("crdt_sessions.")]


class Hasty(SystemClock):
    """Does not wait long before it tries again."""

    waited = 0

    async def sleep(self, seconds):
        self.waited += 1
        await asyncio.sleep(min(seconds, 0.02))


def token(principal="ann", role="owner", *, lasts_s=3600, **claims):
    return jwt.encode({"sub": principal, "role": role, "exp": time.time() + lasts_s, **claims}, SECRET, "HS256")


class Gate:
    """What stands at the address: the service behind it, or something else that answers in its own way.

    It says *instead* to whoever comes, if that is not None; else it lets them through to *port*.
    """

    def __init__(self, port=None, instead=None):
        self._behind, self.instead = port, instead
        self.came = 0
        """Connections so far."""
        self._writers = []
        self._served = 0

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *error):
        self._server.close()
        turns = 0
        while self._served or turns < 10:  # whoever was accepted just now takes some turns until they are served
            self.cut()
            await asyncio.sleep(0)
            turns += 1

    def cut(self):
        """End all connections."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader, writer):
        self.came += 1
        self._served += 1
        try:
            await self._answer(reader, writer)
        finally:
            self._served -= 1

    async def _answer(self, reader, writer):
        self._writers.append(writer)
        instead = self.instead
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            if instead is not None:
                await reader.readuntil(b"\r\n")
                writer.write(instead)
                await writer.drain()
                writer.close()
                return
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._behind)
            self._writers.append(far_writer)
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))


async def _pump(reader, writer):
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


def http(status, kind, body, *more):
    head = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", "Connection: close", *more]
    return "\r\n".join([*head, "", body]).encode()


PAGE = "<!doctype html><title>Something else</title>"
NOT_FOUND = http("404 Not Found", "text/html", PAGE)
A_PAGE = http("200 OK", "text/html; charset=utf-8", PAGE)
JSON = http("200 OK", "application/json", '{"jsonrpc": "2.0"}')
MOVED = http("301 Moved Permanently", "text/html", "", "Location: https://elsewhere.example/")
LOGIN = http("401 Unauthorized", "text/html", PAGE)
OTHERS = (
    http("200 OK", "text/plain", "OK"),
    http("200 OK", "text/plain", ""),
    http("200 OK", "text/html", ""),
    JSON,
    http("200 OK", "application/json", "[]"),
    http("200 OK", "application/json", "{}", "Content-Encoding: gzip"),
)
BAD_GATEWAY = http("502 Bad Gateway", "text/html", PAGE)


async def enter(url, **options):
    async with asyncio.timeout(PATIENCE):
        async with connect(url, "room", **options):
            pass


async def work(url, **options):
    agent = Agent(url, name="writer", **options)
    agent.on_run(lambda run: run.out.write(""))
    await asyncio.wait_for(agent.work(), PATIENCE)


async def look_back(url):
    async with Past(url, "room") as past:
        await past.versions()


@pytest.mark.parametrize("door", [enter, work, look_back])
@pytest.mark.parametrize(
    ("instead", "why"),
    [
        (NOT_FOUND, r"HTTP 404 Not Found \(text/html\); check host, port and path"),
        (A_PAGE, r"HTTP 200 OK \(text/html\); check host"),
        (MOVED, "it redirects to https://elsewhere.example/: give that address"),
        (LOGIN, r"HTTP 401 Unauthorized \(text/html\)"),
    ],
)
async def test_something_else_at_the_address_is_raised_at_once(door, instead, why):
    async with Gate(instead=instead) as gate:
        with pytest.raises(NoService, match=f"no crdt-sessions service can be talked to at {gate.url}: .*{why}"):
            await door(gate.url)


@pytest.mark.parametrize("door", [enter, work])
async def test_another_service_that_speaks_json_is_none_of_ours(door):
    async with Gate(instead=JSON) as gate:
        with pytest.raises(NoService, match=r"HTTP 200 OK \(application/json\)"):
            await door(gate.url)


RUN = Run(id="r", epoch=1)
HELD = Assignment("room", "lineage", RUN, 1, 1000, "token")
CALLS = (
    lambda service: service.whoami(),
    lambda service: service.claim(["writer"], wait_s=0),
    lambda service: service.claim_one("room", "r", "writer"),
    lambda service: service.release(HELD),
    lambda service: service.undo("room", "r", None),
    lambda service: service.step(HELD, "key"),
    lambda service: service.record_step(HELD, "key", 1),
)
LOOKS = (
    lambda past: past.versions(),
    lambda past: past.recent(),
    lambda past: past.read(1),
    lambda past: past.keep(),
    lambda past: past.rename(1, None),
    lambda past: past.restore(1),
    lambda past: past.fork("other"),
    lambda past: past.archive(),
    lambda past: past.take_over(b"{}"),
)


@pytest.mark.parametrize("instead", [*OTHERS, NOT_FOUND], ids=range(len(OTHERS) + 1))
async def test_whatever_is_asked_of_something_else_finds_no_service(instead):
    async with Gate(instead=instead) as gate:
        async with ServiceClient(gate.url, None) as service:
            for call in CALLS:
                with pytest.raises(NoService):
                    await call(service)
        async with Past(gate.url, "room") as past:
            for look in LOOKS:
                with pytest.raises(NoService):
                    await look(past)
        async with BackgroundSync(gate.url) as device:
            device.hold("room")
            with pytest.raises(NoService):
                await device.once()


async def test_what_does_not_speak_http_is_no_service():
    async with Gate(instead=b"SSH-2.0-OpenSSH_9.9\r\n\r\n") as gate:
        for door in (enter, work, look_back):
            with pytest.raises(NoService, match="does not speak HTTP; check host, port and path"):
                await door(gate.url)


async def test_what_does_not_speak_tls_is_no_service(service):
    for door in (enter, work, look_back):
        with pytest.raises(NoService, match=r"does not speak TLS.*is it an http:// address"):
            await door(service.url.replace("http:", "https:"))


async def test_a_certificate_that_nobody_vouches_for_is_not_waited_for(certificate):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    listening = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    url = f"https://localhost:{listening.sockets[0].getsockname()[1]}"
    for door in (enter, work):
        with pytest.raises(NoService, match=r"its certificate is not trusted .*SSL_CERT_FILE"):
            await door(url)
    listening.close()


@pytest.mark.parametrize("door", [enter, work])
async def test_a_wrong_path_of_a_service_is_raised_at_once(service, door):
    with pytest.raises(NoService, match="it is one, but not at that path: check host, port and path"):
        await door(f"{service.url}/elsewhere", token=token())


async def test_a_token_that_is_refused_is_raised_at_once_with_what_to_do(service, room):
    for bad in (None, "nonsense", token(lasts_s=-60)):
        with pytest.raises(ConnectionClosed, match=r"closed with 4401: .*\. Give token= one") as closed:
            await enter(service.url, token=bad)
        assert closed.value.code == 4401
        with pytest.raises(RequestRefused, match=r"HTTP 401: .*\. Give token= one") as refused:
            await work(service.url, token=bad)
        assert refused.value.status == 401
    with pytest.raises(RequestRefused) as refused:
        await work(service.url, token=token("ann", "viewer"))
    assert refused.value.status == 403
    with pytest.raises(ConnectionClosed, match="closed with 4403: not allowed"):
        await enter(service.url, token=token(sessions=["another"]))


async def test_a_function_for_tokens_that_fails_is_raised_at_once(service):
    def broken():
        raise KeyError("TOKEN")

    for door in (enter, work):
        with pytest.raises(NoToken, match=r"the function for tokens failed: KeyError\('TOKEN'\)"):
            await door(service.url, token=broken)


async def test_a_function_for_tokens_that_awaits_what_was_cancelled_has_failed():
    async def fetch():
        helper = asyncio.ensure_future(asyncio.Event().wait())
        helper.cancel()
        return await helper

    with pytest.raises(NoToken, match="CancelledError"):
        await current_token(fetch)


async def test_who_is_cancelled_while_it_fetches_a_token_is_cancelled():
    fetching = asyncio.ensure_future(current_token(asyncio.Event().wait))
    await asyncio.sleep(0)
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching


@pytest.fixture
def impatient(monkeypatch):
    """Functions for tokens have a moment, and so has what they do once they were cancelled."""
    monkeypatch.setattr("crdt_sessions.client.token._PATIENCE_S", 0.1)
    monkeypatch.setattr("crdt_sessions.client.peer._WHO_S", 0.1)
    monkeypatch.setattr("crdt_sessions.client.foreign._GRACE_S", 0.1)


async def test_a_function_for_tokens_that_never_returns_is_raised(service, impatient):
    for door in (enter, work):
        with pytest.raises(NoToken, match=r"waited for a token: .* has not returned in 0\.1 s") as late:
            await asyncio.wait_for(door(service.url, token=asyncio.Event().wait), PATIENCE)
        assert (late.value.waited_s, type(late.value.error)) == (0.1, TimeoutError)


@pytest.mark.parametrize("options", [{}, {"id": "ann"}])
async def test_who_works_offline_is_not_held_up_by_a_function_for_tokens_that_never_returns(
    service, room, tmp_path, told, impatient, options
):
    """It would not come in, or say nothing for ever, and never merge."""
    online = False

    async def fetch():
        if not online:
            await asyncio.Event().wait()
        return token()

    async with asyncio.timeout(PATIENCE):
        async with connect(
            service.url, f"{room}-{len(options)}", token=fetch, offline=tmp_path / "p.db", clock=Hasty(), **options
        ) as peer:
            await peer.post("in the train", wait=False)
            await peer.saved()
            while not told():
                await asyncio.sleep(0.01)
            assert "waited for a token" in told()[0]
            assert told()[0].endswith(" Working offline meanwhile, and trying again.")
            assert (peer.connected, peer.unacknowledged > 0) == (False, True)
            online = True
            await peer.durable()


@pytest.mark.parametrize("heeds", [True, False])
async def test_a_peer_leaves_while_its_function_for_tokens_does_not_return(
    service, room, tmp_path, told, monkeypatch, heeds
):
    """It would stay for as long as the function does, which may not heed that it is cancelled."""
    monkeypatch.setattr("crdt_sessions.client.foreign._GRACE_S", 0.1)
    begun, over = asyncio.Event(), asyncio.Event()

    async def fetch():
        begun.set()
        while not over.is_set():
            try:
                await over.wait()
            except asyncio.CancelledError:
                if heeds:
                    raise
        return token()

    room = f"{room}-{heeds}"
    file = tmp_path / "p.db"
    async with asyncio.timeout(PATIENCE):
        async with connect(service.url, room, id="ann", token=fetch, offline=file) as peer:
            await peer.post("in the train", wait=False)
            await begun.wait()
        assert [line.startswith("the function for tokens goes on though") for line in told()] == [True] * (not heeds)
        over.set()
        async with connect(service.url, room, id="ann", token=token(), offline=file) as peer:
            await peer.durable()
            assert [message.text for message in peer.messages.all()] == ["in the train"], "it was kept"


NOBODY = "connection refused; is the service running there, on that port?"


@pytest.mark.parametrize(
    ("instead", "why"),
    [
        (None, NOBODY),
        (BAD_GATEWAY, "HTTP 502 Bad Gateway, from what stands before the service"),
        (http("503 Service Unavailable", "text/plain", "starting"), "HTTP 503 Service Unavailable"),
        (http("429 Too Many Requests", "text/plain", "slow"), "HTTP 429 Too Many Requests"),
        (b"", "it hung up without an answer"),
    ],
)
@pytest.mark.parametrize("door", [enter, work])
async def test_a_service_that_is_not_there_yet_is_told_once_and_waited_for(door, instead, why, told):
    async with Gate(instead=instead) as gate:
        url = gate.url if instead is not None else f"http://127.0.0.1:{free_port()}"
        waiting = asyncio.create_task(door(url, clock=Hasty()))
        async with asyncio.timeout(PATIENCE):
            while not told():
                await asyncio.sleep(0.01)
        done, _ = await asyncio.wait({waiting}, timeout=0.3)
        assert not done
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    who = "agent writer: " if door is work else ""
    assert len(told()) == 1, told()
    assert told()[0].startswith(f"{who}no connection to {url}: {why}")
    assert told()[0].endswith(" Trying again.")


async def test_a_host_without_an_address_is_named(told):
    waiting = asyncio.create_task(enter("http://nowhere.invalid:8000", clock=Hasty()))
    async with asyncio.timeout(PATIENCE):
        while not told():
            await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert "'nowhere.invalid' has no address; is the host spelled right?" in told()[0]


async def test_the_past_of_a_service_that_is_not_there_is_raised_at_once():
    with pytest.raises(ServiceUnreachable, match=NOBODY.replace("?", r"\?")):
        await look_back(f"http://127.0.0.1:{free_port()}")


async def test_a_peer_waits_for_a_service_tells_when_it_goes_and_when_it_is_back(service, room, told):
    async with Gate(service.port, instead=BAD_GATEWAY) as gate:
        peer = connect(gate.url, room, token=token(), clock=Hasty())
        entering = asyncio.create_task(peer.__aenter__())
        async with asyncio.timeout(PATIENCE):
            while not told():
                await asyncio.sleep(0.01)
            gate.instead = None
            await entering
            assert len(told()) == 2
            assert told()[1].startswith(f"connected to {gate.url} again, after ")
            gate.instead = NOT_FOUND  # as in the middle of a deployment
            gate.cut()
            await peer.until(lambda: not peer.connected)
            while len(told()) < 3:
                await asyncio.sleep(0.01)
            await peer.post("meanwhile", wait=False)
            gate.instead = None
            await peer.durable()
        assert told()[2].startswith(f"no connection to {gate.url}: ")
        assert told()[3].startswith(f"connected to {gate.url} again, after ")
        await peer.leave()
    assert len(told()) == 4, told()


@pytest.mark.parametrize("unsent", [0, 2])
async def test_a_peer_whose_service_goes_as_it_leaves_misses_what_it_wrote_and_not_its_good_bye(
    service, room, told, monkeypatch, unsent
):
    monkeypatch.setattr("crdt_sessions.client.peer._HAND_OVER_S", PATIENCE if unsent == 0 else 0.2)
    async with Gate(service.port) as gate:
        peer = await connect(gate.url, room, token=token(), clock=Hasty()).__aenter__()
        await peer.post("Before")
        gate.instead = BAD_GATEWAY
        for _ in range(unsent):
            peer.edit(lambda view: view.set_title("A title"))
        leaving = asyncio.create_task(peer.leave())
        await asyncio.sleep(0)
        gate.cut()
        async with asyncio.timeout(PATIENCE / 2):
            await leaving
    missed = [line for line in told() if line.startswith("left with")]
    assert missed == ["left with 2 changes that the service has not acknowledged"] * (unsent > 0)


@pytest.mark.parametrize(("edits", "local"), [(2, False), (2, True), (0, False)])
async def test_a_peer_that_leaves_while_it_is_away_says_what_is_lost_unless_it_has_a_local_copy(
    service, room, tmp_path, told, edits, local
):
    options = {"offline": tmp_path / "p.db"} if local else {}
    async with Gate(service.port) as gate:
        async with connect(gate.url, room, id="ann", token=token(), clock=Hasty(), **options) as peer:
            await peer.synced()
            gate.instead = BAD_GATEWAY
            gate.cut()
            await peer.until(lambda: not peer.connected)
            for _ in range(edits):
                peer.edit(lambda view: view.set_title("A title"))
    missed = [line for line in told() if line.startswith("left with")]
    assert missed == ["left with 2 changes that the service has not acknowledged"] * (edits > 0 and not local)


async def test_a_peer_that_was_refused_says_on_leaving_what_is_lost(service, room, told):
    async with connect(service.url, room, token=token(lasts_s=2)) as peer:
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(peer.until(lambda: False), PATIENCE)
        peer.edit(lambda view: view.set_title("A title"))
    assert told()[-1] == "left with a change that the service has not acknowledged"


async def test_a_peer_that_goes_offline_by_itself_tells_nothing(service, room, told):
    async with connect(service.url, room, token=token()) as peer:
        peer.go_offline()
        await peer.until(lambda: not peer.connected)
        await asyncio.sleep(0.1)
        peer.go_online()
        await peer.synced()
    assert told() == []


async def test_who_works_offline_starts_without_a_service_tells_so_and_merges_when_it_is_there(
    service, room, tmp_path, told
):
    async with Gate(service.port, instead=A_PAGE) as gate:  # a page to sign in to the network of a hotel
        async with connect(gate.url, room, id="ann", token=token(), offline=tmp_path / "p.db", clock=Hasty()) as peer:
            await peer.post("in the train", wait=False)
            async with asyncio.timeout(PATIENCE):
                while not told():
                    await asyncio.sleep(0.01)
            assert told()[0].endswith(" Working offline meanwhile, and trying again.")
            assert peer._failure is None
            gate.instead = None
            await asyncio.wait_for(peer.durable(), PATIENCE)
        assert len(told()) == 2


@pytest.mark.parametrize("options", [{}, {"id": "ann"}])
async def test_who_works_offline_starts_where_no_token_can_be_fetched_and_merges_when_one_can(
    service, room, tmp_path, told, options
):
    online = False

    async def fetch():
        if not online:
            raise OSError("no network")
        return token()

    clock = Hasty()
    async with connect(service.url, room, token=fetch, offline=tmp_path / "p.db", clock=clock, **options) as peer:
        await peer.post("in the train", wait=False)
        async with asyncio.timeout(PATIENCE):
            while clock.waited < 3:
                await peer.until(lambda: True)  # raises why it is over
                await asyncio.sleep(0.01)
        assert ["no network" in line and line.endswith("and trying again.") for line in told()] == [True]
        online = True
        await asyncio.wait_for(peer.durable(), PATIENCE)
    assert len(told()) == 2


async def test_a_peer_whose_token_has_expired_waits_for_a_fresh_one_and_says_so(service, room, told):
    current = token(lasts_s=2)
    clock = Hasty()
    async with Gate(service.port) as gate, connect(gate.url, room, token=lambda: current, clock=clock) as peer:
        async with asyncio.timeout(PATIENCE):
            while clock.waited < 5:  # the connection ended, another one was refused, and others were not tried
                await asyncio.sleep(0.05)
            came = gate.came
            await asyncio.sleep(0.2)
            assert (gate.came, len(told())) == (came, 1), "a token that was refused is not presented again"
            current = token()
            await peer.post("with a fresh one")
        assert len(told()) == 2
    assert "the token has expired" in told()[0]


async def test_a_peer_whose_only_token_has_expired_is_told_that_no_other_will_come(service, room):
    async with connect(service.url, room, token=token(lasts_s=2), clock=Hasty()) as peer:
        with pytest.raises(
            ConnectionClosed, match=r"the token has expired\. Give token= .*a function that fetches"
        ) as caught:
            await asyncio.wait_for(peer.until(lambda: False), PATIENCE)
    assert caught.value.code == 4401


async def test_an_agent_tells_where_it_is_which_runs_it_takes_and_how_they_end(service, room, told):
    async def answer(run):
        if "fail" in run.message.text:
            raise ValueError("not for everybody")
        await run.out.write("yes")

    async with (
        connect(service.url, room, token=token()) as ann,
        working(service.url, answer, token=token("w-1", "agent", tenant=""), concurrency=2),
    ):
        async with asyncio.timeout(PATIENCE):
            good = await ann.messages.answer_to(await ann.post("?", agent="writer"))
            while len(told()) < 3:  # it may take the next one before it has told how the first one ended
                await asyncio.sleep(0.01)
            with pytest.raises(Exception, match="its log says more"):
                await ann.messages.answer_to(bad := await ann.post("fail", agent="writer"))
            while len(told()) < 6:
                await asyncio.sleep(0.01)
    assert told()[0] == (
        f"agent writer: connected to {service.url} as w-1; takes runs for writer or any agent, 2 at a time"
    )
    assert told()[1] == f"agent writer: takes {good.run_id} in session {room}"
    assert told()[2].startswith(f"agent writer: {good.run_id} in session {room} completed after ")
    assert told()[3] == f"agent writer: takes run-{bad.id} in session {room}"
    assert told()[4] == "run failed: not for everybody"
    assert told()[5].startswith(f"agent writer: run-{bad.id} in session {room} failed after ")
    assert "its log says more (reference " in told()[5]


async def test_an_agent_that_was_let_in_waits_through_what_comes_later_and_says_so(service, room, told):
    async with Gate(service.port) as gate:
        async with (
            connect(service.url, room, token=token()) as ann,
            working(gate.url, lambda run: run.out.write("yes"), token=token("w-1", "agent"), clock=Hasty()),
        ):
            async with asyncio.timeout(PATIENCE):
                while not told():
                    await asyncio.sleep(0.01)
                assert "connected to" in told()[0]
                for instead in (NOT_FOUND, *OTHERS):
                    gate.instead, came = instead, gate.came
                    gate.cut()
                    while gate.came < came + 3:
                        await asyncio.sleep(0.01)
                gate.instead = None
                while len(told()) < 3:
                    await asyncio.sleep(0.01)
                assert (await ann.messages.answer_to(await ann.post("?", agent="writer"))).text == "yes"
    # Whether the socket's end or the 404 comes first is the machine's affair; it is told once either way.
    assert told()[1].startswith((
        f"agent writer: no connection to {gate.url}: ",
        f"agent writer: no crdt-sessions service can be talked to at {gate.url}: ",
    ))  # fmt: skip
    assert told()[2].startswith(f"agent writer: connected to {gate.url} again, after ")


@pytest.mark.parametrize("fetches", [True, False])
async def test_an_agent_whose_token_is_not_good_any_more_waits_if_there_may_be_another(
    service, room, told, monkeypatch, fetches
):
    monkeypatch.setattr("crdt_sessions.client.agent._POLL_S", 0.05)
    good = token("w-1", "agent", jti=f"{room}-{fetches}")
    current, clock = good, Hasty()
    agent = Agent(service.url, name="writer", token=(lambda: current) if fetches else good, clock=clock)
    agent.on_run(lambda run: run.out.write("yes"))
    task = asyncio.create_task(agent.work())
    async with asyncio.timeout(PATIENCE):
        while not told():
            await asyncio.sleep(0.01)
        with service.http(headers={"Authorization": f"Bearer {token(role='service')}"}) as http_:
            http_.post("/v1/revocations", json={"tokenId": f"{room}-{fetches}"}).raise_for_status()
        if not fetches:
            with pytest.raises(RequestRefused, match=r"the token was revoked\. .*Give token= .* a function"):
                await task
            return
        while clock.waited < 5:
            await asyncio.sleep(0.01)
        current = token("w-1", "agent")
        while len(told()) < 3:
            await asyncio.sleep(0.01)
        agent.stop()
        await task
    assert told()[1].startswith(f"agent writer: {service.url} answers HTTP 401: the token was revoked. ")
    assert "Give token= one that the service accepts" in told()[1]
    assert told()[2].startswith(f"agent writer: connected to {service.url} again, after ")


async def test_a_token_that_was_refused_is_not_presented_again():
    presented, current = [], "old"

    def answer(request):
        presented.append(request.headers["Authorization"])
        return httpx.Response(401 if presented[-1] == "Bearer old" else 200)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), auth=Bearer(lambda: current)) as client:
        assert (await client.get("http://service/")).status_code == 401
        with pytest.raises(RequestRefused, match="there is no fresh token yet"):
            await client.get("http://service/")
        current = "new"
        for _ in range(2):
            assert (await client.get("http://service/")).status_code == 200
    assert presented == ["Bearer old", "Bearer new", "Bearer new"]


async def test_a_quiet_agent_says_nothing(service, room, told):
    async with (
        connect(service.url, room, token=token()) as ann,
        working(service.url, lambda run: run.out.write("yes"), token=token("w-1", "agent"), quiet=True),
    ):
        await ann.messages.answer_to(await ann.post("?", agent="writer"))
    assert told() == []


async def test_a_handler_that_turns_out_to_be_none_fails_its_run_with_the_reason_in_the_log(service, room, told):
    async def counts(run):
        await run.out.write("so many")
        return len(run.history())

    async with (
        connect(service.url, room, token=token()) as ann,
        working(service.url, counts, token=token("w-1", "agent"), quiet=True),
    ):
        with pytest.raises(Exception, match="its log says more"):
            await ann.messages.answer_to(await ann.post("?", agent="writer"))
    (said,) = told()
    assert "counts cannot answer runs: it returned a value (int), which is lost; begin it with 'async def'" in said


async def test_a_message_is_begun_when_the_service_is_back_that_was_away_when_it_was_to_be_claimed(service, room):
    async with Gate(service.port) as gate:
        async with connect(gate.url, room, token=token(role="service"), clock=Hasty()) as peer:
            gate.instead = BAD_GATEWAY  # for new connections; the peer's own goes on

            async def write():
                async with peer.stream(run_id="r") as out:
                    await out.write("at last")

            writing = asyncio.create_task(write())
            await peer.until(lambda: (run := peer.view.runs.value("r")) is not None and run.status == "queued")
            done, _ = await asyncio.wait({writing}, timeout=0.3)
            assert not done
            gate.instead = None
            await asyncio.wait_for(writing, PATIENCE)
            assert peer.view.messages.value("r-out").text == "at last"
