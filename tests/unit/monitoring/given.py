"""Literal records and a small house for the monitoring tests."""

import numpy as np

from mendstream.agents.monitoring.judge import JudgeAgent
from mendstream.agents.monitoring.settings import JudgeSettings
from mendstream.contracts import frame as frames
from mendstream.contracts import state as states
from mendstream.contracts.agent import Batch
from mendstream.contracts.frame import FrameMeta
from mendstream.contracts.knobs import LiveConfig
from mendstream.contracts.models import FeatureReference, ModelCard
from mendstream.contracts.records import (
    LATENCY_EDGES_MS,
    PANE_US,
    Alert,
    Counts,
    Exit,
    Feedback,
    Pulse,
    TaskPulse,
    Vitals,
)

T0 = 1_000_000 * PANE_US
STAGES = ("ingestion", "feature", "model", "decision")


def frame(ids, scores, *, at=T0, model="v1", config=1, mode="NORMAL", shadow="", shadow_scores=None, keys=None):
    columns = {"score": np.array(scores, dtype=np.float64)}
    if shadow:
        columns["shadow_score"] = np.array(shadow_scores, dtype=np.float64)
    head = {"event_id": ids, "key": keys or ["k"] * len(ids), "event_time_us": [at] * len(ids)}
    meta = FrameMeta(partition=0, born_us=at, made_us=at, config=config, model=model, mode=mode, shadow=shadow)
    return frames.make(head, columns, meta)


def feedback(event_id, label, *, at=T0, key="k"):
    return Feedback(event_id=event_id, key=key, label=float(label), at_us=at)


def batch(*records, frames=(), turn="i/t/1", config=None, resumed=False):
    return Batch(
        turn=turn, partition=0, config=config or LiveConfig(version=1, model_version="v1"), frames=frames,
        records=records, resumed=resumed,
    )  # fmt: skip


def card(version="v1", *, error_level=0.10, error_phi=1.2, features=("a",), bins=16, phi=1.0):
    reference = {
        name: FeatureReference(edges=tuple(float(e) for e in range(1, bins)), counts=(2000,) * bins + (0,), phi=phi)
        for name in features
    }
    return ModelCard(
        version=version, digest="0" * 64, created_at_us=0, features=tuple(features), data_window="", rows=32_000,
        metrics={"accuracy": 0.9}, error_level=error_level, error_phi=error_phi, reference=reference,
    )  # fmt: skip


class Shelf:
    def __init__(self, *cards):
        self.cards = {c.version: c for c in cards}

    def card(self, version):
        return self.cards.get(version)


def hist(ms, n):
    counts = [0] * (len(LATENCY_EDGES_MS) + 1)
    counts[int(np.searchsorted(LATENCY_EDGES_MS, ms, side="left"))] = n
    return tuple(counts)


def decided(pane, n, *, ms=5.0, revision=1, model="v1", config=1, arm="live", slow=0, slow_ms=450.0, task="decision/0"):
    latency = tuple(a + b for a, b in zip(hist(ms, n - slow), hist(slow_ms, slow), strict=True))
    return Counts(
        task=task, pane=pane, model=model, config=config, arm=arm, revision=revision, n=n, hists={"latency": latency}
    )


def scored(
    pane, n, *, bins=None, ms=2.0, revision=1, model="v1", config=1, arm="live", features=("a",), task="model/0"
):
    hists = {"model_ms": hist(ms, n)}
    if arm in ("live", "fallback"):
        hists |= {f"feature:{name}": tuple(int(b) for b in bins) for name in features} if bins is not None else {}
    return Counts(task=task, pane=pane, model=model, config=config, arm=arm, revision=revision, n=n, hists=hists)


def judged(pane, labels, errors, *, revision=1, model="v1", config=1, arm="live", task="joiner/0"):
    return Counts(
        task=task, pane=pane, model=model, config=config, arm=arm, revision=revision, n=0,
        losses={"error": (labels, errors)},
    )  # fmt: skip


def pulse(process, at, *, generation=1, turns=1, backlog=0, epoch=None, tasks=None, agent=None):
    agent = agent or process.rpartition("-")[0]
    tasks = (f"{agent}/0",) if tasks is None else tasks
    return Pulse(
        process=process, agent=agent, generation=generation, pid=1000 + generation, at_us=at, rss_mb=100.0,
        tasks=tuple(
            TaskPulse(task=t, epoch=epoch or generation, turns=turns, backlog=backlog, config=1) for t in tasks
        ),
    )  # fmt: skip


def pulses(at, turns, *, without=(), backlog=0):
    return [pulse(f"{stage}-0", at, turns=turns, backlog=backlog) for stage in STAGES if f"{stage}-0" not in without]


def ended(process, at, *, generation=1, code=-9, expected=False):
    agent = process.rpartition("-")[0]
    return Exit(
        process=process,
        agent=agent,
        generation=generation,
        pid=1000 + generation,
        code=code,
        expected=expected,
        at_us=at,
    )


class House:
    """A judge that is given a pane's records at its end, and closes it 150 ms later."""

    def __init__(self, *cards, config=None, **settings):
        self.agent = JudgeAgent(settings=JudgeSettings(**settings), cards=Shelf(*(cards or (card(),))))
        self.state = self.agent.start(0)
        self.config = config or LiveConfig(version=1, model_version="v1")
        self.pane = T0 // PANE_US
        self.turn = 0
        self.records = []

    @property
    def now(self):
        return self.pane * PANE_US

    def step(self, now, *records, resumed=False):
        self.turn += 1
        given = Batch(turn=f"i/judge/0/{self.turn}", partition=0, config=self.config, records=records, resumed=resumed)
        self.state, outputs = self.agent.step(self.state, given, now)
        self.records += outputs.records
        return outputs

    def live(self, *records, without=(), backlog=0, silent=False):
        """One pane of life: pulses and `records` at its end, closed when that is due."""
        end = (self.pane + 1) * PANE_US
        heard = [] if silent else pulses(end, self.turn, without=without, backlog=backlog)
        self.step(end, *heard, *records)
        outputs = self.step(end + 150_000)
        self.pane += 1
        return outputs

    def restart(self):
        """From the bytes of its state, as after a crash."""
        self.state = states.decode(states.encode(self.state), self.agent.state_type)

    @property
    def alerts(self):
        return [r for r in self.records if isinstance(r, Alert)]

    @property
    def vitals(self):
        return [r for r in self.records if isinstance(r, Vitals)]
