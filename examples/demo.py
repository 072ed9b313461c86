"""The demo: the service on a SQLite file, an agent in front of a model, and the page in a browser.

    python examples/demo.py

Without OPENAI_BASE_URL and OPENAI_API_KEY the model is a local replay of recorded streams.
``--once`` asks one question, prints the answer and ends.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent


def start(*command: object, env: dict[str, str] | None = None, quiet: bool = False) -> subprocess.Popen[bytes]:
    output = subprocess.DEVNULL if quiet else None
    return subprocess.Popen([sys.executable, *map(str, command)], env={**os.environ, **(env or {})}, stdout=output)


def wait_for(port: int, process: subprocess.Popen[bytes], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"a part of the demo ended with status {process.returncode}; its message stands above")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    sys.exit(f"nothing listens on port {port} after {seconds:g} s")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the demo.")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--database", default="demo.db")
    parser.add_argument("--session", default="demo")
    parser.add_argument("--rate", type=float, default=60.0, help="events per second of the replayed model")
    parser.add_argument("--once", action="store_true", help="ask one question, print the answer and end")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the finally below stops the parts
    url = f"http://127.0.0.1:{options.port}"
    parts: list[subprocess.Popen[bytes]] = []
    environment = {}
    try:
        parts.append(
            start("-m", "crdt_sessions_server", "serve", "--port", options.port, "--database", options.database,
                  "--log-level", "warning")
        )  # fmt: skip
        wait_for(options.port, parts[-1])
        if "OPENAI_BASE_URL" not in os.environ and "OPENAI_API_KEY" not in os.environ:
            port = free_port()
            parts.append(start(HERE / "replay_server.py", "--port", port, "--rate", options.rate, quiet=True))
            wait_for(port, parts[-1])
            environment = {"OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1", "OPENAI_API_KEY": "none"}
        parts.append(start(HERE / "model_agent.py", "--url", url, env=environment))
        if options.once:
            question = ["--post", "Tell me something worth knowing", "--name", "Demo"]
            asked = start(HERE / "terminal_peer.py", "--url", url, "--session", options.session, *question)
            if asked.wait() != 0:
                sys.exit("the question was not answered")
            return
        print(f"\n  open {url}/?session={options.session} in two tabs\n"
              f"  and in another terminal: python examples/terminal_peer.py --url {url} --session {options.session}\n"
              "  Ctrl-C ends the demo; what was said stays in " + options.database + "\n", flush=True)  # fmt: skip
        parts[0].wait()
    except KeyboardInterrupt:
        print()
    finally:
        for part in reversed(parts):
            part.terminate()
        for part in parts:
            part.wait()


if __name__ == "__main__":
    main()
