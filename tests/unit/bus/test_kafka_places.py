"""Positions on Kafka: whatever the pieces in which a stream is read, each row comes once and in order."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mendstream.adapters.bus.kafka.places import MOST_ROWS, Message, blocks, offset_of, passed, place, row_of
from mendstream.contracts.topics import Stream, Topic

FRAMES = Stream(Topic.RAW_EVENTS, 0)
LINES = Stream(Topic.ALERTS, 0)
GAPS = st.integers(1, 3)
"""From one message to the next: between them lie the marks of transactions, and what was aborted."""


@st.composite
def kept(draw, most_rows):
    """Messages at growing offsets, each with its own number of rows."""
    offsets = itertools.accumulate(draw(st.lists(GAPS, min_size=1, max_size=12)), initial=draw(st.integers(0, 1 << 40)))
    return [
        Message(at, draw(st.integers(1, most_rows)), draw(st.integers(1, 2)) * 1000, b"%d" % at + b"." * (at % 7))
        for at in offsets
    ]


def rows_of(block, stream):
    """Each row by what it is made of: (value, its place in it)."""
    if stream == LINES:
        return [(line, 0) for line in block.value.splitlines()]
    return [(block.value, block.skip + row) for row in range(block.rows)]


def everything(messages, stream):
    return [(message.value, row) for message in messages for row in range(message.rows)]


def read(messages, stream, sizes, max_bytes):
    """All of it by positions, each time as much as the next of `sizes` says."""
    position, found = place(stream, messages[0].offset), []
    for most in itertools.cycle(sizes):
        got = blocks(stream, messages, position, most, max_bytes)
        if not got:
            return found
        for block in got:
            assert block.position >= position
            assert len(rows_of(block, stream)) == block.rows
            found += rows_of(block, stream)
            position = block.next


SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=5)


@given(kept(most_rows=6), SIZES, st.integers(1, 60))
def test_frames_read_in_any_pieces_give_each_row_once(messages, sizes, max_bytes):
    assert read(messages, FRAMES, sizes, max_bytes) == everything(messages, FRAMES)


@given(kept(most_rows=1), SIZES, st.integers(1, 60))
def test_lines_read_in_any_pieces_give_each_row_once(messages, sizes, max_bytes):
    assert read(messages, LINES, sizes, max_bytes) == everything(messages, LINES)


@given(kept(most_rows=6), st.integers(1, 9), st.integers(1, 9))
def test_no_more_rows_come_than_were_asked_for(messages, most, size):
    got = blocks(FRAMES, messages, place(FRAMES, messages[0].offset), most, 1 << size)
    assert 1 <= sum(block.rows for block in got) <= most


@given(st.integers(0, 1 << 45), st.integers(0, MOST_ROWS))
def test_a_position_tells_message_and_row(offset, row):
    position = place(FRAMES, offset, row)
    assert (offset_of(FRAMES, position), row_of(FRAMES, position)) == (offset, row)
    assert place(FRAMES, offset) <= position < place(FRAMES, offset + 1)


@pytest.mark.parametrize("rows", [1, MOST_ROWS])
def test_a_message_is_passed_behind_its_last_row(rows):
    message = Message(5, rows, 0, b"")
    assert not passed(FRAMES, message, place(FRAMES, 5) + rows - 1)
    assert passed(FRAMES, message, place(FRAMES, 5) + rows)
