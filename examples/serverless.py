"""An agent without a process: a function that a webhook wakes, which works over plain HTTP and goes.

    crdt-sessions serve --webhooks-file hooks.json &
    python examples/serverless.py --port 9000 --secret whsec_...

``wake`` is what a cloud function would run for each request. ``--once`` starts a service of its own with the
webhook set up, asks one question, prints the answer and ends.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import quote

import httpx

AGENT = "night-shift"


def genuine(headers: Any, body: bytes, secret: str) -> bool:
    """Check the signature (Standard Webhooks); the library ``standardwebhooks`` does the same."""
    if abs(time.time() - float(headers.get("webhook-timestamp", 0))) > 300:
        return False
    signed = b".".join((headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body))
    digest = hmac.new(base64.b64decode(secret.removeprefix("whsec_")), signed, hashlib.sha256).digest()
    expected = f"v1,{base64.b64encode(digest).decode()}"
    return any(hmac.compare_digest(expected, each) for each in headers.get("webhook-signature", "").split())


def wake(event: dict[str, Any], service: str) -> None:
    """Take the run one was told of, answer, and go. Every request may be repeated."""
    told = event["data"]
    if event["type"] != "run.queued" or told["agent"] not in (AGENT, "*"):
        return
    run = f"/v1/sessions/{quote(told['session'], safe='')}/runs/{quote(told['run'], safe='')}"
    with httpx.Client(base_url=service) as http:
        claimed = http.post(f"{run}/claim", json={"agents": [AGENT], "leaseS": 60})
        if claimed.status_code == 409:
            return  # somebody else has it
        grant = claimed.raise_for_status().json()
        lease = {"Lease-Token": grant["token"]}
        messages = http.get(f"/v1/sessions/{quote(told['session'], safe='')}/messages").json()["messages"]
        asked = next(m for m in messages if m["id"] == grant["run"]["request"]["messageId"])
        offset = 0
        for word in f"Good evening. You said: {asked['parts'][0]['text']}".split(" "):
            said = http.post(f"{run}/append", json={"offset": offset, "text": word + " "}, headers=lease)
            offset = said.raise_for_status().json()["offset"]
        http.post(f"{run}/result", json={"status": "completed", "reason": "stop"}, headers=lease).raise_for_status()


def listen(port: int, secret: str, service: str) -> HTTPServer:
    """Return a server that wakes the agent for each genuine webhook."""

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if not genuine(self.headers, body, secret):
                self.send_error(401)
                return
            wake(json.loads(body), service)
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return HTTPServer(("127.0.0.1", port), Hook)


def once() -> None:
    secret = "whsec_" + base64.b64encode(os.urandom(32)).decode()
    hook = listen(0, secret, "")
    with tempfile.TemporaryDirectory() as folder:
        hooks = Path(folder) / "hooks.json"
        url = f"http://127.0.0.1:{hook.server_port}/"
        hooks.write_text(json.dumps([{"name": AGENT, "url": url, "secret": secret, "events": ["run.queued"]}]))
        command = [sys.executable, "-m", "crdt_sessions_server", "serve", "--port", "0", "--log-level", "warning"]
        command += ["--database", f"{folder}/s.db", "--webhooks-file", str(hooks)]
        service = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert service.stdout is not None
            found = re.search(r"on (http://\S+)", service.stdout.readline())
            assert found is not None, "the service did not start"
            hook.server_close()
            hook = listen(hook.server_port, secret, found.group(1))
            Thread(target=hook.serve_forever, daemon=True).start()
            with httpx.Client(base_url=found.group(1)) as http:
                http.post("/v1/sessions", json={"id": "night"})
                http.post("/v1/sessions/night/messages", json={"text": "Anybody awake?", "agent": AGENT})
                answer: list[Any] = []
                while not answer or answer[-1].get("status") != "completed":
                    time.sleep(0.05)
                    answer = http.get("/v1/sessions/night/runs").json()["runs"]
                print(http.get("/v1/sessions/night/messages").json()["messages"][-1]["parts"][0]["text"])
            hook.shutdown()
        finally:
            service.terminate()
            service.wait()
            service.stdout.close()
            hook.server_close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Be woken by webhooks.", allow_abbrev=False)
    parser.add_argument("--service", default="http://127.0.0.1:8000")
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--secret", default=os.environ.get("WEBHOOK_SECRET", ""), help="as in the webhooks file")
    parser.add_argument("--once", action="store_true", help="ask one question of a service of one's own and end")
    options = parser.parse_args()
    if options.once:
        once()
        sys.exit()
    if not options.secret:
        sys.exit("serverless.py: give the --secret of the webhooks file, or set WEBHOOK_SECRET")
    try:
        listen(options.port, options.secret, options.service).serve_forever()
    except OSError as error:
        sys.exit(f"serverless.py: cannot listen on port {options.port}: {error.strerror}; take another --port")
