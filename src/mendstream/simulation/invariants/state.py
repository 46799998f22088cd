"""What a task knows is what its log says: whoever takes over goes on exactly there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np

from mendstream.contracts.ports import Claim
from mendstream.contracts.state import encode
from mendstream.contracts.topics import Wing
from mendstream.runtime.leg import Leg
from mendstream.simulation.invariants.base import Invariant
from mendstream.simulation.log import SimLog
from mendstream.simulation.machine import SimMarks, SimProcess

STEP_US = 2_000
PATIENCE_US = 5_000_000
"""How long a process may be in the middle of a turn."""


class StateIsTheLog(Invariant):
    """State read from the log equals the one in memory: else a restart changes what the house decides."""

    name = "state is in the log"

    def end(self) -> None:
        kernel = self.machine.kernel
        until = kernel.now_us + PATIENCE_US
        waiting = [process for process in self.machine.processes.values() if process.work is not None]
        while waiting and kernel.now_us < until:
            for process in [process for process in waiting if process.main.parked]:
                waiting.remove(process)
                self._look(process)
            kernel.run(kernel.now_us + STEP_US)
        for process in waiting:
            self.broken(f"{process} is in the middle of a turn for {PATIENCE_US // 1_000_000} s")

    def _look(self, process: SimProcess) -> None:
        assert process.work is not None
        for driver in process.work.parts.drivers.values():
            for leg in driver.legs:
                why = difference(self.machine.log, leg)
                if why:
                    self.broken(f"{leg.task}: in memory and in the log, {why}")


def difference(log: SimLog, leg: Leg) -> str:
    """In what a new owner's knowledge differs from this one's, or an empty string."""
    held = log.task(leg.task)
    if held is None or held.epoch != leg.epoch:
        return ""  # somebody else owns it by now
    copy = Leg(_Copy(log), leg.agent, leg.task.partition, Wing.DATA, marks=SimMarks())  # type: ignore[arg-type]
    if copy.positions != leg.positions:
        return f"positions {copy.positions} are not {leg.positions}"
    if copy.turn != leg.turn:
        return f"turn {copy.turn} is not {leg.turn}"
    if not leg.config_pending and copy.config != leg.config:
        return f"config {copy.config} is not {leg.config}"
    # Nearly always the bytes are the same, and tell it at once; they may differ for equal sets.
    return "" if encode(leg.state) == encode(copy.state) else _difference(leg.state, copy.state, "state")


class _Copy:
    """The part of a bus that a new owner reads; its claim disturbs nobody."""

    incarnation = ""

    def __init__(self, log: SimLog) -> None:
        self._log = log

    def claim(self, task: Any, inputs: Any) -> Claim:
        held = self._log.task(task)
        assert held is not None
        return Claim(
            task=task, epoch=held.epoch, turns=held.turns, positions={s: held.positions[s] for s in inputs},
            snapshot=held.snapshot, changes=list(held.changes),
        )  # fmt: skip


def _difference(one: Any, other: Any, path: str) -> str:
    """Where two states differ first. The order of a dict is part of it: some are queues."""
    one, other = _opened(one), _opened(other)
    if isinstance(one, dict) and isinstance(other, dict):
        if list(one) != list(other):
            odd = sorted(map(str, one.keys() ^ other.keys()))
            return f"{path} has other keys: {odd[:5]}" if odd else f"{path} has its keys in another order"
        return _first(_difference(one[key], other[key], f"{path}[{key!r}]") for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            return f"{path} has {len(one)} and {len(other)} items"
        pairs = enumerate(zip(one, other, strict=True))
        return _first(_difference(a, b, f"{path}[{n}]") for n, (a, b) in pairs)
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return "" if np.array_equal(one, other, equal_nan=one.dtype.kind == "f") else f"{path}: {one} is not {other}"
    same = one == other or (one != one and other != other)
    return "" if same else f"{path}: {str(one)[:200]} is not {str(other)[:200]}"


def _opened(value: Any) -> Any:
    """A struct as what msgspec makes of it where no type is given: the judge converts its detectors' states late."""
    if isinstance(value, msgspec.Struct):
        fields = {name: getattr(value, name) for name in value.__struct_fields__}
        return list(fields.values()) if value.__struct_config__.array_like else fields
    return sorted(value) if isinstance(value, set | frozenset) else value


def _first(found: Iterable[str]) -> str:
    return next((why for why in found if why), "")
