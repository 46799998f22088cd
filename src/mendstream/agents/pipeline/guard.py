"""User code over a frame: a record that it refuses is set apart as a dead letter, the rest goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from mendstream.contracts.errors import UsageError
from mendstream.contracts.frame import Frame

T = TypeVar("T")


def guarded(
    frame: Frame, compute: Callable[[Frame], T]
) -> Iterator[tuple[Frame, T | None, Exception | None]]:  # fmt: skip
    """Parts of `frame` in order, each with its result, or with the error of a single refused row.

    Halves a failing frame until the rows that fail stand alone. If every row fails it is a bug in the user's code and
    not in the data: the first error is raised, the turn is not finished, and the process starts again.
    """
    parts = list(_split(frame, compute))
    if frame.rows > 1 and all(error is not None for _, _, error in parts):
        first = parts[0][2]
        raise UsageError(f"the pipeline's code failed on each of {frame.rows} records: {first!r}") from first
    yield from parts


def _split(frame: Frame, compute: Callable[[Frame], T]) -> Iterator[tuple[Frame, T | None, Exception | None]]:
    try:
        yield frame, compute(frame), None
    except Exception as error:  # noqa: BLE001 - user code may raise anything; its error travels with the dead letter
        if frame.rows <= 1:
            yield frame, None, error
            return
        half = frame.rows // 2
        yield from _split(frame.slice(0, half), compute)
        yield from _split(frame.slice(half, frame.rows), compute)
