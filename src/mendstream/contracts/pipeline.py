"""A user's own pipeline: event type, keyed windows, features, fallback and decision, in about twenty lines.

Everything takes whole columns: numbers as numpy arrays, strings as Arrow arrays, one row per event.

    class Payment(Event):
        id: str
        card: str
        amount: float

    fraud = Pipeline("fraud", event=Payment, id="id", key="card", windows={"usual": Mean("amount", last=8)})

    @fraud.features
    def features(events, windows):
        return {"amount": events["amount"], "ratio": events["amount"] / windows["usual"]}

    @fraud.fallback
    def rules(features):
        return (features["amount"] > 5000) * 1.0

    @fraud.decide
    def decide(score, features, threshold):
        return np.where(score >= threshold, "block", "pass")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mendstream.contracts.errors import UsageError

Array = np.ndarray[Any, np.dtype[Any]]
RESERVED = frozenset({"event_id", "key", "event_time_us", "born_us", "score", "shadow_score"})
"""Columns of the house's own; no feature may have such a name."""
Columns = Mapping[str, Any]
"""Column name -> numpy array (numbers, NaN where missing) or Arrow string array."""


class Event(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """Base of a user's event type: fields are `str`, `int`, `float`, `bool`, or one of these `| None`.

    Bounds go into the type, as `Annotated[float, Meta(ge=0)]`; a record that breaks them becomes a dead letter.
    """


@dataclass(frozen=True, slots=True)
class Mean:
    """Mean of a numeric column over the `last` earlier events of the same key; NaN for a key's first event."""

    column: str
    last: int


class Pipeline:
    """What the four stages need to know of the user's case."""

    def __init__(
        self,
        name: str,
        *,
        event: type[Event],
        key: str,
        id: str | None = None,  # noqa: A002 - the user's word for it
        time: str | None = None,
        windows: Mapping[str, Mean] | None = None,
        positive: str = "positive",
        negative: str = "negative",
    ) -> None:
        """`id`: the field with the event's id (None: ingestion issues one). `time`: the field with the event's time in
        seconds since 1970 (None: when it was accepted). `windows`: per-key means handed to the feature function.
        """
        fields = {field.name: field.type for field in msgspec.structs.fields(event)}
        for role, column in (("key", key), ("id", id), ("time", time)):
            if column is not None and column not in fields:
                raise UsageError(f"pipeline {name}: {role} = {column!r} is no field of {event.__name__}",
                                 hint=f"fields: {', '.join(fields)}")  # fmt: skip
        roles: dict[str, str | None] = {"event_id": id, "key": key, "event_time_us": None, "born_us": None}
        for reserved, field in roles.items():
            if reserved in fields and (field != reserved or fields[reserved] is not str):
                raise UsageError(
                    f"pipeline {name}: field {reserved!r} of {event.__name__} has the name of a column of the house",
                    hint=f"rename it; {reserved!r} may only be the pipeline's own string field of that role",
                )
        self.name = name
        self.event = event
        self.key = key
        self.id = id
        self.time = time
        self.windows = dict(windows or {})
        for window, mean in self.windows.items():
            if mean.column not in fields:
                raise UsageError(
                    f"pipeline {name}: window {window!r} is over {mean.column!r}, no field of {event.__name__}",
                    hint=f"fields: {', '.join(fields)}",
                )
        self.positive = positive
        self.negative = negative
        self._features: Callable[[Columns, Columns], Columns] | None = None
        self._fallback: Callable[[Columns], Array] | None = None
        self._decide: Callable[[Array, Columns, float], Array] = self._by_threshold

    def features(self, function: Callable[[Columns, Columns], Columns]) -> Callable[[Columns, Columns], Columns]:
        """Decorator: (event columns, window columns) -> feature columns, in the order that the model wants them."""
        self._features = function
        return function

    def fallback(self, function: Callable[[Columns], Array]) -> Callable[[Columns], Array]:
        """Decorator: feature columns -> scores in [0, 1], without the model. SAFE_MODE runs it."""
        self._fallback = function
        return function

    def decide(self, function: Callable[[Array, Columns, float], Array]) -> Callable[[Array, Columns, float], Array]:
        """Decorator: (scores, feature columns, threshold) -> outcomes (strings).

        Without it: `positive` where score >= threshold, else `negative`.
        """
        self._decide = function
        return function

    def compute_features(self, events: Columns, windows: Columns) -> dict[str, Array]:
        """float32 columns; raises UsageError if the user's function gives something else."""
        if self._features is None:
            raise UsageError(
                f"pipeline {self.name} has no features", hint="decorate a function with @pipeline.features"
            )
        columns = self._features(events, windows)
        taken = RESERVED.intersection(columns)
        if taken:
            raise UsageError(
                f"pipeline {self.name}: features may not be named {', '.join(sorted(taken))}", hint="rename"
            )
        return {name: np.asarray(values, dtype=np.float32) for name, values in columns.items()}

    def compute_fallback(self, features: Columns) -> Array:
        if self._fallback is None:
            raise UsageError(
                f"pipeline {self.name} has no fallback", hint="decorate a function with @pipeline.fallback"
            )
        return np.asarray(self._fallback(features), dtype=np.float64)

    def compute_outcome(self, score: Array, features: Columns, threshold: float) -> Sequence[str]:
        return np.asarray(self._decide(score, features, threshold)).tolist()  # type: ignore[no-any-return]

    def _by_threshold(self, score: Array, features: Columns, threshold: float) -> Array:
        return np.where(score >= threshold, self.positive, self.negative)


def codes(column: pa.Array, vocabulary: Sequence[str]) -> Array:
    """Position of each string in `vocabulary` as float64, NaN where it is not in it; shape [rows]."""
    index = pc.index_in(column, value_set=_value_set(tuple(vocabulary), column.type))
    return index.to_numpy(zero_copy_only=False).astype(np.float64)  # type: ignore[no-any-return]


@lru_cache(maxsize=64)
def _value_set(vocabulary: tuple[str, ...], kind: pa.DataType) -> pa.Array:
    return pa.array(vocabulary, type=kind)
