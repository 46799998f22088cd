"""Frames by hand, for a stage alone."""

from __future__ import annotations

from typing import Any

from mendstream.contracts import frame as frames
from mendstream.contracts.agent import Batch
from mendstream.contracts.frame import Frame, FrameMeta
from mendstream.contracts.knobs import LiveConfig
from mendstream.contracts.topics import Topic

NOW = 1_700_000_000_000_000


def frame(
    columns: dict[str, Any], *, ids: list[str] | None = None, keys: list[str] | None = None, **meta: Any
) -> Frame:
    """Rows as long as the first column; ids e0, e1, ... and the one key `k` unless they are given."""
    rows = len(next(iter(columns.values())))
    ids = ids if ids is not None else [f"e{n}" for n in range(rows)]
    head = {"event_id": ids, "key": keys if keys is not None else ["k"] * rows, "event_time_us": [NOW] * rows}
    return frames.make(head, columns, FrameMeta(**{"partition": 0, "born_us": NOW, "made_us": NOW, **meta}))


def batch(*given: Frame, topic: Topic = Topic.RAW_EVENTS, resumed: bool = False, **knobs: Any) -> Batch:
    config = LiveConfig(**knobs)
    return Batch("i/stage/0/1", 0, config, frames=given, topics=[topic] * len(given), resumed=resumed)


def table(given: Frame) -> dict[str, list[Any]]:
    return given.batch.to_pydict()
