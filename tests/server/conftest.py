"""A client of the service that a module has."""

import pytest


@pytest.fixture
def http(service):
    with service.http() as client:
        yield client
