"""Schemathesis against the OpenAPI document: every request gets an answer, one that the document has, and no 500."""

import contextlib
import gc

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.access.conftest import TOKENS, guarded
from tests.profiles import sample

pytestmark = [  # streams that are given up leave their sockets to the collector
    pytest.mark.filterwarnings("ignore:unclosed <socket"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

schemathesis.serializer.alias("application/x-ndjson", "text/plain")  # lines, which it does not know
SCHEMA = schemathesis.openapi.from_path("schemas/v1/openapi.json")
SCHEMA.config.phases.coverage.enabled = bool(sample("coverage"))


def bodies_are_as_documented(ctx, response, case):
    """Hold a body against its schema; a stream's schema is that of its text, which is looked at event by event."""
    if "text/event-stream" not in response.headers.get("content-type", [""])[0]:
        response_schema_conformance(ctx, response, case)


CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    bodies_are_as_documented,
]


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    server = guarded(tmp_path_factory.mktemp("openapi"))
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {TOKENS['service']}"}) as http:
        http.post("/v1/sessions", json={"id": "room"})
        http.post("/v1/sessions/room/messages", json={"text": "?", "agent": "busy"})  # else OpenAI's clients get 503
        http.post("/v1/runs/claim", json={"agents": ["busy"], "leaseS": 900})
    yield server
    server.close()
    gc.collect()


@SCHEMA.parametrize()
@settings(
    max_examples=10, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture],
)  # fmt: skip
@pytest.mark.sampled(6)
def test_every_answer_is_one_of_the_document(case, target):
    headers = {"Authorization": f"Bearer {TOKENS['service']}"}
    if "waitS" in (case.query or {}):
        case.query["waitS"] = 0
    if isinstance(case.body, dict) and "waitS" in case.body:
        case.body["waitS"] = 0
    with contextlib.suppress(requests.exceptions.RequestException):  # a stream goes on, as it should
        case.call_and_validate(base_url=target.url, headers=headers, timeout=1, checks=CHECKS)
