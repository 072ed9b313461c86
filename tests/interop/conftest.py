import pytest

from tests.interop.node import NodePeers


@pytest.fixture
def js():
    peers = NodePeers()
    yield peers
    peers.close()
