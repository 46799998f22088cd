"""predictions and feedback in; error counts per (pane, model, config, arm) out, and feedback that nobody predicted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from mendstream import __version__
from mendstream.agents.panes import Array, PaneTable, pane_of
from mendstream.contracts.agent import Batch, Outputs, dead_letter
from mendstream.contracts.frame import Frame
from mendstream.contracts.ids import murmur2
from mendstream.contracts.knobs import Mode
from mendstream.contracts.records import Counts, DeadReason, Feedback, encode
from mendstream.contracts.topics import Topic

SWEEP_US = 1_000_000
"""Old entries leave in one sweep a second: walking the front of a dict per turn would cost more than the turn."""
SLACK_US = 2_000_000
"""Totals outlive the entries that could still change them by this much."""

# An entry of the pending table is one integer: group << 20 | hash of the key << 4 | flags.
_POSITIVE, _SHADOW_POSITIVE, _ANSWERED = 1, 2, 4
_KEY_SHIFT, _GROUP_SHIFT = 4, 20
_KEY_MASK = 0xFFFF
_ANY_KEY = -1


class Group(msgspec.Struct, array_like=True, gc=False):
    """What the rows of one predictions frame have in common."""

    served_us: int
    model: str
    config: int
    arm: str
    shadow: str


class Held(msgspec.Struct, array_like=True, gc=False):
    """A label whose prediction has not come yet."""

    event_id: str
    key: str
    label: float
    at_us: int
    mark: int
    """Hash of the key, or _ANY_KEY."""
    doubtful: bool
    """The event may have been outside the sample: its absence proves nothing."""
    since_us: int


class JoinerState(msgspec.Struct):
    partition: int
    panes: PaneTable
    groups: dict[int, Group] = {}
    pending: dict[str, int] = {}
    """Event id -> entry, oldest first. An answered one stays, so that a repeated label is known as such."""
    held: dict[str, Held] = {}
    next_group: int = 0
    swept_us: int = 0
    sampling: float = 1.0
    sampling_low: float = 1.0
    """The smallest sampling of the last `label_ttl_us` before this one: predictions may have been left out under it."""
    sampling_low_until_us: int = 0
    dropped_at_us: int = 0
    """When the table was last too small: labels that match nothing since then are not held against anybody."""


class JoinerAgent:
    """Incremental: a commit carries the turn's rows in short, and `apply` does with them what the step did.

    A label counts once, in the pane and under the versions that served its event, if it comes within `label_ttl_us`.
    Feedback that matches nothing for `unknown_ttl_us` is a dead letter. Predictions beyond `max_pending` push the
    oldest out; those are counted as loss `dropped`.
    """

    name = "joiner"
    reads = (Topic.PREDICTIONS, Topic.FEEDBACK)
    state_type = JoinerState

    def __init__(
        self, *, label_ttl_us: int = 120_000_000, unknown_ttl_us: int = 30_000_000, max_pending: int = 131_072,
        max_held: int = 16_384,
    ) -> None:  # fmt: skip
        self.label_ttl_us = label_ttl_us
        self.unknown_ttl_us = unknown_ttl_us
        self.max_pending = max_pending
        self.max_held = max_held

    def start(self, partition: int) -> JoinerState:
        return JoinerState(partition=partition, panes=PaneTable())

    def step(self, state: JoinerState, batch: Batch, now: int) -> tuple[JoinerState, Outputs]:
        outputs = Outputs(batch.turn)
        sampling = batch.config.sampling
        served = [_rows(frame, sampling) for frame in batch.frames]
        resampled = self._sample(state, sampling, now)
        truths = [record for record in batch.records if isinstance(record, Feedback)]
        labels = _labels(truths, sampling, state.sampling_low)
        unknown, changed = self._advance(state, served, labels, now)
        for held in unknown:
            feedback = Feedback(event_id=held.event_id, key=held.key, label=held.label, at_us=held.at_us)
            dead_letter(
                outputs, topic=Topic.FEEDBACK, partition=batch.partition, position=-1, stage=self.name,
                code_version=__version__, reason=DeadReason.UNKNOWN_EVENT,
                detail=f"no prediction of {held.event_id!r} within {self.unknown_ttl_us / 1e6:g} s",
                value=encode(feedback), now=now,
            )  # fmt: skip
        if changed or resampled:
            outputs.changes = [now, sampling, served, labels]
        if state.held:
            outputs.wake_at_us = next(iter(state.held.values())).since_us + self.unknown_ttl_us
        return state, outputs

    def apply(self, state: JoinerState, changes: Any) -> JoinerState:
        now, sampling, served, labels = changes
        self._sample(state, sampling, now)
        self._advance(state, served, labels, now)
        return state

    def counts(self, state: JoinerState, after: int) -> tuple[list[Counts], int]:
        return state.panes.changed(f"{self.name}/{state.partition}", after)

    # --- one turn ----------------------------------------------------------------------------------------------------

    def _sample(self, state: JoinerState, sampling: float, now: int) -> bool:
        """Remember an earlier sampling for as long as predictions that it left out may get their labels."""
        if now >= state.sampling_low_until_us:
            state.sampling_low = 1.0
        if sampling == state.sampling:
            return False
        state.sampling_low = min(state.sampling_low, state.sampling)
        state.sampling_low_until_us = now + self.label_ttl_us
        state.sampling = sampling
        return True

    def _advance(
        self, state: JoinerState, served: Sequence[Sequence[Any]], labels: Sequence[Sequence[Any]], now: int
    ) -> tuple[list[Held], bool]:  # fmt: skip
        """Take one turn's rows in; the labels that nobody predicted, and whether anything changed."""
        tally: dict[int, list[int]] = {}
        for served_us, model, config, arm, shadow, ids, entries in served:
            group = Group(served_us, model, config, arm, shadow)
            self._take_predictions(state, group, ids, entries, tally, now)
        for event_id, key, value, at_us, mark, doubtful in labels:
            name = _find(state.pending, event_id, mark)
            if name is None or not self._answer(state, name, value, tally, now):
                _hold(state.held, Held(event_id, key, value, at_us, mark, doubtful, now))
        _count(state, tally)
        unknown = self._unknown(state, now)
        swept = self._sweep(state, now)
        return unknown, bool(served or labels or unknown or swept)

    def _take_predictions(
        self, state: JoinerState, group: Group, ids: Sequence[str], entries: Sequence[int], tally: dict[int, list[int]],
        now: int,
    ) -> None:  # fmt: skip
        number = state.next_group
        state.next_group += 1
        state.groups[number] = group
        base = number << _GROUP_SHIFT
        pending = state.pending
        if state.held or len(set(ids)) < len(ids) or not pending.keys().isdisjoint(ids):
            for event_id, entry in zip(ids, entries, strict=True):
                mark = (entry >> _KEY_SHIFT) & _KEY_MASK
                name = event_id if event_id not in pending else f"{event_id}\x1f{mark}"
                pending[name] = base | entry
                held = _take_held(state.held, event_id, mark)
                if held is not None:
                    self._answer(state, name, held.label, tally, now)
        else:
            pending.update(zip(ids, [base | entry for entry in entries], strict=True))

    def _answer(self, state: JoinerState, name: str, label: float, tally: dict[int, list[int]], now: int) -> bool:
        """Count the label once; False if its pane can no longer change."""
        entry = state.pending[name]
        number = entry >> _GROUP_SHIFT
        if entry & _ANSWERED:
            return True
        if state.groups[number].served_us < now - self.label_ttl_us:
            return False
        state.pending[name] = entry | _ANSWERED
        positive = label >= 0.5
        counted = tally.setdefault(number, [0, 0, 0])
        counted[0] += 1
        counted[1] += bool(entry & _POSITIVE) != positive
        counted[2] += bool(entry & _SHADOW_POSITIVE) != positive
        return True

    def _unknown(self, state: JoinerState, now: int) -> list[Held]:
        """Labels that waited too long or were too many; without those whose absence proves nothing."""
        found: list[str] = []
        for name, held in state.held.items():
            if held.since_us + self.unknown_ttl_us > now and len(state.held) - len(found) <= self.max_held:
                break
            found.append(name)
        gone = [state.held.pop(name) for name in found]
        blind = state.dropped_at_us and now < state.dropped_at_us + self.label_ttl_us
        return [held for held in gone if not (held.doubtful or blind)]

    def _sweep(self, state: JoinerState, now: int) -> bool:
        """Let entries go that are too old or, the oldest first, too many; True if it was time to look."""
        surplus = len(state.pending) - self.max_pending
        if not (state.panes.totals or state.pending) or (surplus <= 0 and now < state.swept_us + SWEEP_US):
            return False
        if surplus > 0:
            surplus += self.max_pending // 8  # some room at once: a table that is always full is not walked every turn
        state.swept_us = now
        oldest = now - self.label_ttl_us
        leaving: list[str] = []
        dropped: dict[int, int] = {}
        for name, entry in state.pending.items():
            number = entry >> _GROUP_SHIFT
            if state.groups[number].served_us >= oldest:
                if len(leaving) >= surplus:
                    break
                if not entry & _ANSWERED:
                    dropped[number] = dropped.get(number, 0) + 1
            leaving.append(name)
        for name in leaving:
            del state.pending[name]
        self._count_dropped(state, dropped, now)
        first = next(iter(state.pending.values())) >> _GROUP_SHIFT if state.pending else state.next_group
        for number in [number for number in state.groups if number < first]:
            del state.groups[number]
        state.panes.drop_before(pane_of(oldest - SLACK_US))
        return True

    def _count_dropped(self, state: JoinerState, dropped: dict[int, int], now: int) -> None:
        for number, n in dropped.items():
            state.dropped_at_us = now
            group = state.groups[number]
            totals = state.panes.at(pane_of(group.served_us), group.model, group.config, group.arm)
            totals.add_loss("dropped", n, n)


def _count(state: JoinerState, tally: dict[int, list[int]]) -> None:
    for number, (n, bad, shadow_bad) in tally.items():
        group = state.groups[number]
        pane = pane_of(group.served_us)
        state.panes.at(pane, group.model, group.config, group.arm).add_loss("error", n, bad)
        if group.shadow:
            state.panes.at(pane, group.shadow, group.config, "shadow").add_loss("error", n, shadow_bad)


def _rows(frame: Frame, sampling: float) -> list[Any]:
    """The sampled rows of a predictions frame in short: [served_us, model, config, arm, shadow, ids, entries]."""
    if sampling < 1.0:
        kept = np.flatnonzero(_share(frame.batch.column("event_id")) < sampling)
        frame = Frame(frame.batch.take(pa.array(kept, type=pa.int64())), frame.meta)
    meta = frame.meta
    keys = (murmur2(frame.batch.column("key")) & np.uint32(_KEY_MASK)).astype(np.int64)
    entries = keys << _KEY_SHIFT | (frame.numbers("score") >= 0.5) * _POSITIVE
    if meta.shadow:
        entries |= (frame.numbers("shadow_score") >= 0.5) * _SHADOW_POSITIVE
    arm = "live" if meta.mode == Mode.NORMAL else "fallback"
    return [meta.made_us, meta.model, meta.config, arm, meta.shadow, frame.strings("event_id"), entries.tolist()]


def _labels(feedback: list[Feedback], sampling: float, sampling_low: float) -> list[list[Any]]:
    """The sampled labels in short: the fields of Held but the last."""
    if not feedback:
        return []
    share = (
        _share(pa.array([f.event_id for f in feedback], type=pa.string()))
        if min(sampling, sampling_low) < 1.0
        else np.zeros(len(feedback))
    )
    keys = murmur2(pa.array([f.key for f in feedback], type=pa.string())) & np.uint32(_KEY_MASK)
    return [
        [f.event_id, f.key, f.label, f.at_us, mark if f.key else _ANY_KEY, at >= sampling_low]
        for f, mark, at in zip(feedback, keys.tolist(), share.tolist(), strict=True)
        if at < sampling or sampling >= 1.0
    ]


def _share(ids: pa.Array) -> Array:
    """Where each id's hash lies in [0, 1); float64 [rows]."""
    return murmur2(ids) / 2.0**32


def _find(pending: dict[str, int], event_id: str, mark: int) -> str | None:
    """The name under which the event of this id and key is pending. Ids are unique per key only."""
    entry = pending.get(event_id)
    if entry is not None and mark in (_ANY_KEY, (entry >> _KEY_SHIFT) & _KEY_MASK):
        return event_id
    name = f"{event_id}\x1f{mark}"
    return name if name in pending else None


def _hold(held: dict[str, Held], label: Held) -> None:
    """Let a label wait; the first one of an event counts."""
    first = held.setdefault(label.event_id, label)
    if first.mark != label.mark:
        held.setdefault(f"{label.event_id}\x1f{label.mark}", label)


def _take_held(held: dict[str, Held], event_id: str, mark: int) -> Held | None:
    """Take the label of this id and key out of those that wait."""
    found = held.get(event_id)
    if found is not None and found.mark in (_ANY_KEY, mark):
        return held.pop(event_id)
    return held.pop(f"{event_id}\x1f{mark}", None)
