"""Durable streams belong to a tenant, and to those whose token is for them; a token that ends, ends its reads."""

import httpx
import pytest

from tests.access.conftest import bearer
from tests.processes import PATIENCE


@pytest.fixture
def http(service):
    with httpx.Client(base_url=service.url, timeout=PATIENCE) as client:
        yield client


def test_tenants_have_streams_of_their_own(http, room):
    acme, umbrella = (bearer("ann", tenant=tenant) for tenant in ("acme", "umbrella"))
    path = f"/v1/streams/{room}"
    assert http.put(path, headers=acme, content=b"ours").status_code == 201
    assert http.get(path, headers=umbrella).status_code == 404
    fork = {"Stream-Forked-From": path}
    assert http.put(f"{path}-fork", headers=umbrella | fork).status_code == 404
    assert http.delete(path, headers=umbrella).status_code == 404
    assert http.put(path, headers=umbrella, content=b"theirs").status_code == 201
    assert http.get(path, headers=acme).content == b"ours"


def test_a_token_is_for_some_streams_and_for_no_forks_of_others(http, room):
    path, mine = f"/v1/streams/{room}", f"/v1/streams/mine/{room}"
    http.put(path, headers=bearer("ann"), content=b"secret")
    eve = bearer("eve", sessions=["mine/*"])
    for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
        assert http.request(method, path, headers=eve).status_code == 403, method
    assert http.put(mine, headers=eve | {"Stream-Forked-From": path}).status_code == 403
    assert http.put(mine, headers=eve).status_code == 201


def test_a_read_ends_when_the_token_is_revoked(http, room):
    path = f"/v1/streams/{room}"
    http.put(path, headers=bearer("ann"), content=b"x")
    reader = bearer(f"reader-{room}", "viewer")
    with http.stream("GET", path, params={"offset": "-1", "live": "sse"}, headers=reader) as answer:
        lines = answer.iter_lines()
        while "control" not in next(lines):
            pass
        admin = bearer("root", "service")
        assert http.post("/v1/revocations", json={"principal": f"reader-{room}"}, headers=admin).is_success
        assert "event: data" not in list(lines), "it has ended, and told nothing more"
    assert http.get(path, headers=reader).status_code == 401
