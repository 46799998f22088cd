"""Lines from outside in, raw-events and feedback out: validate, assign id and time, partition by key, drop repeats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from mendstream import __version__
from mendstream.agents.panes import PaneTable, pane_of
from mendstream.agents.pipeline.accepted import Acceptor
from mendstream.agents.pipeline.columns import Rows, Values, kind_of, values_of, writers
from mendstream.contracts import frame as frames
from mendstream.contracts.agent import Batch, Line, Outputs, dead_letter
from mendstream.contracts.errors import UsageError
from mendstream.contracts.frame import FrameMeta
from mendstream.contracts.ids import partition_of, partitions_of
from mendstream.contracts.pipeline import Event, Pipeline
from mendstream.contracts.records import Counts, DeadReason, Feedback
from mendstream.contracts.table import Table
from mendstream.contracts.topics import Topic

Array = np.ndarray[Any, np.dtype[Any]]
KEEP_PANES = 40
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_encode_lines = msgspec.json.Encoder().encode_lines


class IngestionState(msgspec.Struct):
    panes: PaneTable
    recent: set[str] = set()
    """Key and id (see `_pair`) of the newest events; with `older` at least `dedupe_window` of them."""
    older: set[str] = set()


class FeedbackLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ground truth as users send it. Ids that the house issued need no `key`: they carry their partition."""

    event_id: str
    label: float | bool
    key: str = ""
    at_us: Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)] | None = None


class Limits(NamedTuple):
    """What a record may be at most; beyond it is a dead letter."""

    max_record_bytes: int = 1 << 20
    max_ahead_us: int = 300_000_000
    max_age_us: int = 31_536_000_000_000
    dedupe_window: int = 100_000


class IngestionAgent:
    """Incremental: a commit carries the ids that it accepted and the pane totals that it touched."""

    name = "ingestion"
    reads = (Topic.SOURCE,)
    state_type = IngestionState

    def __init__(self, pipeline: Pipeline, *, partitions: int = 1, limits: Limits | None = None) -> None:
        self.pipeline = pipeline
        self.partitions = partitions
        self.limits = limits or Limits()
        self._writers = writers(pipeline.event)
        self._text = {name: kind_of(pipeline.event, name) for name in (pipeline.key, pipeline.id) if name}
        if pipeline.time and kind_of(pipeline.event, pipeline.time)[0] not in (int, float):
            raise UsageError(
                f"pipeline {pipeline.name}: time = {pipeline.time!r} is no number",
                hint="seconds since 1970, as int or float",
            )
        # Of any other kind, a column has not what the text is made of.
        self._by_columns = all(kind in (str, int, float) and not lacks for kind, lacks in self._text.values())
        self._acceptor = Acceptor(pipeline.event, max_record_bytes=self.limits.max_record_bytes)
        self._decode = msgspec.json.Decoder(pipeline.event).decode
        self._decode_feedback = msgspec.json.Decoder(FeedbackLine).decode

    def start(self, partition: int) -> IngestionState:
        return IngestionState(panes=PaneTable())

    def step(self, state: IngestionState, batch: Batch, now: int) -> tuple[IngestionState, Outputs]:
        outputs = Outputs(batch.turn)
        before = state.panes.revision
        accepted: list[str] = []
        repeats = 0
        if batch.lines:
            lines, made = self._made(outputs, batch, now)
            keep = self._in_time(outputs, batch, lines, made, now)
            fresh = self._fresh(state, made, keep)
            repeats = int(keep.sum() - fresh.sum())
            accepted = self._emit(outputs, batch, made, fresh, now)
            self._remember(state, accepted)
        if batch.feedback:
            self._feedback(outputs, batch, now)
        if batch.lines or outputs.dead:
            totals = state.panes.at(pane_of(now), "", batch.config.version, "live")
            totals.n += sum(frame.rows for _, _, frame in outputs.frames)
            totals.add_loss("dead", len(batch.lines) + len(batch.feedback), len(outputs.dead))
            totals.add_loss("repeat", len(batch.lines), repeats)
        change = state.panes.settle(before, pane_of(now) - KEEP_PANES)
        if change is not None:  # as it is whenever something was accepted
            outputs.changes = [change, accepted]
        return state, outputs

    def apply(self, state: IngestionState, changes: Any) -> IngestionState:
        change, accepted = changes
        state.panes.redo(change)
        self._remember(state, accepted)
        return state

    def counts(self, state: IngestionState, after: int) -> tuple[list[Counts], int]:
        return state.panes.changed("", after)

    # --- events ------------------------------------------------------------------------------------------------------

    def _made(self, outputs: Outputs, batch: Batch, now: int) -> tuple[Sequence[Line], _Columns]:
        """The lines that are events, and the events as columns."""
        if isinstance(batch.lines, Table) and self._by_columns:
            found = self._of_table(outputs, batch, batch.lines, now)
            if found is not None:
                return found
        lines, rows = self._rows(outputs, batch, now)
        try:
            return lines, self._columns(rows, batch.turn)
        except OverflowError:  # an integer beyond 64 bits
            lines, rows = self._fitting(outputs, batch, lines, rows, now)
            return lines, self._columns(rows, batch.turn)

    def _of_table(
        self, outputs: Outputs, batch: Batch, table: Table, now: int
    ) -> tuple[Sequence[Line], _Columns] | None:  # fmt: skip
        """The same, as columns from the start. None: the rows have to be taken one by one, and nothing was refused."""
        found = self._acceptor.columns(table.batch)
        if found is None:
            return None
        columns, suspect = found
        lines: Table = table
        if suspect.any():
            faults = [(line, self._fault(line)) for line in map(table.__getitem__, np.flatnonzero(suspect).tolist())]
            for _, fault in faults:
                if fault is None:
                    return None  # a line accepts it: then lines decide
            for line, fault in faults:
                assert fault is not None
                self._refuse(outputs, batch, line, *fault, now)
            rows = np.flatnonzero(~suspect)
            columns, lines = _taken(columns, rows), table.chosen(rows.tolist())
        values = {name: _listed(columns[name]) for name in self._text}
        return lines, self._placed(columns, values, len(lines), batch.turn)

    def _rows(self, outputs: Outputs, batch: Batch, now: int) -> tuple[Sequence[Line], Rows]:
        """The lines that are events, and the events. The usual case, that all are, costs one pass."""
        decode, most = self._decode, self.limits.max_record_bytes
        may_lack = any(optional for _, optional in self._text.values())
        values = [line.value for line in batch.lines]
        if max(map(len, values)) <= most and not may_lack:
            try:
                return batch.lines, list(map(decode, values))
            except _UNREADABLE:
                pass  # at least one is not: take them one by one
        good, rows = [], []
        for line in batch.lines:
            row = self._one(outputs, batch, line, now)
            if row is not None:
                good.append(line)
                rows.append(row)
        return good, rows

    def _one(self, outputs: Outputs, batch: Batch, line: Line, now: int) -> Event | None:
        found = self._event(line)
        if isinstance(found, _Fault):
            self._refuse(outputs, batch, line, *found, now)
            return None
        return found

    def _fault(self, line: Line) -> _Fault | None:
        found = self._event(line)
        return found if isinstance(found, _Fault) else None

    def _event(self, line: Line) -> Event | _Fault:
        unfit = self._unfit(line)
        if unfit is not None:
            return unfit
        try:
            event = self._decode(line.value)
        except _UNREADABLE as error:
            return _Fault(_reason(error), str(error))
        for name in self._text:
            if getattr(event, name) is None:
                reason = DeadReason.NO_KEY if name == self.pipeline.key else DeadReason.INVALID
                return _Fault(reason, f"{name} is null, and the event needs it")
        return event

    def _unfit(self, line: Line) -> _Fault | None:
        """Why it is refused before anybody decodes it."""
        if line.unreadable is not None:
            return _Fault(line.unreadable.reason, line.unreadable.detail)
        if len(line.value) <= self.limits.max_record_bytes:
            return None
        detail = f"{len(line.value)} bytes; at most {self.limits.max_record_bytes} (ingestion.max_record_bytes)"
        return _Fault(DeadReason.TOO_LARGE, detail)

    def _fitting(
        self, outputs: Outputs, batch: Batch, lines: Sequence[Line], rows: Rows, now: int
    ) -> tuple[list[Line], list[Event]]:
        """Without the events that have a number that no column can hold."""
        good: list[Line] = []
        fitting: list[Event] = []
        for line, row in zip(lines, rows, strict=True):
            try:
                for name, values in values_of(self.pipeline.event, [row]).items():
                    self._writers[name](values)
            except OverflowError as error:
                self._refuse(outputs, batch, line, DeadReason.INVALID, f"a number is out of range: {error}", now)
                continue
            good.append(line)
            fitting.append(row)
        return good, fitting

    def _columns(self, rows: Rows, turn: str) -> _Columns:
        values = values_of(self.pipeline.event, rows)
        columns = {name: write(values[name]) for name, write in self._writers.items()}
        return self._placed(columns, values, len(rows), turn)

    def _placed(self, columns: dict[str, Any], values: dict[str, Values], rows: int, turn: str) -> _Columns:
        """With key, id and partition of each row."""
        keys, key_texts = self._as_text(self.pipeline.key, columns, values)
        partitions = partitions_of(keys, self.partitions) if self.partitions > 1 else np.zeros(rows, dtype=np.int64)
        if self.pipeline.id:
            ids, id_texts = self._as_text(self.pipeline.id, columns, values)
        else:
            stem = turn.replace("/", ".")
            id_texts = [f"{p}.{stem}.{n}" for n, p in enumerate(partitions.tolist())]
            ids = pa.array(id_texts, type=pa.string())
        return _Columns(rows, columns, ids, keys, partitions, list(map(_pair, key_texts, id_texts)))

    def _as_text(self, name: str, columns: dict[str, Any], values: dict[str, Values]) -> tuple[pa.Array, Sequence[str]]:
        if self._text[name][0] is str:
            return columns[name], values[name]
        texts = list(map(str, values[name]))
        return pa.array(texts, type=pa.string()), texts

    def _in_time(self, outputs: Outputs, batch: Batch, lines: Sequence[Line], made: _Columns, now: int) -> Array:
        """Which rows have a time that can be; the others become dead letters. Without a time field: all, at `now`."""
        if self.pipeline.time is None:
            made.times = np.full(len(lines), now, dtype=np.int64)
            return np.ones(len(lines), dtype=bool)
        seconds = np.asarray(made.columns[self.pipeline.time], dtype=np.float64)
        low, high = (now - self.limits.max_age_us) / 1e6, (now + self.limits.max_ahead_us) / 1e6
        keep = (seconds >= low) & (seconds <= high)
        made.times = (np.where(keep, seconds, 0.0) * 1e6).astype(np.int64)
        for row in np.flatnonzero(~keep).tolist():
            way = "ahead of the clock" if seconds[row] > high else "too old" if seconds[row] < low else "missing"
            detail = f"{self.pipeline.time} = {seconds[row]:g} is {way} (ingestion.max_ahead_s, ingestion.max_age_s)"
            self._refuse(outputs, batch, lines[row], DeadReason.BAD_TIME, detail, now)
        return keep

    def _fresh(self, state: IngestionState, made: _Columns, keep: Array) -> Array:
        """Which of the rows to keep are no repeats of an id of the same key within the window."""
        if not self.pipeline.id or not self.limits.dedupe_window:
            made.pairs = []
            return keep
        pairs = made.pairs
        batch = set(pairs)
        if len(batch) == len(pairs) and batch.isdisjoint(state.recent) and batch.isdisjoint(state.older):
            return keep
        fresh = keep.copy()
        seen: set[str] = set()
        for row, pair in enumerate(pairs):
            if not keep[row]:
                continue
            fresh[row] = pair not in seen and pair not in state.recent and pair not in state.older
            seen.add(pair)
        return fresh

    def _remember(self, state: IngestionState, accepted: list[str]) -> None:
        state.recent.update(accepted)
        if len(state.recent) >= self.limits.dedupe_window:
            state.older, state.recent = state.recent, set()

    def _emit(
        self, outputs: Outputs, batch: Batch, made: _Columns, fresh: Array, now: int
    ) -> list[str]:  # fmt: skip
        if not fresh.any():
            return []
        for partition in np.unique(made.partitions[fresh]).tolist() if self.partitions > 1 else [0]:
            chosen = fresh & (made.partitions == partition)
            take = None if chosen.all() else np.flatnonzero(chosen)
            meta = FrameMeta(partition=partition, born_us=now, made_us=now, config=batch.config.version)
            head = {"event_id": made.ids, "key": made.keys, "event_time_us": made.times}
            own = {name: column for name, column in made.columns.items() if name not in head}
            frame = frames.make(_taken(head, take), _taken(own, take), meta)
            outputs.frames.append((Topic.RAW_EVENTS, partition, frame))
        return made.pairs if fresh.all() else [made.pairs[row] for row in np.flatnonzero(fresh)] if made.pairs else []

    # --- feedback ----------------------------------------------------------------------------------------------------

    def _feedback(self, outputs: Outputs, batch: Batch, now: int) -> None:
        good: list[Feedback] = []
        homes: list[int] = []
        for line in batch.feedback:
            made = self._one_feedback(outputs, batch, line, now)
            if made is not None:
                good.append(made[0])
                homes.append(made[1])
        for partition in sorted(set(homes)):
            records = [record for record, home in zip(good, homes, strict=True) if home == partition]
            outputs.blocks.append((Topic.FEEDBACK, partition, _encode_lines(records), len(records)))

    def _one_feedback(self, outputs: Outputs, batch: Batch, line: Line, now: int) -> tuple[Feedback, int] | None:
        unfit = self._unfit(line)
        if unfit is not None:
            self._refuse(outputs, batch, line, *unfit, now)
            return None
        try:
            given = self._decode_feedback(line.value)
        except _UNREADABLE as error:
            self._refuse(outputs, batch, line, _reason(error), f"feedback: {error}", now)
            return None
        label = float(given.label)
        if not 0.0 <= label <= 1.0:
            self._refuse(outputs, batch, line, DeadReason.INVALID, f"feedback: label {label:g} is not in 0 to 1", now)
            return None
        home = self._home(given)
        if home is None:
            detail = "feedback for an id of your own needs its event's key: it says in which partition the event is"
            self._refuse(outputs, batch, line, DeadReason.NO_KEY, detail, now)
            return None
        return Feedback(event_id=given.event_id, key=given.key, label=label, at_us=given.at_us or now), home

    def _home(self, given: FeedbackLine) -> int | None:
        if given.key:
            return partition_of(given.key, self.partitions)
        head = given.event_id.split(".", 1)[0]
        # Compared as text: a head that is no partition number may be anything, as long as it likes.
        return next((p for p in range(self.partitions) if head == str(p)), None) if not self.pipeline.id else None

    def _refuse(self, outputs: Outputs, batch: Batch, line: Line, reason: DeadReason, detail: str, now: int) -> None:
        dead_letter(
            outputs, topic=Topic.SOURCE, partition=line.partition, position=line.position, stage=self.name,
            code_version=__version__, reason=reason, detail=detail, value=line.original, now=now,
        )  # fmt: skip


class _Fault(NamedTuple):
    """Why a line is no event."""

    reason: DeadReason
    detail: str


def _listed(column: Any) -> Values:
    """Row by row; a string array by way of numpy, which takes a fraction of the time."""
    return (column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column).tolist()  # type: ignore[no-any-return]


def _pair(key: str, event_id: str) -> str:
    """Both in one string, unlike that of any other two: a third of the objects that a pair would be."""
    return f"{len(key)}.{key}{event_id}"


def _reason(error: Exception) -> DeadReason:
    """Why a line could not be decoded. JSON has no NaN or infinity, but numbers that overflow to one."""
    if not isinstance(error, msgspec.ValidationError):
        return DeadReason.MALFORMED
    return DeadReason.NOT_FINITE if str(error).startswith("Number out of range") else DeadReason.INVALID


class _Columns:
    """The batch on its way to frames."""

    __slots__ = ("columns", "ids", "keys", "pairs", "partitions", "times")

    def __init__(
        self, rows: int, columns: dict[str, Any], ids: pa.Array, keys: pa.Array, partitions: Array, pairs: list[str]
    ) -> None:
        self.columns = columns
        self.ids = ids
        self.keys = keys
        self.partitions = partitions
        self.times: Array = np.zeros(rows, dtype=np.int64)
        self.pairs = pairs
        """Key and id of each row; none where repeats are not looked for."""


def _taken(columns: dict[str, Any], rows: Array | None) -> dict[str, Any]:
    if rows is None:
        return columns
    return {n: v.take(pa.array(rows)) if isinstance(v, pa.Array) else v[rows] for n, v in columns.items()}
