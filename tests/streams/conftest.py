import pytest

from tests.processes import Server


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    server = Server(
        tmp_path_factory.mktemp("streams") / "s.db",
        "--long-poll-s", 0.5, "--max-stream-bytes", 2048, "--max-streams-per-tenant", 40,
    )  # fmt: skip
    yield server
    server.close()


@pytest.fixture
def http(service):
    with service.http() as client:
        yield client


@pytest.fixture
def path(request):
    """A stream for each test."""
    name = "".join(char if char.isalnum() else "-" for char in request.node.name)[-60:].strip("-")
    return f"/v1/streams/{name}"
