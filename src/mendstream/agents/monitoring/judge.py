"""agent-metrics in (pulses, exits, counts); vitals of every closed pane and alerts out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from mendstream.agents.monitoring.alerts import Book
from mendstream.agents.monitoring.detectors import detectors_for
from mendstream.agents.monitoring.detectors.liveness import is_gone
from mendstream.agents.monitoring.distances import Bins, distances
from mendstream.agents.monitoring.ledger import Ledger, reference_rows
from mendstream.agents.monitoring.settings import JudgeSettings
from mendstream.agents.monitoring.view import Detector, DriftLook, PaneView
from mendstream.agents.monitoring.vitals import vitals_of
from mendstream.agents.monitoring.watch import Watch
from mendstream.agents.panes import pane_of
from mendstream.contracts.agent import Batch, Outputs
from mendstream.contracts.models import Cards, FeatureReference, ModelCard
from mendstream.contracts.records import PANE_US, Counts, Exit, Pulse, Record
from mendstream.contracts.topics import Topic

CLOSE_AFTER_US = 150_000
"""Counts arrive about every 100 ms: a pane that has ended gets this long for its last ones."""
BEHIND_US = 1_000_000
"""If the newest of what is read is older than this, there is more to read before anything is judged."""
SOON_US = 50_000
CATCH_UP_PANES = 40
"""Older panes than these 10 s are not judged any more: no alert may rest on them."""
WIDTHS = (1, 2, 4, 8, 16, 32, 64)
"""Panes of a drift window."""


class JudgeState(msgspec.Struct):
    watch: Watch = msgspec.field(default_factory=Watch)
    ledger: Ledger = msgspec.field(default_factory=Ledger)
    book: Book = msgspec.field(default_factory=Book)
    detectors: dict[str, Any] = {}
    """Detector's name -> its state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeAgent:
    """Reads counts only, from one place, and alone raises alerts.

    A pane closes 150 ms after its end; every closed pane gives one vitals record, from the first pulse on. Symptoms: no
    LATENCY_SLO_BREACH fires while an AGENT_DOWN is open or within 2 s after it was resolved. Attaching alerts to
    incidents is healing's business.
    """

    settings: JudgeSettings
    cards: Cards
    _bins: dict[tuple[str, str], Bins] = field(default_factory=dict, compare=False, repr=False)
    """By version and digest; made from the model's card when they are first needed."""

    @property
    def name(self) -> str:
        return "judge"

    @property
    def reads(self) -> tuple[Topic, ...]:
        return (Topic.AGENT_METRICS,)

    @property
    def state_type(self) -> type[JudgeState]:
        return JudgeState

    def start(self, partition: int) -> JudgeState:
        return JudgeState()

    def step(self, state: JudgeState, batch: Batch, now: int) -> tuple[JudgeState, Outputs]:
        outputs = Outputs(batch.turn)
        state.watch.wake(now, resumed=batch.resumed)
        detectors = detectors_for(self.settings)
        _revive(state, detectors)
        self._read(state, batch, now)
        if any(isinstance(record, Exit) for record in batch.records):
            view = PaneView(pane=state.ledger.closed, now=now, watch=state.watch)
            self._ask([d for d in detectors if d.eager], state, view, outputs, now)
        until = min(now, max(_newest_us(batch.records), 0)) if _behind(batch.records, now) else now
        due = pane_of(until - CLOSE_AFTER_US) - 1
        if not state.ledger.closed:
            state.ledger.skip_to(due + 1)
        state.ledger.skip_to(min(due, pane_of(now) - CATCH_UP_PANES))
        for pane in range(state.ledger.closed + 1, due + 1):
            self._close(state, detectors, pane, batch, outputs, now)
        wake = (max(state.ledger.closed, due) + 2) * PANE_US + CLOSE_AFTER_US
        outputs.wake_at_us = wake if until == now else now + SOON_US
        return state, outputs

    def _read(self, state: JudgeState, batch: Batch, now: int) -> None:
        for record in batch.records:
            match record:
                case Pulse():
                    state.watch.hear(record)
                case Exit():
                    state.watch.see_exit(record)
                case Counts():
                    state.ledger.merge(record, now, self.settings, batch.config.model_version, self.cards)

    def _close(
        self, state: JudgeState, detectors: Sequence[Detector[Any]], pane: int, batch: Batch, outputs: Outputs, now: int
    ) -> None:  # fmt: skip
        ledger, watch = state.ledger, state.watch
        latency, model_ms, fresh = ledger.close(pane, self.settings, now)
        live = ledger.layout.model
        n, bad = fresh.get(f"{live}|live", (0, 0))
        view = PaneView(
            pane=pane, now=now, watch=watch, latency=latency, model_ms=model_ms, model=live,
            backlog=sum(watch.tasks[name].backlog for name in self.settings.pipeline if name in watch.tasks),
            card=self.cards.card(live) if live else None, labels=(n, bad), drift=self._look(ledger, pane),
        )  # fmt: skip
        self._ask(detectors, state, view, outputs, now)
        for name in [name for name, process in watch.processes.items() if is_gone(name, process, watch)]:
            del watch.processes[name]
        if watch.processes:
            outputs.records.append(vitals_of(ledger, view, self.settings, batch.config, now))

    def _ask(
        self, detectors: Sequence[Detector[Any]], state: JudgeState, view: PaneView, outputs: Outputs, now: int
    ) -> None:  # fmt: skip
        for detector in detectors:
            state.detectors[detector.name], findings = detector.step(state.detectors[detector.name], view, now)
            state.book.take(detector.name, findings, outputs, now)

    def _look(self, ledger: Ledger, pane: int) -> DriftLook | None:
        """The windows of at least one season against the reference; the chance of a false alarm is shared by all."""
        card = self.cards.card(ledger.layout.model) if ledger.layout.model else None
        rows = reference_rows(card) if card is not None else {}
        if card is None or not rows:
            return None
        long = tuple(width for width in WIDTHS if width * PANE_US >= self.settings.season_us)
        widths, counts = ledger.windows(pane, long)
        if not widths or list(rows) != ledger.layout.names:
            return None
        looks = self.settings.false_alarm_s * 1e6 / PANE_US * len(long) * len(rows)
        d = distances(
            counts, self._bins_of(card, list(rows.values())), delta=self.settings.drift_delta, alpha=1.0 / looks
        )
        return DriftLook(card.version, tuple(n.removeprefix("feature:") for n in rows), widths, d)

    def _bins_of(self, card: ModelCard, references: list[FeatureReference]) -> Bins:
        made_by = card.version, card.digest
        if made_by not in self._bins:
            self._bins.clear()  # one model is live
            self._bins[made_by] = Bins.of(references)
        return self._bins[made_by]


def _revive(state: JudgeState, detectors: Sequence[Detector[Any]]) -> None:
    """Give each detector its state: from the snapshot, where it is a plain value, or a new one."""
    for detector in detectors:
        held = state.detectors.get(detector.name)
        if held is None:
            state.detectors[detector.name] = detector.start()
        elif not isinstance(held, detector.state_type):
            state.detectors[detector.name] = msgspec.convert(held, detector.state_type, dec_hook=_as_array)


def _as_array(kind: type, value: Any) -> Any:
    return np.asarray(value)


def _newest_us(records: Sequence[Record]) -> int:
    """When the newest of these was made."""
    newest = 0
    for record in records:
        match record:
            case Pulse() | Exit():
                newest = max(newest, record.at_us)
            case Counts():
                newest = max(newest, (record.pane + 1) * PANE_US)
    return newest


def _behind(records: Sequence[Record], now: int) -> bool:
    """Whether there must be more to read: a late judge drains first and judges then."""
    return bool(records) and _newest_us(records) < now - BEHIND_US
