"""What bridges make of what a model writes, without a model."""

import pytest

from crdt_sessions.bridges.deltas import Delta, write


class Recorded:
    """Stands for a run's message, and keeps how tool inputs end."""

    run_id = "r"

    def __init__(self):
        self.ended = {}

    async def tool_input(self, call_id, name, text):
        pass

    def end_tool_input(self, call_id, input=None, *, error=None):
        self.ended[call_id] = (input, error)

    def finish(self, reason):
        self.finished = reason


@pytest.mark.parametrize(
    ("written", "input", "why"),
    [
        ('{"a": [1, 2.5]}', {"a": [1, 2.5]}, None),
        ("", {}, None),
        ('{"a": NaN}', None, "a: nan is not JSON"),
        ('{"a": 1, "a": 2}', None, "a: stands there twice"),
        ('{"a": 12345678901234567890}', None, "input.a: an integer beyond"),
        ('{"a": ' + "[" * 100 + "]" * 100 + "}", None, "nested deeper"),
        ('{"a": ' + "[" * 100_000, None, "recursion"),
        ('{"a": 1', None, "stopped in the middle"),
        ("*** Begin Patch", None, None),
    ],
)
async def test_a_tools_input_that_no_document_can_hold_fails_the_call_and_not_the_run(written, input, why):
    async def stream():
        yield Delta("tool", written, call_id="c", name="t")
        yield Delta("finish", "stop")

    out = Recorded()
    await write(out, stream())
    found, error = out.ended["c"]
    assert found == input
    assert (error is None) == (why is None)
    assert (why or "") in (error or "")
    assert out.finished == "stop"
