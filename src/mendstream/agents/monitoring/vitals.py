"""Ledger and watch in; one record of what the house served in a closed pane out."""

from __future__ import annotations

import numpy as np

from mendstream.agents.monitoring.ledger import Array, Ledger, Source
from mendstream.agents.monitoring.settings import JudgeSettings
from mendstream.agents.monitoring.view import DriftLook, PaneView
from mendstream.agents.monitoring.watch import Watch
from mendstream.contracts.knobs import LiveConfig, Mode
from mendstream.contracts.records import (
    LATENCY_EDGES_MS,
    DriftVital,
    Served,
    TaskState,
    TaskVital,
    Vitals,
)

_LOW = np.array((0.0, *LATENCY_EDGES_MS))
_HIGH = np.array((*LATENCY_EDGES_MS, LATENCY_EDGES_MS[-1]))


def vitals_of(ledger: Ledger, view: PaneView, settings: JudgeSettings, config: LiveConfig, now: int) -> Vitals:
    serving = ledger.serving
    known = bool(serving.pane)
    mode = (Mode.SAFE_MODE if serving.arm == "fallback" else Mode.NORMAL) if known else config.mode
    model = serving.model if known else config.model_version
    accuracy, labels = ledger.accuracy(model, serving.arm)
    served, probes = _served(ledger)
    return Vitals(
        pane=view.pane,
        at_us=now,
        n=int(view.latency.sum()),
        rate=ledger.rate(view.pane),
        p50_ms=quantile(view.latency, 0.50),
        p95_ms=quantile(view.latency, 0.95),
        mode=mode.value,
        model=model,
        config=serving.config if known else config.version,
        accuracy=accuracy,
        labels=labels,
        backlog=view.backlog,
        served=served,
        probes=probes,
        tasks=tuple(_task(name, view.watch, settings, now) for name in settings.pipeline),
        drift=drift_rows(view.drift, settings.drift_min_n),
    )


def quantile(hist: Array, share: float) -> float:
    """The latency below which `share` of the events lie, evenly spread inside a bucket; 0 without events."""
    total = int(hist.sum())
    if not total:
        return 0.0
    running = np.cumsum(hist)
    bucket = int(np.searchsorted(running, share * total, side="left"))
    inside = share * total - (running[bucket] - hist[bucket])
    return round(float(_LOW[bucket] + (_HIGH[bucket] - _LOW[bucket]) * inside / hist[bucket]), 3)


def drift_rows(look: DriftLook | None, min_n: int) -> tuple[DriftVital, ...]:
    """The widest window in which a feature has enough events."""
    if look is None:
        return ()
    rows = []
    d = look.distances
    for place, feature in enumerate(look.features):
        enough = np.flatnonzero(d.n[:, place] >= min_n)
        if len(enough):
            w = enough[-1]
            rows.append(
                DriftVital(
                    feature=feature, model=look.model, n=int(d.n[w, place]), psi=round(float(d.psi[w, place]), 5),
                    ks=round(float(d.ks[w, place]), 5), js=round(float(d.js[w, place]), 5),
                    limit=round(float(d.limit[w, place]), 5),
                )
            )  # fmt: skip
    return tuple(rows)


def _served(ledger: Ledger) -> tuple[tuple[Served, ...], tuple[Served, ...]]:
    served, probes = [], []
    for source in ledger.sources.values():
        agent, _, partition = source.task.partition("/")
        if agent == "decision" or (agent == "model" and source.arm == "shadow"):
            joined = ledger.sources.get(f"joiner/{partition}|{source.model}|{source.config}|{source.arm}")
            served.append(_row(source, joined))
        elif agent == "model" and source.arm == "probe":
            probes.append(_row(source, None))
    return tuple(served), tuple(probes)


def _row(source: Source, joined: Source | None) -> Served:
    return Served(
        task=source.task, model=source.model, config=source.config, arm=source.arm, n=source.n, slow=source.bad,
        latency_ms_sum=round(source.ms, 3), labels=joined.n if joined else 0, errors=joined.bad if joined else 0,
    )  # fmt: skip


def _task(name: str, watch: Watch, settings: JudgeSettings, now: int) -> TaskVital:
    task = watch.tasks.get(name)
    if task is None:
        return TaskVital(
            task=name, process="", generation=0, pid=0, epoch=0, turns=0, backlog=0, config=0, pulse_age_ms=0,
            state=TaskState.UNSEEN,
        )  # fmt: skip
    process = watch.processes[task.process]
    if task.generation < process.generation or process.exit_code is not None:
        state = TaskState.DOWN
    elif watch.silence_us(process) >= settings.silence_us or (
        watch.stall_us(task) >= settings.stall_us
        and not watch.explained(name, settings.stall_us, settings.pressure_rows)
    ):
        state = TaskState.STUCK
    else:
        state = TaskState.OK
    return TaskVital(
        task=name, process=task.process, generation=task.generation, pid=task.pid, epoch=task.epoch, turns=task.turns,
        backlog=task.backlog, config=task.config, pulse_age_ms=max(0, now - process.pulse_at_us) // 1000, state=state,
    )  # fmt: skip
