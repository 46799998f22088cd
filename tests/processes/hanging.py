"""The house's own child processes, but that the first life of its judge hangs in a step once a file says so."""

from __future__ import annotations

import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from mendstream.runtime import worker
from mendstream.runtime.roster import Place
from mendstream.settings import load

_run = worker.main


def main(environment: dict[str, str], place: Place, generation: int, lifeline: Connection | None) -> None:
    """A body for LocalRestarter."""
    if (place.role, generation) == ("judge", 1):
        _hang_at(order(Path(load(env=environment, dotenv=None).settings.run.data_dir)))
    _run(environment, place, generation, lifeline)


def order(root: Path) -> Path:
    """Where this file is, the judge hangs."""
    return root / "hang"


def _hang_at(path: Path) -> None:
    from mendstream.agents.monitoring.judge import JudgeAgent

    real = JudgeAgent.step

    def step(self: JudgeAgent, *given: Any) -> Any:
        if path.exists():
            threading.Event().wait()
        return real(self, *given)

    JudgeAgent.step = step  # type: ignore[method-assign]
