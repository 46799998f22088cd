"""The bus on Apache Kafka.

A message of a frame topic is a frame, one of any other topic a JSON record. A turn is one transaction over outputs,
dead letters, and the entry in the task's own log that holds positions and state. The positions are also committed as
offsets of a consumer group: for tools that show lag, and for the stages before.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import structlog
from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
    TopicPartition,
)

from mendstream.adapters.bus.bell import FifoBell, Ringer
from mendstream.adapters.bus.kafka.client import (
    ANSWER_S,
    SOON_S,
    Cluster,
    cause_of,
    code_of,
    explained,
    lasting,
    meet,
    silent,
)
from mendstream.adapters.bus.kafka.follow import Follower, Lookup
from mendstream.adapters.bus.kafka.owner import (
    HERE,
    NOWHERE,
    Entry,
    Held,
    Identities,
    Identity,
    identity_of,
    left_by,
    rivals_of,
    written,
)
from mendstream.adapters.bus.kafka.patience import Patience
from mendstream.adapters.bus.kafka.places import MOST_ROWS, blocks, framed, offset_of, passed, place, row_of
from mendstream.adapters.bus.kafka.topics import make_state_topics
from mendstream.adapters.room import told
from mendstream.contracts.agent import STAGES, TaskId
from mendstream.contracts.errors import CommitUnknown, Conflict, CouldNot, Fenced, MendstreamError, NoAnswer
from mendstream.contracts.ports import Block, Claim, Clock, Out, Position, TaskCommit
from mendstream.contracts.topics import Stream, Topic

_SHOWN_TO_NOBODY = frozenset({Topic.SOURCE.value, Topic.CONFIG_UPDATES.value})
"""A source has no offsets, and config is read by every task at its own pace."""
_ASK_EVERY_S = 0.1
"""How old an answer about the ends of streams and the progress of others may be."""
_OFFSETS_S = 2.0
"""It takes some milliseconds, or for ever (see patience.py); the judge takes a task for dead that stands for 4 s."""
_ENDS_S = 0.2
"""Another owner's turn that is under way ends sooner; the rest of a dead one never does."""
_PUBLISH_S = 2.0
"""Who publishes outside a turn, as a pulse, has something else to do."""
_REPORTS_S = 0.1
"""A transaction is known to have failed a moment before it is reported which message of it was refused."""
_SILENT_S = 1.0
"""For so long a broker that did not answer is not asked to take anything more."""
_log = structlog.get_logger("bus")


@dataclass(slots=True)
class _Written:
    """What was written to one stream."""

    messages: int = 0
    rows: int = 0
    """Of the last message."""
    first: int = -1
    last: int = -1
    """Offsets, as the broker tells them."""
    refused: KafkaError | None = None
    """Not asked what it says before the flush is over: see `cause_of`."""

    def delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.refused = error
            return
        offset = cast("int", message.offset())
        self.first = offset if self.first < 0 else min(self.first, offset)
        self.last = max(self.last, offset)


class KafkaBus:
    """One process's connection. `chain`: the stages that it runs fused. `root`: where its doorbells are."""

    def __init__(
        self, cluster: Cluster, root: Path, clock: Clock, *, partitions: int, chain: Iterable[str] = ()
    ) -> None:  # fmt: skip
        self._cluster = cluster
        self._root = root
        self._clock = clock
        self._chain = frozenset(chain)
        self._partitions = partitions
        self._identities = Identities(cluster, partitions, self._hangs)
        self._lookup = Lookup(cluster, cluster.group("look"))
        self._admin = cluster.admin()
        self._uncommitted: Lookup | None = None
        self._publisher: Producer | None = None
        self._silent_until = 0.0
        self._follower: Follower | None = None
        self._held: dict[TaskId, Held] = {}
        self._made: set[str] = set()
        """Agents whose state topic is there."""
        self._members: dict[str, bytes] = {}
        """Group -> how a producer names it, for somebody who is no member: transactional ids fence here."""
        self._bells: dict[str, tuple[frozenset[Stream], FifoBell]] = {}
        self._ringer = Ringer(root / "bells")
        self._next: dict[Stream, int] = {}
        """The offset that the next message of an inner stream of the fused chain gets."""
        self._alone: dict[Stream, float] = {}
        """When a turn has shown that nobody else writes to an inner stream: the next ones need not ask so soon."""
        self._asked: dict[Stream, tuple[float, tuple[int, int]]] = {}
        self._progress: dict[tuple[str, Stream], tuple[float, Position | None]] = {}
        self._viewers: dict[str, Consumer] = {}
        self._written: dict[Stream, int] = {}
        """What this process wrote ends here: a commit is answered before all of its marks are in the log."""
        self._message_rows: dict[Stream, float] = {}
        """About how many rows a message has."""
        self._patience = Patience()
        self._one = threading.RLock()
        self._publishing = threading.Lock()
        """A pulse waits for no turn."""
        self._incarnation = self._incarnated()

    @property
    def incarnation(self) -> str:
        return self._incarnation

    def _incarnated(self) -> str:
        """A topic that was deleted and made again has another id: what sinks have seen may be missing from it."""
        name = self._cluster.topic(Topic.INCIDENT_LOG)
        try:
            described = self._admin.describe_topics(TopicCollection([name]), request_timeout=ANSWER_S)[name].result()
        except KafkaException as error:
            if code_of(error).code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise CouldNot(
                    f"the broker at {self._cluster.servers} has no topic {name}",
                    hint="`mendstream topics create` makes them all",
                ) from error
            self._admin.poll(0)  # for what it was told beside
            raise explained(error, f"looking for topic {name}", self._cluster) from error
        return hashlib.sha256(str(described.topic_id).encode()).hexdigest()[:6]

    def now_us(self) -> int:
        return self._clock.now_us()

    # --- owning ------------------------------------------------------------------------------------------------------

    def claim(self, task: TaskId, inputs: Sequence[Stream]) -> Claim:
        """Become the owner: fence, then read what was left. Raises NoAnswer."""
        with self._one:
            try:
                return self._claim(task, inputs)
            except (CommitUnknown, Conflict) as error:
                raise NoAnswer(f"becoming the owner of {task}: {error}", hint=error.hint) from error

    def _claim(self, task: TaskId, inputs: Sequence[Stream]) -> Claim:
        if task.agent in self._made:  # asked first, for a broker that is away would let each step below wait longer
            self._lookup.bounds(self._cluster.state_topic(task.agent), task.partition)
        else:
            together = STAGES if task.agent in STAGES else (task.agent,)
            make_state_topics(self._cluster, self._admin, together, self._partitions)
            self._made.update(together)
        while True:
            identity = self._identities.take(identity_of(task, self._chain))
            for rival in rivals_of(task, self._chain, self._partitions):
                self._identities.end(rival)
            used, identity.used = identity.used, True
            try:
                return self._claimed(task, inputs, identity)
            except Fenced:
                if not used:
                    raise
                # It was taken for an earlier claim, and somebody else has had the task since.

    def _claimed(self, task: TaskId, inputs: Sequence[Stream], identity: Identity) -> Claim:
        self._settle(task)
        left = left_by(self._lookup, self._cluster.state_topic(task.agent), task.partition)
        last = left.entry if left else Entry(0, 0, {}, NOWHERE, None)
        positions: dict[Stream, Position] = {}
        for stream in inputs:
            position = last.positions.get(str(stream))
            positions[stream] = self._first(stream) if position is None else position
        held = Held(
            last.epoch + 1, last.turn, last.positions | {str(s): p for s, p in positions.items()},
            left.snapshot_at if left else NOWHERE, identity,
        )  # fmt: skip
        with self._transaction(identity):
            self._enter(identity, task, Entry(held.epoch, held.turn, held.positions, held.snapshot_at, None))
            self._offsets(identity, {task: held.positions})
        self._held[task] = held
        return Claim(
            task, held.epoch, held.turn, positions, left.snapshot if left else None, left.changes if left else []
        )

    def _settle(self, task: TaskId) -> None:
        """Wait until all that was written to the task's log can be read. Whoever could write has been fenced, so what
        is not seen yet is a transaction whose end is on its way. Raises NoAnswer.
        """
        if self._hangs(self._cluster.state_topic(task.agent), task.partition, within_s=SOON_S):
            raise NoAnswer(f"becoming the owner of {task}: a transaction has not ended yet", hint="it is asked again")

    def _hangs(self, topic: str, partition: int, *, within_s: float = _ENDS_S) -> bool:
        """Whether what is written there by now cannot be read `within_s` either. Raises NoAnswer."""
        if self._uncommitted is None:
            self._uncommitted = Lookup(
                self._cluster, self._cluster.group("look"), **{"isolation.level": "read_uncommitted"}
            )  # fmt: skip
        written = self._uncommitted.bounds(topic, partition)[1]
        return self._lookup.bounds(topic, partition, least=written, within_s=within_s)[1] < written

    def _first(self, stream: Stream) -> Position:
        return 0 if stream.topic is Topic.SOURCE else place(stream, self._ask(stream, fresh=True)[0])

    # --- committing --------------------------------------------------------------------------------------------------

    def commit(self, commits: Sequence[TaskCommit]) -> Mapping[Stream, Position]:
        with self._one:
            for commit in commits:
                self._check(commit)
            identity = self._held[commits[0].task].identity
            past_own = {stream: commit.before[stream] for commit in commits for stream in commit.past_own}
            done: dict[Stream, _Written] = {}
            snapshots: dict[TaskId, _Written] = {}
            entries: list[Entry] = []
            identity.pace.begin(time.monotonic())
            with self._transaction(identity, done.values()):
                for commit in commits:
                    for out in commit.outputs:
                        self._write(identity.producer, out, done.setdefault(out.stream, _Written()))
                behind = {stream: self._behind(identity, stream, at, done[stream]) for stream, at in past_own.items()}
                for commit in commits:
                    entries.append(self._entry(commit, behind))
                    snapshots[commit.task] = self._enter(identity, commit.task, entries[-1])
                self._flush(identity)
                for stream, position in past_own.items():
                    self._check_own(stream, position, behind[stream], done[stream])
                self._offsets(identity, {c.task: entry.positions for c, entry in zip(commits, entries, strict=True)})
            for commit, entry in zip(commits, entries, strict=True):
                held = self._held[commit.task]
                held.positions, held.turn = entry.positions, entry.turn
                if commit.snapshot is not None:
                    held.snapshot_at = snapshots[commit.task].last
            for stream in past_own:
                self._next[stream] = done[stream].last + 2  # behind the mark that ends the transaction
                self._alone[stream] = time.monotonic()
                self._leave(stream)
            pause_s = identity.pace.end(time.monotonic())
        self._wrote(done)
        time.sleep(pause_s)  # see pace.py; no lock is held, so whoever claims or publishes meanwhile does not wait
        return {stream: place(stream, wrote.last) + wrote.rows for stream, wrote in done.items()}

    def _check(self, commit: TaskCommit) -> None:
        held = self._held.get(commit.task)
        if held is None or held.epoch != commit.epoch:
            raise Fenced(f"{commit.task} was taken over: epoch {commit.epoch} is not the newest")
        for stream, position in commit.before.items():
            at = held.positions.get(str(stream), 0)
            if at != position:
                raise Fenced(f"{commit.task}: {stream} is at {at}, not at {position}")

    def _behind(self, identity: Identity, stream: Stream, position: Position, wrote: _Written) -> Position:
        """The position behind this transaction's own messages.

        Nobody else writes to an inner stream, so the place is known beforehand; the first time it has to be asked.
        """
        first = self._next.get(stream)
        if first is None:
            self._flush(identity)
            self._check_gap(stream, position, wrote.first)
            first = self._next[stream] = wrote.first
        return place(stream, first + wrote.messages - 1) + wrote.rows

    def _check_own(self, stream: Stream, position: Position, behind: Position, wrote: _Written) -> None:
        """The messages lie where the entry says."""
        if place(stream, wrote.last) + wrote.rows != behind:
            self._next.pop(stream, None)
            self._check_gap(stream, position, wrote.first)
            raise Conflict(f"{stream} has grown by something that nobody sees: the turn has to be done again")

    def _check_gap(self, stream: Stream, position: Position, first: int) -> None:
        """Raises Conflict if rows lie between `position` and the offset `first`."""
        between = self._lookup.read(
            self._cluster.topic(stream.topic), stream.partition, offset_of(stream, position), until=first
        )
        rows = sum(message.rows for message in between if not passed(stream, message, position))
        if rows:
            raise Conflict(f"{stream} has {rows} rows that this turn did not read")

    def _entry(self, commit: TaskCommit, behind: Mapping[Stream, Position]) -> Entry:
        held = self._held[commit.task]
        moved = {str(stream): position for stream, position in commit.positions.items()}
        moved |= {str(stream): behind[stream] for stream in commit.past_own}
        if commit.snapshot is not None:
            return Entry(held.epoch, commit.turn, held.positions | moved, HERE, commit.snapshot)
        return Entry(held.epoch, commit.turn, held.positions | moved, held.snapshot_at, commit.changes)

    def _enter(self, identity: Identity, task: TaskId, entry: Entry) -> _Written:
        key, value = written(entry)
        wrote = _Written()
        topic = self._cluster.state_topic(task.agent)
        _produce(identity.producer, (topic, value, key, task.partition, wrote.delivered))
        return wrote

    def _write(self, producer: Producer, out: Out, wrote: _Written, *, each: bool = False) -> None:
        """`each`: every line is answered for; in a transaction the last one's place is enough, and it costs half."""
        topic, partition = self._cluster.topic(out.stream.topic), out.stream.partition
        at_ms = self._clock.now_us() // 1000
        if framed(out.stream):
            if out.rows > MOST_ROWS:
                raise CouldNot(f"a frame of {out.rows} rows; {MOST_ROWS} are the most", hint="bus.max_batch_rows")
            wrote.messages, wrote.rows = wrote.messages + 1, out.rows
            self._message_rows[out.stream] = 0.9 * self._message_rows.get(out.stream, out.rows) + 0.1 * out.rows
            headers = [("rows", str(out.rows).encode())]
            _produce(producer, (topic, out.value, None, partition, wrote.delivered, None, at_ms, headers))
            return
        *lines, last = out.value.rstrip(b"\n").split(b"\n")
        wrote.messages, wrote.rows = wrote.messages + len(lines) + 1, 1
        answered = wrote.delivered if each else None
        for line in lines:
            _produce(producer, (topic, line, None, partition, answered, None, at_ms))
        _produce(producer, (topic, last, None, partition, wrote.delivered, None, at_ms))

    def _offsets(self, identity: Identity, reached: Mapping[TaskId, Mapping[str, Position]]) -> None:
        """Show to others where the tasks are: with every turn, or after the last one they would see it too far back."""
        places: dict[str, list[TopicPartition]] = {}
        for task, positions in reached.items():
            for name, position in positions.items():
                topic, _, partition = name.rpartition("/")
                if topic not in _SHOWN_TO_NOBODY:
                    stream = Stream(Topic(topic), int(partition))
                    places.setdefault(self._cluster.group(task.agent), []).append(
                        TopicPartition(
                            self._cluster.topic(topic), stream.partition, offset_of(stream, position),
                            metadata=str(row_of(stream, position)),
                        )
                    )  # fmt: skip
        self._flush(identity)
        members = {group: self._member(group) for group in places}

        def send() -> None:
            for group, found in places.items():
                identity.producer.send_offsets_to_transaction(found, members[group], _OFFSETS_S)

        try:
            self._patience.within(_OFFSETS_S, send)
        except TimeoutError as error:
            raise silent(self._cluster, "finishing a turn", f"has not taken the positions: {error}") from error

    def _member(self, group: str) -> bytes:
        if group not in self._members:
            consumer = self._cluster.consumer(group)
            self._members[group] = consumer.consumer_group_metadata()
            consumer.close()
        return self._members[group]

    @contextlib.contextmanager
    def _transaction(self, identity: Identity, done: Collection[_Written] = ()) -> Iterator[None]:
        """All that is produced within, or nothing. After any failure the producer is thrown away. `done`: what is
        produced; once a message of it was refused, every further call only finds that the transaction has failed.
        """
        producer = identity.producer
        try:
            producer.begin_transaction()
            yield
            self._flush(identity)  # before the commit, or librdkafka runs into the broker's own pace and waits 100 ms
            producer.commit_transaction(ANSWER_S)
        except (KafkaException, SystemError) as error:
            identity.spent = True
            found = cause_of(error)
            if not code_of(found).fatal():
                found = _refused(producer, done) or found
            raise self._unfinished(producer, found) from error
        except NoAnswer as error:
            identity.spent = True
            raise CommitUnknown(f"the turn was not finished: {error}") from error
        except (Conflict, CouldNot):
            identity.spent = True
            self._abort(producer)
            raise

    def _unfinished(self, producer: Producer, error: KafkaException) -> MendstreamError:
        told = explained(error, "finishing a turn", self._cluster)
        if isinstance(told, Fenced):
            return told
        if lasting(error):
            self._abort(producer)
            return told
        _log.warning("a turn was not finished", cause=str(told))
        if code_of(error).txn_requires_abort():
            self._abort(producer)
            return Conflict(f"nothing of the turn was written: {told}")
        return CommitUnknown(f"the turn may be done: {told}")

    def _abort(self, producer: Producer) -> None:
        with contextlib.suppress(KafkaException):  # whoever takes the identity next ends what is left open
            producer.abort_transaction(ANSWER_S)

    def _flush(self, identity: Identity) -> None:
        if identity.producer.flush(ANSWER_S):
            raise silent(self._cluster, "finishing a turn", f"has not taken it within {ANSWER_S:.0f} s")

    def _wrote(self, done: Mapping[Stream, _Written]) -> None:
        """What this process has written it can read at once."""
        for stream, wrote in done.items():
            self._asked.pop(stream, None)
            self._written[stream] = wrote.last + 1
            if self._follower is not None:
                self._follower.expect(stream, wrote.last + 1)

    def publish(self, outs: Sequence[Out]) -> None:
        with self._publishing:
            if time.monotonic() < self._silent_until:
                raise silent(self._cluster, "publishing", "did not answer just now")
            if self._publisher is None:
                self._publisher = self._cluster.producer()
                meet(self._publisher, self._cluster.topic(Topic.INCIDENT_LOG), times=2)
            done: dict[Stream, _Written] = {}
            try:
                for out in outs:
                    self._write(self._publisher, out, done.setdefault(out.stream, _Written()), each=True)
                left = self._publisher.flush(_PUBLISH_S)
                refused = next((wrote.refused for wrote in done.values() if wrote.refused is not None), None)
                if refused is not None:
                    raise KafkaException(refused)
            except (KafkaException, SystemError) as error:
                self._publisher = None  # its sequence is broken
                found = cause_of(error)
                told = explained(found, "publishing", self._cluster)
                raise (told if lasting(found) else NoAnswer(str(told), hint=told.hint)) from error
            if left:
                self._publisher = None
                self._silent_until = time.monotonic() + _SILENT_S
                raise silent(self._cluster, "publishing", f"has not taken {left} messages in {_PUBLISH_S:.0f} s")
        self._wrote(done)

    # --- reading -----------------------------------------------------------------------------------------------------

    def read(self, stream: Stream, position: Position, *, max_rows: int, max_bytes: int) -> list[Block]:
        if self._follower is not None and self._listened(stream):
            found = self._follower.read(stream, position, max_rows, max_bytes)
            if found is not None:
                return found
        elif stream in self._written:
            self._ask(stream, fresh=True)
        messages = self._lookup.read(
            self._cluster.topic(stream.topic), stream.partition, offset_of(stream, position),
            max_rows=max_rows + row_of(stream, position), max_bytes=max_bytes,
        )  # fmt: skip
        return blocks(stream, messages, position, max_rows, max_bytes)

    def bounds(self, stream: Stream) -> tuple[Position, Position]:
        """The end is the one that this process knows of, where it reads the stream on and on."""
        ahead = None if self._follower is None else self._follower.ahead(stream)
        if ahead is not None:
            asked = self._asked.get(stream)
            return place(stream, self._ask(stream)[0] if asked is None else asked[1][0]), place(stream, ahead)
        first, end = self._ask(stream)
        return place(stream, first), place(stream, end)

    def waiting(self, stream: Stream, position: Position) -> int:
        """Exact at 0 and where this process has fetched all there is; else about as many. Pulses ask beside turns."""
        if self._follower is not None and self._listened(stream):
            following = self._next.get(stream)
            if following is not None:  # written by this process alone: nothing new means nothing there
                known_s = time.monotonic() - self._alone.get(stream, 0.0)
                if known_s < _ASK_EVERY_S or self._ask(stream)[1] <= following:
                    return 0
                self._next.pop(stream, None)
            rows, messages = self._follower.rows(stream, position)
            return rows + self._about(stream, messages)
        return self._about(stream, self._ask(stream)[1] - offset_of(stream, position))

    def _about(self, stream: Stream, messages: int) -> int:
        return int(max(0, messages) * self._message_rows.get(stream, 1.0))

    def since(self, stream: Stream, at_us: int) -> Position:
        offset = self._lookup.since(self._cluster.topic(stream.topic), stream.partition, at_us)
        return place(stream, self._ask(stream, fresh=True)[1] if offset is None else offset)

    def position(self, task: TaskId, stream: Stream) -> Position | None:
        if task in self._held:
            return self._held[task].positions.get(str(stream))
        if stream.topic is Topic.SOURCE:
            left = left_by(self._lookup, self._cluster.state_topic(task.agent), task.partition)
            return left.entry.positions.get(str(stream)) if left else None
        return self._progress_of(task.agent, stream)

    def _progress_of(self, agent: str, stream: Stream) -> Position | None:
        at, found = self._progress.get((agent, stream), (0.0, None))
        now = time.monotonic()
        if now - at < _ASK_EVERY_S:
            return found
        asked = [TopicPartition(self._cluster.topic(stream.topic), stream.partition)]
        try:
            (told,) = self._viewer(agent).committed(asked, timeout=SOON_S)
        except KafkaException as error:
            raise explained(error, f"asking how far {agent} is", self._cluster) from error
        found = None if told.offset < 0 else place(stream, told.offset, int(told.metadata or 0))
        self._progress[agent, stream] = (now, found)
        return found

    def _viewer(self, agent: str) -> Consumer:
        """Sees the offsets of a group, and never waits for a transaction. An admin client would do, but librdkafka ends
        the process when such a question of its is out of time.
        """
        if agent not in self._viewers:
            self._viewers[agent] = self._cluster.consumer(
                self._cluster.group(agent), **{"isolation.level": "read_uncommitted"}
            )  # fmt: skip
        return self._viewers[agent]

    def _ask(self, stream: Stream, *, fresh: bool = False) -> tuple[int, int]:
        """(first offset, the offset that comes next), asked for at most every so often."""
        at, found = self._asked.get(stream, (0.0, (0, 0)))
        now = time.monotonic()
        if fresh or now - at >= _ASK_EVERY_S:
            found = self._lookup.bounds(
                self._cluster.topic(stream.topic), stream.partition, least=self._written.pop(stream, 0)
            )  # fmt: skip
            self._asked[stream] = (now, found)
        return found

    # --- bells -------------------------------------------------------------------------------------------------------

    def listen(self, name: str, streams: Sequence[Stream]) -> FifoBell:
        """From now on these streams are fetched in the background, from where this process's tasks are, else from where
        they are first read; what `name` listened to before is fetched no more.
        """
        with told(self._root):
            bell = FifoBell(self._root / "bells", name, [s for s in streams if s.topic is Topic.SOURCE])
        before, _ = self._bells.get(name, (frozenset[Stream](), bell))
        self._bells[name] = (frozenset(streams), bell)
        for stream in before:
            if not self._listened(stream):
                self._leave(stream)
        fetched = [stream for stream in streams if stream.topic is not Topic.SOURCE]
        if fetched and self._follower is None:
            self._follower = Follower(self._cluster, self._cluster.group("follow"), self._ring)
            self._follower.meet(fetched)
        for stream in fetched:
            at = [held.positions[str(stream)] for held in self._held.values() if str(stream) in held.positions]
            if self._follower is not None and at:
                self._follower.follow(stream, min(at))
        return bell

    def _listened(self, stream: Stream) -> bool:
        return any(stream in streams for streams, _ in list(self._bells.values()))

    def _leave(self, stream: Stream) -> None:
        if self._follower is not None:
            self._follower.leave(stream)

    def _ring(self, grown: Iterable[Stream]) -> None:
        streams = set(grown)
        for listened, bell in list(self._bells.values()):
            if not listened.isdisjoint(streams):
                with contextlib.suppress(OSError):  # closed meanwhile
                    bell.ring()

    def ring(self, stream: Stream) -> None:
        """Wake who listens to `stream`, for what grows outside the log: a source's spool."""
        self._ringer.ring([stream])

    def sync(self) -> None:
        """Nothing: what is committed is with the broker."""

    def close(self) -> None:
        if self._follower is not None:
            self._follower.close()
        self._lookup.close()
        if self._uncommitted is not None:
            self._uncommitted.close()
        self._patience.close()
        for viewer in self._viewers.values():
            viewer.close()
        self._ringer.close()


def _refused(producer: Producer, done: Collection[_Written]) -> KafkaException | None:
    """What was refused for good of a turn that has failed."""
    until = time.monotonic() + _REPORTS_S
    while not any(wrote.refused is not None for wrote in done) and (left := until - time.monotonic()) > 0:
        with contextlib.suppress(KafkaException, SystemError):
            producer.poll(left)
    found = [KafkaException(wrote.refused) for wrote in done if wrote.refused is not None]
    return next((error for error in found if lasting(error)), None)


def _produce(producer: Producer, message: tuple[Any, ...]) -> None:
    """Wait for room where the producer's queue is full. By place: names cost a third of the whole call."""
    while True:
        try:
            producer.produce(*message)
        except BufferError:
            producer.poll(0.1)
        else:
            return
