import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.interop.node import NodePeers
from tests.processes import ROOT, Process, Server, free_port

JS = Path(__file__).parent / "js"
AVAILABLE = shutil.which("node") is not None and (JS / "node_modules").is_dir()


def agent(url, name="writer", **env):
    return Process(
        sys.executable, "-m", "tests.gateways.agent", url,
        env={"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'server'}", "AGENT": name, "DIED": "/nonexistent/died", **env},
        fork=True,
    )  # fmt: skip


def serving(folder, *flags):
    """Yield a service with an agent that does what it is told."""
    server = Server(folder / "s.db", "--default-agent", "writer", *flags)
    writer = agent(server.url)
    yield server
    writer.close()
    server.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A service with an agent that does what it is told."""
    yield from serving(tmp_path_factory.mktemp("gateways"))


@pytest.fixture(scope="module")
def impatient(tmp_path_factory):
    """A service that soon gives a call to another client."""
    yield from serving(tmp_path_factory.mktemp("impatient"), "--front-end-tool-s", "2")


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    """A service that waits for a page at work, but not long if there is one that may be the same."""
    yield from serving(tmp_path_factory.mktemp("patient"), "--front-end-tool-s", "600", "--gone-grace-s", "0.5")


class Mortal:
    """A service that may be killed and started again at the same address, and two agents, one of which dies once."""

    def __init__(self, folder):
        self._database, self._died = folder / "s.db", folder / "died"
        self._flags = (
            "--default-agent", "writer", "--lease-s", "6", "--gone-grace-s", "0.3", "--port", str(free_port()),
        )  # fmt: skip
        self.server = Server(self._database, *self._flags)
        self._workers = [agent(self.url, DIED=str(self._died)) for _ in range(2)]

    @property
    def url(self):
        return self.server.url

    @property
    def agent_died(self):
        return self._died.exists()

    def kill(self):
        self.server.kill()

    def start(self):
        self.server = Server(self._database, *self._flags)

    def close(self):
        for process in (*self._workers, self.server):
            process.close()


@pytest.fixture
def mortal(tmp_path):
    service = Mortal(tmp_path)
    yield service
    service.close()


@pytest.fixture(scope="module")
def clients():
    if not AVAILABLE:
        pytest.skip("needs Node and its packages: install Node 20 or newer, then run make setup")
    node = NodePeers(JS / "clients.mjs")
    yield node
    node.close()


@pytest.fixture
def room(request):
    """A session for each test."""
    return "".join(char if char.isalnum() else "-" for char in request.node.name)[-60:].strip("-")
