"""A service with tokens, and principals of every role and of two tenants."""

import time
from pathlib import Path

import pytest

from crdt_sessions.ids import Millis
from crdt_sessions_server.auth import Role, mint
from tests.processes import Server

SECRET = b"a secret that is good for tests, and long enough for everybody who looks at it"


def token(principal="ann", role="owner", *, ttl_s=86_400, **claims):
    """Make a token that the services of these tests take."""
    return mint(SECRET, now=Millis(int(time.time() * 1000)), ttl_s=ttl_s, principal=principal, role=role, **claims)


def bearer(*args, **claims):
    return {"Authorization": f"Bearer {token(*args, **claims)}"}


TOKENS = {role: token(f"a-{role}", role, kind="agent" if role is Role.AGENT else "human") for role in Role}
"""Role to a token of somebody who has it."""


def guarded(folder: Path, *flags):
    """Start a service with tokens."""
    secret = folder / "secret"
    secret.write_bytes(SECRET)
    return Server(
        folder / "s.db", "--jwt-secret-file", secret, "--default-agent", "", "--connect-burst", "100000",
        "--post-burst", "100000", "--claim-burst", "100000", "--bad-token-burst", "100000", "--page", "--agent-wait-s", "0", *flags,
    )  # fmt: skip


def pytest_collection_modifyitems(items):
    """Give Schemathesis' items the names of their operations, which pytest 9.2 leaves out of their ids."""
    for item in items:
        if getattr(item, "operation_label", None):
            item._id = item.parent.id.child(item.name)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    server = guarded(tmp_path_factory.mktemp("access"))
    yield server
    server.close()
