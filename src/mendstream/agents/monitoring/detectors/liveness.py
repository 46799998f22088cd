"""Pulses and exits in; AGENT_DOWN out for a pipeline process that ended, fell silent, or does not move."""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec

from mendstream.agents.monitoring.settings import JudgeSettings
from mendstream.agents.monitoring.view import Finding, PaneView
from mendstream.agents.monitoring.watch import GONE_US, ProcessSeen, Watch
from mendstream.contracts.agent import STAGES
from mendstream.contracts.records import AlertKind, Scalar


class Recovering(msgspec.Struct):
    well_since_us: dict[str, int] = {}
    """Process -> awake time since which it is well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Liveness:
    """An exit at once; silence of a live process after `silence_us`; no progress with rows waiting after `stall_us`.

    Control processes are not watched here but by the supervisor. A process is well again when its newest generation
    pulses, owns what it owned, and every task of it has moved or has nothing to do; one that goes on under the same
    generation (it was only stopped) must be well for `settle_us` besides.
    """

    silence_us: int = 1_500_000
    stall_us: int = 4_000_000
    settle_us: int = 1_000_000
    pressure_rows: int = 2_000
    watched: tuple[str, ...] = (*STAGES, "fused")

    name = "liveness"
    kind = AlertKind.AGENT_DOWN
    eager = True
    state_type = Recovering

    def tuned(self, settings: JudgeSettings) -> Liveness:
        return replace(
            self, silence_us=settings.silence_us, stall_us=settings.stall_us,
            pressure_rows=settings.pressure_rows, watched=settings.watched,
        )  # fmt: skip

    def start(self) -> Recovering:
        return Recovering()

    def step(self, state: Recovering, view: PaneView, now: int) -> tuple[Recovering, tuple[Finding, ...]]:
        watch = view.watch
        findings = []
        for name, process in watch.processes.items():
            if process.agent in self.watched:
                finding = self._ill(name, process, view, now)
                if finding is not None:
                    state.well_since_us.pop(name, None)
                else:
                    finding = self._well(state, name, process, watch, now)
                if finding is not None:
                    findings.append(finding)
        state.well_since_us = {name: at for name, at in state.well_since_us.items() if name in watch.processes}
        return state, tuple(findings)

    def _ill(self, name: str, process: ProcessSeen, view: PaneView, now: int) -> Finding | None:
        watch = view.watch
        pulsed = process.pulse_at_us or process.exit_at_us
        if process.exit_code is not None:
            if process.exit_expected or is_gone(name, process, watch):
                return None
            # Still dead in this pane: its end alone may be too old to be told, if nobody has judged for long.
            return self._finding(
                name, process, "exit", "exit_code", process.exit_code, 0,
                (pulsed, max(process.exit_at_us, view.end_us)), {"code": process.exit_code},
            )  # fmt: skip
        owned = watch.owned(name)
        silence = watch.silence_us(process)
        if owned and silence >= self.silence_us:
            return self._finding(
                name, process, "silent", "silence_ms", silence // 1000, self.silence_us // 1000, (pulsed, now), {}
            )  # fmt: skip
        for task_name, task in owned:
            stall = watch.stall_us(task)
            if task.generation != process.generation or not stall:
                continue
            if watch.explained(task_name, self.stall_us, self.pressure_rows):
                task.moved_us = watch.awake_us  # its time begins when the later stage moves again
            elif stall >= self.stall_us:
                return self._finding(
                    name, process, "no-progress", "stall_ms", stall // 1000, self.stall_us // 1000,
                    (now - stall, now), {"task": task_name, "backlog": task.backlog},
                )  # fmt: skip
        return None

    def _well(
        self, state: Recovering, name: str, process: ProcessSeen, watch: Watch, now: int
    ) -> Finding | None:  # fmt: skip
        if is_gone(name, process, watch):
            state.well_since_us.pop(name, None)
            return self._resolved(name, process, "gone", now)
        tasks = [task for _, task in watch.owned(name)]
        if (
            process.exit_code is not None
            or not tasks
            or watch.silence_us(process) >= self.silence_us
            or not all(task.generation == process.generation and task.moved for task in tasks)
            or any(watch.stall_us(task) >= self.settle_us for task in tasks)
        ):
            state.well_since_us.pop(name, None)
            return None
        since = state.well_since_us.setdefault(name, watch.awake_us)
        fresh = watch.awake_us - process.first_us < GONE_US
        if watch.awake_us - since < (0 if fresh else self.settle_us):
            return None
        return self._resolved(name, process, "moves again", now)

    def _resolved(self, name: str, process: ProcessSeen, reason: str, now: int) -> Finding:
        at = process.pulse_at_us or process.exit_at_us
        return replace(
            self._finding(name, process, reason, "silence_ms", 0, self.silence_us // 1000, (at, now), {}), firing=False
        )

    def _finding(
        self, name: str, process: ProcessSeen, reason: str, statistic: str, value: float, limit: float,
        window_us: tuple[int, int], evidence: dict[str, Scalar],
    ) -> Finding:  # fmt: skip
        return Finding(
            kind=self.kind, subject=name, firing=True, statistic=statistic, value=float(value), limit=float(limit), n=1,
            window_us=window_us,
            evidence={
                "reason": reason, "generation": process.generation, "pid": process.pid, "agent": process.agent,
                **evidence,
            },
        )  # fmt: skip


def is_gone(name: str, process: ProcessSeen, watch: Watch) -> bool:
    """Whether others own all that it owned, and it was not heard for long: the house was arranged anew."""
    return watch.awake_us - process.heard_us >= GONE_US and not watch.owned(name)
