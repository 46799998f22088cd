"""Pipelines of a user whose own code goes wrong in ways that no shipped fault has.

They are the flights pipeline with one stage that looks for a file in the working folder, which is the folder where the
house was started: the test puts it there. Nothing of the house knows of it.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from mendstream.contracts.pipeline import Array, Columns, Mean, Pipeline
from mendstream.demo import pipeline as demo

TIRED = Path("features-are-slow-until-a-restart")
SLUGGISH = Path("fallback-is-slow")
TIRED_S = 0.45
SLUGGISH_S = 0.9
"""Under half of the two seconds that the guard looks back: what it looks at always holds a whole step."""
_BORN = time.time()


def _flights(name: str) -> Pipeline:
    return Pipeline(
        name, event=demo.Flight, id="id", key="tailnum", windows={"tail_delay4": Mean("dep_delay", last=4)},
        positive="late", negative="on-time",
    )  # fmt: skip


tired = _flights("tired")
"""Its features are slow in every process that is older than the file: only a new process is fast."""


@tired.features
def tired_features(events: Columns, windows: Columns) -> Columns:
    if TIRED.exists() and TIRED.stat().st_mtime > _BORN:
        time.sleep(TIRED_S)
    return demo.features(events, windows)


tired.fallback(demo.leaves_late)

sluggish = _flights("sluggish")
"""Its rule fallback is far slower than any model while the file is there: SAFE_MODE makes a slow house slower."""
sluggish.features(demo.features)


@sluggish.fallback
def sluggish_fallback(features: Columns) -> Array:
    if SLUGGISH.exists():
        time.sleep(SLUGGISH_S)
    return demo.leaves_late(features)


LETHAL = Path("lethal-event")
lethal = _flights("lethal")
"""The process dies whenever it computes the features of the event that the file names."""


@lethal.features
def lethal_features(events: Columns, windows: Columns) -> Columns:
    if LETHAL.exists() and LETHAL.read_text() in events["event_id"].to_pylist():
        os.kill(os.getpid(), signal.SIGKILL)
    return demo.features(events, windows)


lethal.fallback(demo.leaves_late)
