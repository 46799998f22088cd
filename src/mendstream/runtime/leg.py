"""One task as its owner holds it: state, positions, config; what it reads and what it commits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from mendstream.contracts import state as states
from mendstream.contracts.agent import Agent, Batch, Counting, Incremental, Outputs, TaskId
from mendstream.contracts.errors import BadRecord
from mendstream.contracts.frame import Frame
from mendstream.contracts.knobs import LiveConfig, fold
from mendstream.contracts.ports import Block, Bus, Mark, Out, Parted, Position, Source, StepMarks, TaskCommit
from mendstream.contracts.records import (
    TOPIC_OF,
    ConfigChange,
    DeadLetter,
    DeadReason,
    Record,
    decode,
    decode_block,
    encode_block,
)
from mendstream.contracts.table import joined
from mendstream.contracts.topics import CONFIG, SOURCE_PARTS, SPECS, Codec, Spread, Stream, Topic, Wing
from mendstream.runtime.slices import Slicer

SNAPSHOT_TURNS = 500
_SNAPSHOT_TURNS_MOST = 5000
"""A snapshot is made between these counts of turns: as soon as the changes since the last one have outgrown it, so that
a large state is not written again and again for small changes, nor many changes read for long by a new owner."""
QUARANTINE_AFTER = 3
_JSON_ROWS = 5000
_MAX_BYTES = 4 << 20
Ready = Callable[[LiveConfig], bool]
"""Whether what a config needs from the world is at hand; if not, it has been sent for."""


class Leg:
    """`wing` is the one that this process writes, `source_place` under what the position in a source is kept that has
    no parts.
    """

    def __init__(
        self,
        bus: Bus,
        agent: Agent[Any],
        partition: int,
        wing: Wing,
        *,
        marks: StepMarks,
        source: Source | None = None,
        source_place: int = 0,
        ready: Ready = lambda config: True,
        max_rows: int = 2000,
        code_version: str = "",
    ) -> None:
        self.bus = bus
        self.agent = agent
        self.task = TaskId(agent.name, partition)
        self.wing = wing
        self.source = source
        self.marks = marks
        self.slicer = Slicer(most=max_rows)
        self._ready = ready
        self._code_version = code_version
        self._parts = _parts(source, source_place)
        self.inputs = tuple(s for topic in agent.reads for s in _inputs(topic, partition, self._parts))
        self.dead_stream = Stream(Topic.DEAD_LETTERS, 0 if wing is Wing.DATA else 1)
        self.metrics_stream = Stream(Topic.AGENT_METRICS, 0 if wing is Wing.DATA else 1)
        self.progress = 0
        self._frames_in = frozenset(
            s for s in self.inputs if s.topic is not Topic.SOURCE and SPECS[s.topic].codec is Codec.FRAME
        )
        # Asked once: whether an object fits a protocol takes longer to find out than a small turn's encoding.
        self._incremental = agent if isinstance(agent, Incremental) else None
        self._counts = agent if isinstance(agent, Counting) else None
        self._claim()

    def _claim(self) -> None:
        mark = self.marks.left()
        claim = self.bus.claim(self.task, (*self.inputs, CONFIG))
        self.epoch, self.turn = claim.epoch, claim.turns
        self.positions = claim.positions
        self.config, self.state = self._restore(claim.snapshot, claim.changes)
        self.resumed = True
        self.wake_at_us: int | None = None
        self.unready = False
        """A config waits for what it needs from the world."""
        self.sent = 0
        self.step_started_us: int | None = None
        self._since_snapshot = len(claim.changes)
        self._snapshot_bytes = len(claim.snapshot or b"")
        self._changes_bytes = sum(map(len, claim.changes))
        self._config_moved = False
        self._next_config = self.positions[CONFIG]
        self._opened = False
        self._suspect = None if mark is None else self._suspect_of(mark)
        """What an earlier owner died on: taken row by row until it lies behind, and set aside after three deaths."""

    def again(self) -> None:
        """A turn was not finished, and its step has changed the state: go back to what the log has."""
        self.marks.end()
        self._claim()

    def _restore(self, snapshot: bytes | None, changes: Sequence[bytes]) -> tuple[LiveConfig, Any]:
        config, state = LiveConfig(), None
        if snapshot is not None:
            config = states.decode(snapshot[4 : 4 + int.from_bytes(snapshot[:4], "big")], LiveConfig)
            state = states.decode(snapshot[4 + int.from_bytes(snapshot[:4], "big") :], self.agent.state_type)
        if state is None:
            state = self.agent.start(self.task.partition)
        for change in changes:
            new_config, delta = states.decode_plain(change)
            if new_config is not None:
                config = states.decode(states.encode(new_config), LiveConfig)
            if delta is not None:
                assert self._incremental is not None
                state = self._incremental.apply(state, delta)
        return config, state

    # --- config ------------------------------------------------------------------------------------------------------

    def fold_config(self, end: Position | None = None) -> bool:
        """Apply what config-updates has, in order, as far as what it needs from the world is at hand. `end`: of the
        stream, where it is known; nearly always there is nothing new.
        """
        # What the config that was left to us needs is not at hand in a new process: it has to be fetched as well.
        self.unready = not self._opened and not self._ready(self.config)
        if self.unready:
            return False
        self._opened = True
        if end is not None and self._next_config >= end:
            return False
        before = self.config
        for position, record in self._config_records():
            if isinstance(record, ConfigChange):
                config, _ = fold(self.config, record)
                if config is not self.config and not self._ready(config):
                    self.unready = True
                    break
                self.config = config
            self._next_config = position + 1
        moved = self.config is not before
        self._config_moved |= moved
        return moved

    def _config_records(self) -> Iterator[tuple[int, Record]]:
        """With the position of each; a line that is no record is passed over."""
        for block in self.bus.read(CONFIG, self._next_config, max_rows=_JSON_ROWS, max_bytes=_MAX_BYTES):
            found = _decoded(block)
            for row, record in zip(found.rows, found.records, strict=True):
                yield block.position + row, record
            self._next_config = block.next

    @property
    def starting(self) -> bool:
        """Nothing is served before the first config is there, for it names the first model; nor by a new owner before
        it has what its config names.
        """
        return self.unready and (self.config.version == 0 or not self._opened)

    def live_config(self) -> LiveConfig:
        """The config as folded so far; safe to ask for from another thread."""
        return self.config

    @property
    def config_pending(self) -> bool:
        """Whether records of config-updates were read that no turn has committed yet."""
        return self._next_config != self.positions[CONFIG]

    # --- reading -----------------------------------------------------------------------------------------------------

    def poll(
        self, *, data: bool = True, most: int | None = None
    ) -> tuple[Batch, dict[Stream, int], list[DeadLetter]]:  # fmt: skip
        """(batch, positions after it, dead letters of what cannot be read). `data`: False under back-pressure.
        `most`: rows that the stages behind, in a fused chain, can take.
        """
        batch = Batch(turn=self._turn_id(), partition=self.task.partition, config=self.config, resumed=self.resumed)
        after: dict[Stream, int] = {}
        dead: list[DeadLetter] = []
        frames: list[Frame] = []
        topics: list[Topic] = []
        records: list[Record] = []
        for stream in self._in_turn():
            if self._suspect is not None and after:
                break  # one row of one stream: then it is known which record killed
            if stream.topic is Topic.SOURCE:
                if data:
                    self._poll_source(batch, stream, after, self._rows_allowed(stream, most))
                continue
            is_frame = stream in self._frames_in
            if is_frame and not data:
                continue
            rows = self._rows_allowed(stream, most)
            for block in self.bus.read(stream, self.positions[stream], max_rows=rows, max_bytes=_MAX_BYTES):
                after[stream] = block.next
                if is_frame:
                    self._take_frame(block, frames, topics, dead)
                else:
                    found = _decoded(block)
                    records.extend(found.records)
                    dead.extend(
                        self._dead(stream, block.position + row, line, error, block.at_us)
                        for row, line, error in found.bad
                    )
        batch.frames, batch.topics, batch.records = frames, topics, records
        return batch, after, dead

    def _poll_source(self, batch: Batch, stream: Stream, after: dict[Stream, int], rows: int) -> None:
        room = rows - len(batch.lines) - len(batch.feedback)
        if room <= 0:
            return
        position = self.positions[stream]
        lines, feedback, following = self._parts[stream.partition].poll(position, room, _MAX_BYTES)
        batch.lines = joined(batch.lines, lines) if batch.lines else lines
        batch.feedback = [*batch.feedback, *feedback] if batch.feedback else feedback
        if following != position:
            after[stream] = following

    def taken_from_source(self) -> None:
        """Everything before the positions is durable."""
        for number, part in self._parts.items():
            part.done(self.positions[Stream(Topic.SOURCE, number)])

    def _take_frame(self, block: Block, frames: list[Frame], topics: list[Topic], dead: list[DeadLetter]) -> None:
        try:
            frame = Frame.decode(block.value)
        except BadRecord as error:
            if not block.skip:  # read in pieces, it is one letter all the same
                dead.append(self._dead(block.stream, block.position, bytes(block.value), str(error), block.at_us))
            return
        if block.skip or block.rows < frame.rows:
            frame = frame.slice(block.skip, block.skip + block.rows)
        frames.append(frame)
        topics.append(block.stream.topic)

    def _rows_allowed(self, stream: Stream, most: int | None) -> int:
        if stream.topic is Topic.SOURCE or stream in self._frames_in:
            rows = self.slicer.rows if most is None else most
        else:
            rows = _JSON_ROWS
        if stream == CONFIG:  # whoever reads it as input gets what is folded, no more
            rows = min(rows, self._next_config - self.positions[CONFIG])
        return min(rows, 1) if self._suspect is not None else rows

    def backlog(self) -> int:
        """Rows that wait at the inputs that are streams."""
        streams = [stream for stream in self.inputs if stream.topic is not Topic.SOURCE]
        return sum(self.bus.waiting(stream, self.positions[stream]) for stream in streams)

    # --- suspects ----------------------------------------------------------------------------------------------------

    def _suspect_of(self, mark: Mark) -> _Suspect | None:
        if not self.inputs:
            return None
        position, number = divmod(mark.position, len(self.inputs))
        stream = self.inputs[number]
        if position > self.positions[stream]:
            return None  # of a life with fewer inputs: a source has got more partitions since
        return _Suspect(stream, position, mark.rows, mark.attempts)

    def _in_turn(self) -> tuple[Stream, ...]:
        """The inputs in the order in which to read them: first the one with what an earlier owner died on."""
        suspect = self._suspect
        if suspect is not None and suspect.position + suspect.rows <= self.positions[suspect.stream]:
            self._suspect = suspect = None  # it lies behind
        if suspect is None:
            first = self.turn % len(self.inputs) if len(self._parts) > 1 else 0  # a full part must not starve the rest
            return self.inputs[first:] + self.inputs[:first]
        return (suspect.stream, *(stream for stream in self.inputs if stream != suspect.stream))

    def begin_step(self, batch: Batch, after: dict[Stream, int], dead: list[DeadLetter], now: int) -> Batch:
        """Mark what the step works on; what has killed three owners is set aside instead."""
        stream = next((s for s in self.inputs if s in after), None)
        if stream is None:
            return batch
        position, rows = self.positions[stream], after[stream] - self.positions[stream]
        attempts = 1
        suspect = self._suspect
        if suspect is not None and suspect[:3] == (stream, position, rows):
            attempts = suspect.attempts + 1
            if attempts > QUARANTINE_AFTER:
                dead.extend(self._quarantine(batch, stream, position, suspect.attempts, now))
                batch.frames, batch.records, batch.lines, batch.feedback = (), (), (), ()
                return batch
        # A mark has one number for the place: which input, and where in it.
        self.marks.begin(position * len(self.inputs) + self.inputs.index(stream), rows, attempts)
        self.step_started_us = now
        return batch

    def end_step(self) -> None:
        self.step_started_us = None

    def _quarantine(self, batch: Batch, stream: Stream, position: int, deaths: int, now: int) -> list[DeadLetter]:
        values = [line.original for line in (*batch.lines, *batch.feedback)]
        values += [frame.encode() for frame in batch.frames] + [encode_block([record]) for record in batch.records]
        partition = stream.partition % SOURCE_PARTS if stream.topic is Topic.SOURCE else stream.partition
        return [
            DeadLetter(
                id=f"{batch.turn}/q{n}", topic=stream.topic.value, partition=partition, position=position,
                stage=self.agent.name, code_version=self._code_version, reason=DeadReason.QUARANTINED,
                detail=f"{deaths} processes died while they worked on this record", attempts=deaths, value=value,
                at_us=now,
            )
            for n, value in enumerate(values)
        ]  # fmt: skip

    def _dead(self, stream: Stream, position: int, value: bytes, error: str, at_us: int) -> DeadLetter:
        return DeadLetter(
            id=f"{self._turn_id()}/{stream}@{position}", topic=stream.topic.value, partition=stream.partition,
            position=position, stage=self.agent.name, code_version=self._code_version, reason=DeadReason.MALFORMED,
            detail=error[:1024], attempts=1, value=value, at_us=at_us,
        )  # fmt: skip

    # --- committing --------------------------------------------------------------------------------------------------

    def _turn_id(self) -> str:
        return f"{self.bus.incarnation}/{self.task}/{self.turn + 1}"

    def commit_of(
        self, outputs: Outputs, after: dict[Stream, int], *, past_own: Sequence[Stream] = ()
    ) -> TaskCommit:  # fmt: skip
        """This task's part of the transaction."""
        moved = dict(after)
        if CONFIG not in self.inputs and self._next_config != self.positions[CONFIG]:
            moved[CONFIG] = self._next_config
        before = {stream: self.positions[stream] for stream in (*moved, *past_own)}
        commit = TaskCommit(
            task=self.task, epoch=self.epoch, turn=self.turn + 1, positions=moved, before=before,
            outputs=self._outs(outputs), past_own=past_own,
        )  # fmt: skip
        if not self._snapshot_due:
            if outputs.changes is not None or self._config_moved:
                commit.changes = states.encode([self.config if self._config_moved else None, outputs.changes])
        else:
            head = states.encode(self.config)
            commit.snapshot = len(head).to_bytes(4, "big") + head + states.encode(self.state)
        return commit

    @property
    def _snapshot_due(self) -> bool:
        if self._incremental is None or self.turn == 0 or self._since_snapshot >= _SNAPSHOT_TURNS_MOST:
            return True
        return self._since_snapshot >= SNAPSHOT_TURNS and self._changes_bytes >= self._snapshot_bytes

    def committed(self, commit: TaskCommit, ends: Any, outputs: Outputs) -> None:
        """The turn is in the log: go on from there."""
        self.turn = commit.turn
        if commit.snapshot is not None:
            self._since_snapshot, self._changes_bytes, self._snapshot_bytes = 0, 0, len(commit.snapshot)
        else:
            self._since_snapshot += 1
            self._changes_bytes += len(commit.changes or b"")
        self._config_moved = False
        self.resumed = False
        self.positions.update(commit.positions)
        for stream in commit.past_own:
            self.positions[stream] = ends.get(stream, self.positions[stream])
        if commit.positions or commit.past_own:
            self.progress += 1
        self.wake_at_us = outputs.wake_at_us

    def _outs(self, outputs: Outputs) -> list[Out]:
        outs = [Out(Stream(topic, p), frame.encode(), frame.rows) for topic, p, frame in outputs.frames]
        outs += [Out(Stream(topic, p), block, rows) for topic, p, block, rows in outputs.blocks]
        by_topic: dict[Topic, list[Record]] = {}
        for record in outputs.records:
            by_topic.setdefault(TOPIC_OF[type(record)], []).append(record)
        for topic, records in by_topic.items():
            partition = self.task.partition if SPECS[topic].spread is Spread.DATA else 0
            outs.append(Out(Stream(topic, partition), encode_block(records), len(records)))
        if outputs.dead:
            outs.append(Out(self.dead_stream, encode_block(outputs.dead), len(outputs.dead)))
        return outs

    def counts_out(self) -> list[Out]:
        """The totals that changed since the last call."""
        if self._counts is None:
            return []
        found, self.sent = self._counts.counts(self.state, self.sent)
        if not found:
            return []
        named = [msgspec.structs.replace(counts, task=str(self.task)) for counts in found]
        return [Out(self.metrics_stream, encode_block(named), len(named))]


def _parts(source: Source | None, place: int) -> Mapping[int, Source]:
    if source is None:
        return {}
    return source.parts if isinstance(source, Parted) else {place: source}


def _inputs(topic: Topic, partition: int, parts: Mapping[int, Source]) -> tuple[Stream, ...]:
    if topic is Topic.SOURCE:
        return tuple(Stream(topic, number) for number in parts or (partition,))
    match SPECS[topic].spread:
        case Spread.DATA:
            return (Stream(topic, partition),)
        case Spread.ONE:
            return (Stream(topic, 0),)
        case Spread.WINGS:
            return (Stream(topic, 0), Stream(topic, 1))


class _Suspect(NamedTuple):
    """Rows of an input that an earlier owner died on."""

    stream: Stream
    position: int
    rows: int
    attempts: int


class _Lines(NamedTuple):
    """The records of a block, which of its rows they are, and the rows that are none."""

    records: Sequence[Record]
    rows: Sequence[int]
    bad: list[tuple[int, bytes, str]]


def _decoded(block: Block) -> _Lines:
    value = bytes(block.value)
    try:
        records = decode_block(block.stream.topic, value)
    except (BadRecord, UnicodeDecodeError):
        pass  # at least one line is bad: take them one by one
    else:
        return _Lines(records, range(len(records)), [])
    good: list[Record] = []
    rows: list[int] = []
    bad: list[tuple[int, bytes, str]] = []
    for row, line in enumerate(value.split(b"\n")[: block.rows]):
        try:
            good.append(decode(block.stream.topic, line))
            rows.append(row)
        except (BadRecord, UnicodeDecodeError) as error:
            bad.append((row, line, str(error)))
    return _Lines(good, rows, bad)
