"""Behind front ends that compress and buffer, first words arrive before the answer is complete: real ones, each stream."""

import asyncio
import shutil
from contextlib import AsyncExitStack

import httpx
import pytest

from tests.gateways.conftest import AVAILABLE, JS
from tests.processes import PATIENCE, Process, Server, free_port

pytestmark = pytest.mark.interop

_NGINX = """
daemon off; master_process off; pid nginx.pid; error_log stderr;
events {}
http {
  access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  gzip on; gzip_types *; gzip_min_length 1; gzip_proxied any;
  server {
    listen 127.0.0.1:%(port)d%(http2)s;
    location / { proxy_pass %(upstream)s; proxy_http_version 1.1; }
  }
}
"""
_CADDY = """
{
  admin off
  auto_https off
  servers {
    protocols h1 h2c
  }
}
http://127.0.0.1:%(port)d {
  bind 127.0.0.1
  encode gzip
  reverse_proxy %(upstream)s
}
"""


def _express(folder, upstream, http2):
    if not AVAILABLE or not (JS / "node_modules" / "express").is_dir():
        pytest.skip("needs Node and its packages: install Node 20 or newer, then run make setup")
    process = Process("node", JS / "compressing.mjs", upstream)
    return process, process.wait_for(r"on (http://\S+)").group(1)


def _nginx(folder, upstream, http2):
    return _program("nginx", folder, _NGINX, upstream, " http2" if http2 else "", "-p", str(folder), "-c")


def _caddy(folder, upstream, http2):
    return _program("caddy", folder, _CADDY, upstream, "", "run", "--adapter", "caddyfile", "--config")


def _program(name, folder, configuration, upstream, http2, *arguments):
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"needs {name}: on Debian, apt-get install {name}, which make setup does as root")
    port = free_port()
    file = folder / f"{name}.conf"
    file.write_text(configuration % {"port": port, "upstream": upstream, "http2": http2})
    env = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    return Process(path, *arguments, file, env=env), f"http://127.0.0.1:{port}"


FRONT_ENDS = {
    "express": (_express, False), "nginx": (_nginx, False), "nginx over HTTP/2": (_nginx, True),
    "caddy": (_caddy, False), "caddy over HTTP/2": (_caddy, True),
}  # fmt: skip


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("front-ends") / "s.db")
    yield server
    server.close()


@pytest.fixture(params=FRONT_ENDS)
def front_end(request, upstream, tmp_path):
    """Address of a front end to the service, and whether it is spoken to over HTTP/2."""
    start, http2 = FRONT_ENDS[request.param]
    process, url = start(tmp_path, upstream.url, http2)
    yield url, http2
    process.close()


class Stream:
    """A response that is read as it comes."""

    def __init__(self, name, response):
        self.name, self.response, self.text = name, response, ""
        self._pieces = response.aiter_text()

    async def until(self, words):
        """Read on until *words* have come."""
        while words not in self.text:
            self.text += await anext(self._pieces)

    async def to_the_end(self):
        async for piece in self._pieces:
            self.text += piece


def asked(room):
    """How each gateway asks in a session of its own, and how the session's other streams are read."""
    gateways = "/v1/gateways"
    agui = {"threadId": f"{room}-ag", "runId": "r", "state": {}, "tools": [], "context": [], "forwardedProps": {}}
    said = [{"id": "u", "role": "user", "content": "?"}]
    ai = {"id": f"{room}-ai", "messages": [{"id": "u", "role": "user", "parts": [{"type": "text", "text": "?"}]}]}
    openai = {"model": "*", "stream": True, "messages": [{"role": "user", "content": "?"}]}
    return {
        "ai-sdk": ("POST", f"{gateways}/ai-sdk/chat", ai, {}),
        "ag-ui": ("POST", f"{gateways}/ag-ui", agui | {"messages": said}, {}),
        "tanstack": (
            "POST",
            f"{gateways}/tanstack/{room}-ts",
            agui | {"messages": said, "threadId": f"{room}-ts"},
            {},
        ),
        "openai": ("POST", f"{gateways}/openai/chat/completions", openai, {"X-Session-Id": f"{room}-oa"}),
        "events": ("GET", f"/v1/sessions/{room}-ai/events", None, {}),
        "lines": ("GET", f"/v1/sessions/{room}-ai/events", None, {"Accept": "application/x-ndjson"}),
    }


async def opened(stack, http, name, method, path, body, headers):
    headers = {"Accept-Encoding": "gzip", **headers}
    response = await stack.enter_async_context(http.stream(method, path, json=body, headers=headers))
    assert response.status_code == 200, await response.aread()
    return Stream(name, response)


async def claimed(http):
    while (answer := await http.post("/v1/runs/claim", json={"agents": ["bot"], "waitS": 20})).status_code == 204:
        pass
    grant = answer.json()
    return f"/v1/sessions/{grant['session']}/runs/{grant['run']['id']}", {"Lease-Token": grant["token"]}


async def ready(url, http2):
    """Return once the front end answers."""
    async with httpx.AsyncClient(base_url=url, http2=http2, http1=not http2) as http:
        while True:
            try:
                if (await http.get("/healthz")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)


async def test_first_words_arrive_before_the_answer_is_complete(upstream, front_end, tmp_path):
    url, http2 = front_end
    room = f"room-{abs(hash(str(tmp_path)))}"
    async with AsyncExitStack() as stack, asyncio.timeout(PATIENCE):
        await ready(url, http2)
        front = httpx.AsyncClient(base_url=url, http2=http2, http1=not http2, timeout=PATIENCE)
        http, direct = [
            await stack.enter_async_context(each)
            for each in (front, httpx.AsyncClient(base_url=upstream.url, timeout=PATIENCE))
        ]
        claims = [
            asyncio.create_task(claimed(direct)) for _ in range(4)
        ]  # OpenAI's clients are told if nobody is there
        streams = [await opened(stack, http, name, *rest) for name, rest in asked(room).items()]
        assert {each.response.http_version for each in streams} == {"HTTP/2" if http2 else "HTTP/1.1"}
        runs = [await each for each in claims]
        for run, lease in runs:
            await direct.post(f"{run}/append", json={"offset": 0, "text": "words before the end"}, headers=lease)
        for stream in streams:
            await stream.until("words before the end")  # nobody goes on before that: there is no end to wait for
        for run, lease in runs:
            await direct.post(f"{run}/append", json={"offset": 20, "text": ", and after"}, headers=lease)
            await direct.post(f"{run}/result", json={"status": "completed"}, headers=lease)
        for stream in streams[:4]:
            await stream.to_the_end()
            assert ", and after" in stream.text, stream.name
