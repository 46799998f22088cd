"""A pipeline in; what its functions do wrong on a few events out, on batches of none, of one and of several rows."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np

from mendstream.agents.pipeline import windows
from mendstream.agents.pipeline.columns import columns_from, writers
from mendstream.cli.work.findings import Finding
from mendstream.cli.work.sample import made_up_events, read_events
from mendstream.contracts.errors import UsageError
from mendstream.contracts.pipeline import Array, Columns, Event, Pipeline

ROWS = 6
THRESHOLD = 0.5
T = TypeVar("T")


class Trial(NamedTuple):
    findings: list[Finding]
    features: tuple[str, ...] | None
    """Names, in order; None if the feature function does not work."""


class Tried(NamedTuple):
    """What the three functions made of one batch."""

    features: Mapping[str, Array]
    scores: Array
    outcomes: list[str]


def try_pipeline(pipeline: Pipeline, events: Path | None) -> Trial:
    try:
        writers(pipeline.event)  # raises for a field that has no column
        rows = read_events(pipeline, events, ROWS) if events else made_up_events(pipeline, ROWS)
    except UsageError as error:
        return Trial([Finding("event", str(error), error.hint)], None)
    except msgspec.ValidationError as error:
        return Trial([Finding("event", f"no events can be made up: {error}", "give some with --events FILE")], None)
    findings: list[Finding] = []
    tried: dict[int, Tried] = {}
    for size in dict.fromkeys((len(rows), 1, 0)):
        made = _try(pipeline, rows[:size])
        if isinstance(made, Finding):
            findings.append(made)
        else:
            tried[size] = made
    whole = tried.get(len(rows))
    if whole is None:
        return Trial(findings, None)
    findings += _agree(tried, whole)
    if not findings:
        findings += _alone(pipeline, rows, whole)
    return Trial(findings, tuple(whole.features))


def _try(pipeline: Pipeline, rows: list[Event]) -> Tried | Finding:
    """The three functions in turn; the first that goes wrong ends it."""
    size = f"a batch of {len(rows)}"
    events = columns_from(pipeline.event, rows)
    means = _windows(pipeline, events, len(rows))
    features = _called("features", size, lambda: pipeline.compute_features(events, means))
    if isinstance(features, Finding):
        return features
    if wrong := _wrong_features(features, len(rows)):
        return Finding("features", f"{wrong} on {size}", "each column has one finite number, or NaN, a row")
    scores = _called("fallback", size, lambda: pipeline.compute_fallback(features))
    if isinstance(scores, Finding):
        return scores
    if wrong := _wrong_scores(scores, len(rows)):
        return Finding("fallback", f"{wrong} on {size}", "it returns one score in 0 to 1 a row")
    outcomes = _called("decide", size, lambda: list(pipeline.compute_outcome(scores, features, THRESHOLD)))
    if isinstance(outcomes, Finding):
        return outcomes
    if len(outcomes) != len(rows) or not all(isinstance(outcome, str) for outcome in outcomes):
        return Finding("decide", f"gives {len(outcomes)} outcomes on {size}", "it returns one string a row")
    return Tried(features, scores, outcomes)


def _called(name: str, size: str, call: Callable[[], T]) -> T | Finding:
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
            return call()
    except UsageError as error:
        return Finding(name, str(error), error.hint)
    except Exception as error:  # noqa: BLE001 - user code may raise anything
        last = traceback.extract_tb(error.__traceback__)[-1]
        return Finding(name, f"fails on {size}: {type(error).__name__}: {error}", f"at {last.filename}:{last.lineno}")


def _windows(pipeline: Pipeline, events: Columns, rows: int) -> dict[str, Array]:
    """As the feature agent makes them, from no history."""
    if not pipeline.windows:
        return {}
    keys = [str(key) for key in events[pipeline.key].tolist()]
    if not rows:
        return {name: np.zeros(0) for name in pipeline.windows}
    values = {mean.column: np.asarray(events[mean.column], dtype=np.float64) for mean in pipeline.windows.values()}
    return windows.update(windows.WindowState(), pipeline.windows, keys, values, max_keys=rows + 1)[0]


def _wrong_features(features: Mapping[str, Array], rows: int) -> str:
    if not features:
        return "gives no columns"
    for name, column in features.items():
        if column.shape != (rows,):
            return f"column {name} has shape {list(column.shape)}"
        if np.isinf(column).any():
            return f"column {name} holds an infinity"
    return ""


def _wrong_scores(scores: Array, rows: int) -> str:
    if scores.shape != (rows,):
        return f"gives shape {list(scores.shape)}"
    inside = (scores >= 0) & (scores <= 1)
    return "" if inside.all() else f"gives a score of {scores[~inside][0]:g}"


def _agree(tried: Mapping[int, Tried], whole: Tried) -> Iterator[Finding]:
    names = ", ".join(whole.features)
    for size, one in tried.items():
        if tuple(one.features) != tuple(whole.features):
            what = f"a batch of {size} has other columns: {', '.join(one.features)} instead of {names}"
            yield Finding("features", what, "every batch has the same columns in the same order")


def _alone(pipeline: Pipeline, rows: list[Event], whole: Tried) -> Iterator[Finding]:
    """Batches are cut anywhere: a row alone must come out as it did among the others."""
    events = columns_from(pipeline.event, rows)
    means = _windows(pipeline, events, len(rows))
    hint = "batches are cut anywhere: compute each row from its own columns and windows"
    for row in range(len(rows)):
        one = columns_from(pipeline.event, rows[row : row + 1])
        mean = {name: values[row : row + 1] for name, values in means.items()}
        with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
            features = pipeline.compute_features(one, mean)
            scores = pipeline.compute_fallback({name: column[row : row + 1] for name, column in whole.features.items()})
        for name, column in features.items():
            if not np.allclose(column, whole.features[name][row], rtol=1e-4, atol=1e-6, equal_nan=True):
                yield Finding("features", f"column {name} of a row depends on the other rows of its batch", hint)
                return
        if not np.allclose(scores, whole.scores[row], rtol=1e-4, atol=1e-6):
            yield Finding("fallback", "the score of a row depends on the other rows of its batch", hint)
            return
