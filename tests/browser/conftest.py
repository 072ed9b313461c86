"""One browser for the tests of a module, and a service that asks for no token and answers nobody by itself."""

import pytest

from tests.browser.chromium import Chromium
from tests.browser.room import Room
from tests.processes import Server


@pytest.fixture(scope="module")
def browser():
    chromium = Chromium()
    yield chromium
    chromium.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("open") / "s.db", "--default-agent", "")
    yield server
    server.close()


@pytest.fixture
def room(service):
    """A session on that service."""
    room = Room(service)
    yield room
    room.http.close()
