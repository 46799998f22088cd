"""Positions on Kafka. A JSON topic's message is a row, so its offset is the position; a frame is a message of many."""

from __future__ import annotations

from typing import NamedTuple

from mendstream.contracts.ports import Block, Position
from mendstream.contracts.topics import SPECS, Codec, Stream, Topic

_ROW_BITS = 17
MOST_ROWS = (1 << _ROW_BITS) - 1
"""Of one frame."""
_ROW = MOST_ROWS


class Message(NamedTuple):
    """One message as fetched."""

    offset: int
    rows: int
    at_us: int
    value: bytes


def framed(stream: Stream) -> bool:
    return stream.topic is not Topic.SOURCE and SPECS[stream.topic].codec is Codec.FRAME


def place(stream: Stream, offset: int, row: int = 0) -> Position:
    return offset << _ROW_BITS | row if framed(stream) else offset


def offset_of(stream: Stream, position: Position) -> int:
    """Of the message that `position` lies in."""
    return position >> _ROW_BITS if framed(stream) else position


def row_of(stream: Stream, position: Position) -> int:
    return position & _ROW if framed(stream) else 0


def passed(stream: Stream, message: Message, position: Position) -> bool:
    """Whether all of `message` lies before `position`."""
    return place(stream, message.offset) + message.rows <= position


def blocks(
    stream: Stream, messages: list[Message], position: Position, max_rows: int, max_bytes: int
) -> list[Block]:  # fmt: skip
    """`messages` from `position` on, at least one of them whatever its size."""
    found: list[Block] = []
    size, join = 0, not framed(stream)
    lines: list[bytes] = []
    for message in messages:
        if passed(stream, message, position):
            continue
        if max_rows <= 0 or (size and size + len(message.value) > max_bytes):
            break
        size += len(message.value)
        at = place(stream, message.offset)
        if join:
            if found and found[-1].next == at and found[-1].at_us == message.at_us:
                lines.append(message.value)
                found[-1].rows += 1
            else:
                _close(found, lines)
                lines = [message.value]
                found.append(Block(stream, at, 1, b"", message.at_us))
            max_rows -= 1
            continue
        skip = max(0, position - at)
        take = min(message.rows - skip, max_rows)
        found.append(Block(stream, at + skip, take, message.value, message.at_us, skip))
        max_rows -= take
    if join:
        _close(found, lines)
    return found


def _close(found: list[Block], lines: list[bytes]) -> None:
    if found:
        found[-1].value = b"\n".join(lines) + b"\n"
