"""Whatever happens in a test, the processes that it started end."""

import sys
from types import SimpleNamespace

import pytest

from tests.crash import nodes
from tests.processes import Process, end_who_is_left


def test_a_process_that_a_test_forgot_is_found_named_and_ended():
    forgotten = Process(sys.executable, "-c", "print('here'); input()", stdin=True)
    forgotten.wait_for("here")
    ended = Process(sys.executable, "-c", "")
    ended.child.wait()
    (said,) = [each for each in end_who_is_left() if "test_endings.py" in each]
    assert "test_a_process_that_a_test_forgot" in said
    assert "here" in said
    assert forgotten.child.poll() is not None
    assert end_who_is_left() == []
    ended.close()


async def test_nodes_end_if_one_of_them_cannot_be_started(tmp_path, monkeypatch):
    started, closed = [], []

    class Node:
        def __init__(self, *flags, port, **options):
            if port == world.ports[1]:
                raise AssertionError("no database")
            self.child = SimpleNamespace(pid=2**22 + 1)  # nobody's
            started.append(self)

        def close(self):
            closed.append(self)

    monkeypatch.setattr(nodes, "Server", Node)
    monkeypatch.setattr(nodes, "lines", lambda *_: Lines(closed))
    world = nodes.World(None, "database", tmp_path, 1)
    with pytest.raises(AssertionError, match="no database"):
        async with world:
            pass
    assert len(started) == 2
    assert closed == ["lines", *started]
    assert not world._secret.parent.exists()


class Lines:
    """Stands for the lines between nodes."""

    def __init__(self, closed):
        self.closed = closed

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        self.closed.append("lines")

    def between(self, at):
        return "", ""

    def url(self, at):
        return ""

    def env(self, at):
        return {}
