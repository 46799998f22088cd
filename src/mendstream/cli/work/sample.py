"""A user's event type in, a few events of it out: made up within its bounds, or read from a file."""

from __future__ import annotations

import math
import time
import types
import typing
from pathlib import Path
from typing import Annotated, Any

import msgspec

from mendstream.contracts.errors import UsageError
from mendstream.contracts.pipeline import Event, Pipeline


def read_events(pipeline: Pipeline, path: Path, most: int) -> list[Event]:
    """The first events of a file of JSON lines; raises UsageError at the first line that is none."""
    found: list[Event] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if len(found) == most:
                break
            if not line.strip():
                continue
            try:
                found.append(msgspec.json.decode(line, type=pipeline.event))
            except msgspec.DecodeError as error:
                raise UsageError(
                    f"{path}:{number}: {error}", hint=f"a line is one {pipeline.event.__name__}"
                ) from error
    return found


def made_up_events(pipeline: Pipeline, count: int) -> list[Event]:
    """Raises msgspec.ValidationError if the type has conditions that made-up values do not meet (a pattern, say)."""
    fields = msgspec.structs.fields(pipeline.event)
    rows = [
        {field.encode_name: _value(pipeline, field.name, field.type, number) for field in fields}
        for number in range(count)
    ]
    return [msgspec.convert(row, pipeline.event) for row in rows]


def _value(pipeline: Pipeline, name: str, annotation: Any, number: int) -> Any:
    kind, metas, optional = _taken_apart(annotation)
    if optional and number % 3 == 2:
        return None
    if name == pipeline.time:
        return kind(time.time())
    if name == pipeline.key and kind is str:
        number //= 2  # two events of one key, so that windows fill
    if kind is bool:
        return number % 2 == 0
    if kind is str:
        return _text(name, metas, number)
    return _number(kind, metas, number) if kind in (int, float) else None


def _taken_apart(annotation: Any) -> tuple[Any, list[msgspec.Meta], bool]:
    """(the plain type, its conditions, whether None is allowed)."""
    if typing.get_origin(annotation) is Annotated:
        inner, *more = typing.get_args(annotation)
        kind, metas, optional = _taken_apart(inner)
        return kind, [*metas, *(meta for meta in more if isinstance(meta, msgspec.Meta))], optional
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        parts = [part for part in typing.get_args(annotation) if part is not types.NoneType]
        kind, metas, _ = _taken_apart(parts[0])
        return kind, metas, len(parts) < len(typing.get_args(annotation))
    return annotation, [], False


def _text(name: str, metas: list[msgspec.Meta], number: int) -> str:
    text = f"{name}-{number}"
    for meta in metas:
        text = text.ljust(meta.min_length or 0, "x")
        if meta.max_length is not None:
            text = text[max(0, len(text) - meta.max_length) :]
    return text


def _number(kind: type, metas: list[msgspec.Meta], number: int) -> Any:
    """Spread over what is allowed, both ends included."""
    low, high = _bounds(kind, metas)
    step = next((meta.multiple_of for meta in metas if meta.multiple_of), None)
    value = low + (high - low) * (number % 4) / 3
    if step:
        value = math.ceil(low / step) * step + math.floor((value - low) / step) * step
    return kind(value)


def _bounds(kind: type, metas: list[msgspec.Meta]) -> tuple[float, float]:
    edge = 1.0 if kind is int else 1e-6
    lows = [*(m.ge for m in metas if m.ge is not None), *(m.gt + edge for m in metas if m.gt is not None)]
    highs = [*(m.le for m in metas if m.le is not None), *(m.lt - edge for m in metas if m.lt is not None)]
    if lows:
        return lows[0], highs[0] if highs else lows[0] + 100
    return (min(0.0, highs[0] - 100), highs[0]) if highs else (0.0, 100.0)
