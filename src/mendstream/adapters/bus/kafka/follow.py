"""Reading: streams that are followed in the background, and looks at any place of any stream.

A read gives what has been fetched. It waits only where it could not know yet whether there is more: until a stream's
end has been reached once, and until what this process wrote itself has come back.
"""

from __future__ import annotations

import bisect
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as Raw

from mendstream.adapters.bus.kafka.client import ANSWER_S, SOON_S, Cluster, code_of, explained, meet, silent
from mendstream.adapters.bus.kafka.places import Message, blocks, framed, offset_of, passed, place
from mendstream.contracts.errors import CouldNot
from mendstream.contracts.ports import Block, Position
from mendstream.contracts.topics import CONFIG, Stream

_POLL_S = 0.05
"""How long a stream that is followed from now on may have to wait for its first fetch."""
_BATCH = 2000
_MOST_BYTES = 32 << 20
"""Of one stream in memory; from then on it is fetched no further until half of it has been read."""
_EVERYTHING = 1 << 62
_AGAIN_S = 0.005
_NOT_YET = frozenset(
    {
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
    }
)
_BESIDE_THE_LOG = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError._LOG_TRUNCATION})
"""The offset that was asked for is not in the log: before its beginning, or behind its end."""
_log = structlog.get_logger("bus")


def message_of(raw: Raw) -> Message:
    rows = 1
    for name, value in cast("list[tuple[str, bytes]]", raw.headers() or []):
        if name == "rows":
            rows = int(value)
    return Message(_offset(raw), rows, raw.timestamp()[1] * 1000, raw.value() or b"")


def _offset(raw: Raw) -> int:
    """Every message that was read has one, and so has an end."""
    return cast("int", raw.offset())


@dataclass(slots=True)
class _Followed:
    stream: Stream
    start: int
    """Offset from which on `kept` has all that was fetched."""
    kept: list[Message] = field(default_factory=list)
    rows: int = 0
    size: int = 0
    ahead: int = 0
    """Everything before this offset has been fetched."""
    reached: bool = False
    """Its end was reached once."""
    high: int = 0
    """Where it ends on the broker, markers and all, when something was fetched last."""
    expected: int = 0
    """What this process wrote itself ends here."""
    paused: bool = False
    taken: bool = False
    """The consumer fetches it: what came before was asked for by somebody earlier."""
    failure: CouldNot | None = None
    """Why it can be read no further."""

    @property
    def known(self) -> bool:
        return self.reached and self.ahead >= self.expected

    def add(self, message: Message) -> None:
        self.kept.append(message)
        self.rows += message.rows
        self.size += len(message.value)
        self.ahead = message.offset + 1

    def drop(self, position: Position) -> None:
        """Forget what lies before `position`."""
        gone = 0
        while gone < len(self.kept) and passed(self.stream, self.kept[gone], position):
            self.rows -= self.kept[gone].rows
            self.size -= len(self.kept[gone].value)
            gone += 1
        if gone:
            del self.kept[:gone]
            self.start = offset_of(self.stream, position)


class Follower:
    """One consumer and its thread, for the streams that this process reads on and on.

    Only its thread calls the consumer: a call from another would wait for the poll, and hold the interpreter's lock.
    Any thread may ask: a pulse does, beside the turns.
    """

    def __init__(self, cluster: Cluster, group: str, ring: Callable[[Iterable[Stream]], None]) -> None:
        self._cluster = cluster
        # Where the log does not have what comes next, it would jump without a word.
        self._made = partial(cluster.consumer, group, **{"auto.offset.reset": "error"})
        self._consumer = self._made()
        self._ring = ring
        self._streams: dict[Stream, _Followed] = {}
        self._named: dict[tuple[str, int], _Followed] = {}
        self._news = threading.Condition()
        self._closing = False
        self._failure: KafkaException | None = None
        self._orders: deque[Callable[[], None]] = deque()
        """What the thread is to do with its consumer, oldest first."""
        self._met: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="kafka-follower", daemon=True)
        self._thread.start()

    def meet(self, streams: Iterable[Stream]) -> None:
        """These will be followed: once something is fetched, each question waits behind a fetch."""
        for stream in streams:
            self._orders.append(partial(self._meet, stream))

    def follow(self, stream: Stream, position: Position) -> None:
        """Begin now with what will be read: streams that are begun one after another wait for each other's fetches."""
        with self._news:
            self._follow(stream, position)

    def leave(self, stream: Stream) -> None:
        """Fetch it no more."""
        with self._news:
            if self._streams.pop(stream, None) is not None:
                del self._named[self._cluster.topic(stream.topic), stream.partition]
                self._orders.append(lambda: self._consumer.incremental_unassign([self._partition(stream, 0)]))

    def expect(self, stream: Stream, offset: int) -> None:
        """This process has written up to `offset`: what is read next has it."""
        with self._news:
            followed = self._streams.get(stream)
            if followed is not None:
                followed.expected = max(followed.expected, offset)

    def read(self, stream: Stream, position: Position, max_rows: int, max_bytes: int) -> list[Block] | None:
        """Blocks from `position` on, where fetching begins; None if that lies before what is kept. Raises NoAnswer,
        CouldNot.
        """
        with self._news:
            followed = self._follow(stream, position)
            if followed.failure is not None:
                raise followed.failure
            if offset_of(stream, position) < followed.start:
                return None
            if stream != CONFIG:  # several tasks of a process read that, each at its own pace; and it is small
                followed.drop(position)
                self._resume(followed)
            first = self._first(followed, position)
            if first == len(followed.kept) and not followed.known:
                self._wait(followed, position)
                first = self._first(followed, position)
            return blocks(stream, followed.kept[first:] if first else followed.kept, position, max_rows, max_bytes)

    def rows(self, stream: Stream, position: Position) -> tuple[int, int]:
        """(rows from `position` on that are here, messages that are not). Waits until that is known."""
        with self._news:
            followed = self._follow(stream, position)
            if not followed.kept and not followed.known:
                self._wait(followed, position)
            first, kept = self._first(followed, position), followed.kept
            behind = max(0, followed.high - followed.ahead) if followed.size > _MOST_BYTES // 2 else 0
            if first == len(kept):
                return 0, behind
            before = sum(message.rows for message in kept[:first])
            inside = max(0, position - place(stream, kept[first].offset))
            return followed.rows - before - inside, behind

    def ahead(self, stream: Stream) -> int | None:
        """The offset up to which `stream` has been fetched; None if it is not followed."""
        with self._news:
            followed = self._streams.get(stream)
            if followed is None:
                return None
            if not followed.kept and not followed.known:
                self._wait(followed, 0)
            return followed.ahead

    def close(self) -> None:
        self._closing = True
        self._thread.join()
        self._consumer.close()

    # --- inside --------------------------------------------------------------------------------------------------

    def _follow(self, stream: Stream, position: Position) -> _Followed:
        """Fetch `stream` from `position` on, unless it is fetched already."""
        if stream in self._streams:
            return self._streams[stream]
        offset = offset_of(stream, position)
        followed = _Followed(stream, offset, ahead=offset)

        def begin() -> None:
            self._meet(stream)
            followed.taken = True
            self._consumer.incremental_assign([self._partition(stream, offset)])

        self._streams[stream] = followed
        self._named[self._cluster.topic(stream.topic), stream.partition] = followed
        self._orders.append(begin)
        return followed

    def _partition(self, stream: Stream, offset: int) -> TopicPartition:
        return TopicPartition(self._cluster.topic(stream.topic), stream.partition, offset)

    def _meet(self, stream: Stream) -> None:
        topic = self._cluster.topic(stream.topic)
        if topic not in self._met:
            self._met.add(topic)
            meet(self._consumer, topic)

    def _first(self, followed: _Followed, position: Position) -> int:
        kept, stream = followed.kept, followed.stream
        if not kept or not passed(stream, kept[0], position):
            return 0
        at = bisect.bisect_left(kept, offset_of(stream, position), key=lambda message: message.offset)
        while at < len(kept) and passed(stream, kept[at], position):
            at += 1
        return at

    def _wait(self, followed: _Followed, position: Position) -> None:
        deadline = time.monotonic() + SOON_S
        while not followed.known and self._first(followed, position) == len(followed.kept):
            if followed.failure is not None:
                raise followed.failure
            if not self._news.wait(max(0.0, deadline - time.monotonic())) and time.monotonic() >= deadline:
                doing = f"reading {followed.stream}"
                if self._failure is not None:
                    raise explained(self._failure, doing, self._cluster)
                raise silent(self._cluster, doing, f"has sent nothing for {SOON_S:.0f} s")

    def _resume(self, followed: _Followed) -> None:
        if followed.paused and followed.size < _MOST_BYTES // 2:
            followed.paused = False
            self._orders.append(lambda: self._consumer.resume([self._partition(followed.stream, 0)]))

    def _jump(self, followed: _Followed) -> None:
        """The log does not have what comes next: say how much is lost, and go on with the first that is kept."""
        where, stream = self._partition(followed.stream, followed.ahead), followed.stream
        try:
            first, end = self._consumer.get_watermark_offsets(where, timeout=ANSWER_S)
        except KafkaException as error:
            self._failure = error
            self._orders.append(partial(self._jump, followed))
            return
        with self._news:
            if self._streams.get(stream) is not followed:
                return
            if followed.ahead > end:
                followed.failure = CouldNot(
                    f"{stream} ends at {end}, and was read up to {followed.ahead}: the topic was made again, or the "
                    "broker has lost its end",
                    hint="use another run.namespace, with topics of its own, or bring back what the topic had",
                )
                self._ring([stream])
                self._news.notify_all()
                return
            lost, followed.ahead = first - followed.ahead, max(first, followed.ahead)
        if lost > 0:
            told = _log.error if framed(stream) else _log.warning  # events, or news that is old by now
            told("messages were deleted by retention before they were read", stream=str(stream), messages=lost)
        self._consumer.incremental_unassign([where])
        self._consumer.incremental_assign([self._partition(stream, followed.ahead)])

    def _run(self) -> None:
        while not self._closing:
            try:
                self._fetch()
            except KafkaException as error:  # else nothing would be fetched any more, and nobody would know
                _log.error("the consumer refused an order: all is fetched by a new one", cause=str(error))
                self._renew()

    def _renew(self) -> None:
        self._consumer.close()
        self._consumer = self._made()
        with self._news:
            self._orders.clear()
            for followed in self._streams.values():
                followed.taken, followed.paused = True, False
                where = self._partition(followed.stream, followed.ahead)
                self._orders.append(partial(self._consumer.incremental_assign, [where]))

    def _fetch(self) -> None:
        while not self._closing:
            for _ in range(len(self._orders)):  # some are given anew
                self._orders.popleft()()
            raw = self._consumer.poll(_POLL_S)
            if raw is None:
                continue
            self._take([raw, *self._consumer.consume(_BATCH, 0)])

    def _take(self, raws: Sequence[Raw]) -> None:
        grown: set[Stream] = set()
        with self._news:
            for raw in raws:
                error = raw.error()
                if error is not None and error.code() in _BESIDE_THE_LOG:
                    beside = self._named.get(cast("tuple[str, int]", (raw.topic(), raw.partition())))
                    if beside is not None:
                        self._orders.append(partial(self._jump, beside))
                    continue
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    self._failure = KafkaException(error)
                    _log.warning("the broker could not give what was asked for", cause=error.str())
                    continue
                followed = self._named.get(cast("tuple[str, int]", (raw.topic(), raw.partition())))
                if followed is None or not followed.taken or _offset(raw) < followed.ahead:
                    continue  # left meanwhile, or an end that is known
                if error is not None:
                    if not followed.reached or followed.ahead != _offset(raw):
                        grown.add(followed.stream)
                    followed.reached, followed.ahead = True, _offset(raw)
                    continue
                followed.add(message_of(raw))
                if followed.stream not in grown:
                    grown.add(followed.stream)
                    where = self._partition(followed.stream, 0)
                    followed.high = self._consumer.get_watermark_offsets(where, cached=True)[1]
                if followed.size > _MOST_BYTES and not followed.paused:
                    followed.paused = True
                    self._consumer.pause([self._partition(followed.stream, 0)])
            if grown:
                self._failure = None
                self._ring(grown)  # before anybody reads: who then waits is not woken for what it has read
            self._news.notify_all()


class Lookup:
    """Looks at any place of any partition, one after the other."""

    def __init__(self, cluster: Cluster, group: str, **more: Any) -> None:
        self._cluster = cluster
        # At the end of a partition the broker would wait for more before it says so.
        self._consumer: Consumer = cluster.consumer(group, **{"fetch.wait.max.ms": 1}, **more)
        self._one = threading.Lock()
        self._met: set[str] = set()
        self._answers = False
        """The first question has to find the broker."""

    def read(
        self, topic: str, partition: int, offset: int, *, max_rows: int = _EVERYTHING, max_bytes: int = _EVERYTHING,
        until: int | None = None,
    ) -> list[Message]:  # fmt: skip
        """Messages from `offset` on (or the first that is kept) up to the end, or before `until`. Raises NoAnswer."""
        doing = f"reading {topic}/{partition}"
        found: list[Message] = []
        rows = size = 0
        with self._one:
            if topic not in self._met:
                self._met.add(topic)
                meet(self._consumer, topic)
            self._consumer.assign([TopicPartition(topic, partition, offset)])
            deadline = time.monotonic() + ANSWER_S
            try:
                while rows < max_rows and size < max_bytes:
                    raw = self._consumer.poll(max(0.0, deadline - time.monotonic()))
                    if raw is None:
                        raise silent(self._cluster, doing, f"has sent nothing for {ANSWER_S:.0f} s")
                    error = raw.error()
                    if error is not None:
                        if error.code() == KafkaError._PARTITION_EOF:
                            break
                        if error.retriable() or error.code() in _NOT_YET:
                            continue  # until poll has nothing to tell within the time that is left
                        raise explained(KafkaException(error), doing, self._cluster)
                    if until is not None and _offset(raw) >= until:
                        break
                    found.append(message_of(raw))
                    rows += found[-1].rows
                    size += len(found[-1].value)
                    deadline = time.monotonic() + ANSWER_S
            finally:
                self._consumer.unassign()
        return found

    def bounds(self, topic: str, partition: int, *, least: int = 0, within_s: float = SOON_S) -> tuple[int, int]:
        """(first offset that is kept, the offset after the last one that can be read). Waits `within_s` until that is
        at `least`, and for a topic that was made just now. Raises NoAnswer.
        """
        patience_s = SOON_S if self._answers else ANSWER_S
        asked = time.monotonic()
        doing = f"asking where {topic}/{partition} ends"
        while True:
            try:
                with self._mine(doing, patience_s):
                    first, end = self._consumer.get_watermark_offsets(
                        TopicPartition(topic, partition), timeout=patience_s
                    )  # fmt: skip
            except KafkaException as error:
                if code_of(error).code() not in _NOT_YET or time.monotonic() > asked + patience_s:
                    raise explained(error, doing, self._cluster) from error
            else:
                self._answers = True
                if end >= least or time.monotonic() > asked + within_s:
                    return int(first), int(end)
            time.sleep(_AGAIN_S)

    @contextlib.contextmanager
    def _mine(self, doing: str, patience_s: float) -> Iterator[None]:
        """The consumer, which has no assignment now: polled, it gives no message, and tells what it heard beside."""
        if not self._one.acquire(timeout=patience_s):
            raise silent(self._cluster, doing, "lets another question wait")
        try:
            yield
        except KafkaException:
            self._consumer.poll(0)
            raise
        finally:
            self._one.release()

    def since(self, topic: str, partition: int, at_us: int) -> int | None:
        """The first offset of a message stamped `at_us` or later; None if there is none."""
        asked = TopicPartition(topic, partition, -(-at_us // 1000))
        deadline = time.monotonic() + ANSWER_S
        doing = f"asking for a time in {topic}/{partition}"
        while True:
            try:
                with self._mine(doing, ANSWER_S):
                    (found,) = self._consumer.offsets_for_times([asked], timeout=ANSWER_S)
            except KafkaException as error:
                if code_of(error).code() not in _NOT_YET or time.monotonic() > deadline:
                    raise explained(error, doing, self._cluster) from error
            else:
                return None if found.offset < 0 else int(found.offset)
            time.sleep(_AGAIN_S)

    def close(self) -> None:
        self._consumer.close()
