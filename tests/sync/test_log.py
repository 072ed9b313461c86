"""The update log keeps what a reader lacks and no more, within bounds that count what memory costs."""

import os
import tracemalloc

import pytest
from pycrdt import Doc, Text

from crdt_sessions.ids import PeerId, Seq
from crdt_sessions.sync.log import LogMemory, UpdateLog

READER, AUTHOR = PeerId(1), PeerId(2)
UPDATE = b"\x00\x00"
LARGE = 10**9


def written(log, count, delta=UPDATE):
    """Append and commit *count* entries, one by one."""
    for _ in range(count):
        log.commit(log.append(delta, AUTHOR))
    return log


@pytest.mark.parametrize("size", [24, 400])
def test_the_memory_that_is_counted_is_the_memory_that_is_used(size):
    deltas = 5000
    tracemalloc.start()
    try:
        log = UpdateLog(Seq(0), LARGE)
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(deltas):
            log.append(os.urandom(size), AUTHOR)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.8 * log.bytes < after - before <= 1.05 * log.bytes


def test_entries_that_every_reader_has_are_dropped_and_no_others():
    log = written(UpdateLog(Seq(0), LARGE), 10)
    log.append(UPDATE, AUTHOR)
    log.forget(Seq(7))
    assert (log.start, len(log)) == (7, 4)
    assert log.portion(Seq(7), READER).cursor == 10
    assert log.portion(Seq(6), READER) is None
    log.forget(log.head)
    assert (log.start, len(log)) == (10, 1), "what is not committed is still to be sent"
    log.commit(log.head)
    assert log.portion(Seq(10), READER).cursor == 11


def test_a_reader_that_lags_falls_off_at_the_bound():
    log = written(UpdateLog(Seq(0), 1000), 100)
    assert log.bytes <= 1000
    assert 0 < len(log) <= 15
    assert log.portion(Seq(0), READER) is None
    assert log.portion(log.start, READER).cursor == 100


def test_a_log_of_any_length_seldom_looks_for_entries_to_drop():
    log = UpdateLog(Seq(0), LARGE)
    looks = 0
    for _ in range(10_000):  # a reader that never reads
        if log.commit(log.append(UPDATE, AUTHOR)):
            looks += 1
            log.forget(Seq(0))
    assert looks < 10


def test_frames_that_readers_share_are_bounded_too():
    document = Doc()
    document["text"] = text = Text()
    text += "x" * 1000
    log = written(UpdateLog(Seq(0), 200_000), 100, document.get_update())
    for cursor in range(100):
        assert log.portion(Seq(cursor), READER).cursor == 100
        assert log._shared_bytes <= 200_000
    assert len(log._shared) > 1


def test_logs_that_share_their_memory_forget_in_the_order_in_which_they_were_written_to():
    memory = LogMemory(3000)
    first, second, third = (UpdateLog(Seq(0), LARGE, memory) for _ in range(3))
    for log in (first, second, third):
        written(log, 10)
    assert memory.bytes == first.bytes + second.bytes + third.bytes
    written(first, 5)
    written(third, 15)
    assert (len(second), len(first), len(third)) == (0, 15, 25)
    assert memory.bytes <= 3000
    assert second.portion(Seq(3), READER) is None, "its reader is brought up to date from the document"
    written(third, 20)
    assert (len(first), len(third)) == (0, 45)
    written(third, 20)
    assert (len(third), memory.bytes <= 3000) == (19, True), "at last its own"


def test_uncommitted_entries_are_never_dropped_for_other_logs():
    memory = LogMemory(1000)
    waiting, other = UpdateLog(Seq(0), LARGE, memory), UpdateLog(Seq(0), LARGE, memory)
    written(waiting, 1)
    for _ in range(20):
        waiting.append(UPDATE, AUTHOR)
    written(other, 50)
    assert len(waiting) == 20
    waiting.commit(waiting.head)
    assert waiting.portion(Seq(1), READER) is not None or waiting.start == waiting.tail
    waiting.close()
    other.close()
    assert memory.bytes == 0


def test_entries_before_and_after_a_cut_are_in_two_frames():
    log = UpdateLog(Seq(0), LARGE)
    written(log, 2)
    log.cut()
    written(log, 2)
    first = log.portion(Seq(0), READER)
    second = log.portion(first.cursor, READER)
    assert (first.cursor, second.cursor) == (2, 4)
    assert log.portion(Seq(1), READER).cursor == 2
