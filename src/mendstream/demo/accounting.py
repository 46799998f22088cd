"""A data directory of a stopped house in; whether each event was decided exactly once out.

An independent reader: it shares no code with the house, so that a mistake there cannot hide itself here. All that it
knows is written down in this page.

- `DIR/data` and `DIR/control` are LMDB environments. Their database `log` maps (topic number, partition, position,
  rows, bytes, time in microseconds, digest), packed as >BHQIIQQ, to the payload of a block. Their database `ends` maps
  (topic number, partition), packed as >BH, to (first position kept, end, bytes, sum of the digests), packed as <qqqQ.
- Topic numbers: 0 raw-events, 3 decisions, 4 agent-metrics, 14 dead-letters. Payloads of raw-events are Arrow IPC
  streams with a column `event_id`; the others are JSON lines. A dead letter's `value` is base64: the line from outside
  (topic `source`), or an Arrow IPC stream of the rows that a later stage gave up (`raw-events` ... `predictions`).
- The demo's source numbers its events without gaps, `f0` to `fN`, and publishes each once. Within a partition, order
  is kept.

So each number from 0 (or from the first one that retention has kept) up to the highest one seen must have been
accepted into raw-events or set aside by ingestion, once; and what was accepted must have one decision or one dead
letter of a later stage. Whoever stops a house first lets what was accepted be decided: what is still on its way counts
as missing.
"""

from __future__ import annotations

import base64
import json
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import lmdb
import pyarrow as pa

EXAMPLES = 10
_KEY = struct.Struct(">BHQIIQQ")
_STREAM = struct.Struct(">BH")
_ENDS = struct.Struct("<qqqQ")
_RAW, _DECISIONS, _METRICS, _DEAD = 0, 3, 4, 14
_OWN_ID = re.compile(rb'"id":"f(\d+)"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounting:
    """What became of the events. Nothing is lost or decided twice if `exact`."""

    events: int
    """Accepted, each once."""
    decisions: int
    dead_letters: int
    """About events; labels have their own."""
    missing: int
    """Neither accepted nor set aside, or accepted and never decided."""
    duplicated: int
    """Accepted, decided or set aside more than once."""
    repeats_dropped: int
    """Repeats from outside that ingestion has recognised."""
    first: int
    """The first number that was looked at: above 0 where retention has trimmed."""
    last: int
    """The highest number that was seen anywhere; -1 for none."""
    missing_examples: tuple[str, ...] = ()
    duplicated_examples: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        return not self.missing and not self.duplicated

    @property
    def text(self) -> str:
        """For people."""
        since = f" from f{self.first} on (retention took what was before)" if self.first else ""
        said = f"{self.events} events accepted{since}, {self.decisions} decisions, {self.dead_letters} dead letters"
        said += f"; {self.missing} missing, {self.duplicated} duplicated"
        for word, examples in (("missing", self.missing_examples), ("duplicated", self.duplicated_examples)):
            said += f"; {word}: {', '.join(examples)}" if examples else ""
        return said


class Letters(NamedTuple):
    """Dead letters about events, by the numbers of the events."""

    at_the_door: Counter[int]
    """Set aside by ingestion."""
    later: Counter[int]
    """Set aside by a later stage."""


def account(data_dir: str | Path) -> Accounting:
    """Read both logs of `data_dir` and compare. Raises lmdb.Error or OSError if they cannot be read."""
    root = Path(data_dir)
    with _opened(root / "data") as data, _opened(root / "control") as control:
        accepted, raw_first = _numbers(data, _RAW, _frame_ids)
        decided, decided_first = _numbers(data, _DECISIONS, _decision_ids)
        letters = _letters([*_blocks(data, _DEAD), *_blocks(control, _DEAD)])
        repeats = _repeats(_blocks(data, _METRICS))
    return _compared(accepted, decided, letters, repeats, first=max(raw_first, decided_first))


def payloads(data_dir: str | Path, environment: str, topic: int) -> Iterator[bytes]:
    """Every block of one topic, for who wants to know more: `environment` is `data` or `control`."""
    with _opened(Path(data_dir) / environment) as env:
        for _, payload in _blocks(env, topic):
            yield payload


def _compared(
    accepted: Counter[int], decided: Counter[int], letters: Letters, repeats: int, *, first: int
) -> Accounting:  # fmt: skip
    came_in, went_out = accepted + letters.at_the_door, decided + letters.later
    last = max([*came_in, *went_out], default=-1)
    numbers = range(first, last + 1)
    lost = {n for n in numbers if not came_in[n]} | {n for n in accepted if n >= first and not went_out[n]}
    # What was set aside at the door must not go out; what was decided must have come in (else it is lost above).
    twice = {n for n in numbers if came_in[n] > 1 or went_out[n] > 1 or (letters.at_the_door[n] and went_out[n])}
    return Accounting(
        events=sum(n >= first for n in accepted),
        decisions=sum(count for n, count in decided.items() if n >= first),
        dead_letters=sum(count for n, count in (letters.at_the_door + letters.later).items() if n >= first),
        missing=len(lost),
        duplicated=len(twice),
        repeats_dropped=repeats,
        first=first,
        last=last,
        missing_examples=_examples(lost),
        duplicated_examples=_examples(twice),
    )


def _numbers(env: Any, topic: int, ids: Callable[[bytes], list[str]]) -> tuple[Counter[int], int]:
    """How often each event is in `topic`, and from which number on all of them are kept."""
    found: Counter[int] = Counter()
    first = 0
    seen: set[int] = set()
    for partition, payload in _blocks(env, topic):
        numbers = [int(event_id[1:]) for event_id in ids(payload)]
        if partition not in seen and numbers and _trimmed(env, topic, partition):
            first = max(first, min(numbers))
        seen.add(partition)
        found.update(numbers)
    return found, first


def _trimmed(env: Any, topic: int, partition: int) -> bool:
    """Whether retention has taken the beginning. A beginning that is gone without its word is a loss."""
    ends = env.open_db(b"ends", create=False)
    with env.begin(db=ends) as txn:
        first, *_ = _ENDS.unpack(txn.get(_STREAM.pack(topic, partition)))
    return bool(first > 0)


def _frame_ids(payload: bytes) -> list[str]:
    with pa.ipc.open_stream(pa.py_buffer(payload)) as reader:
        return [event_id for batch in reader for event_id in batch.column("event_id").to_pylist()]


def _decision_ids(payload: bytes) -> list[str]:
    return [record["event_id"] for record in _lines(payload)]


def _letters(blocks: Iterable[tuple[int, bytes]]) -> Letters:
    letters = Letters(Counter(), Counter())
    for _, payload in blocks:
        for letter in _lines(payload):
            value = base64.b64decode(letter["value"])
            if letter["topic"] == "source":
                if b'"event_id"' not in value:  # else it is a label
                    own = _OWN_ID.search(value)
                    letters.at_the_door[int(own[1]) if own else letter["position"]] += 1
            elif letter["topic"] in ("raw-events", "features", "predictions"):
                letters.later.update(_given_up(value))
    return letters


def _given_up(value: bytes) -> list[int]:
    try:
        return [int(event_id[1:]) for event_id in _frame_ids(value)]
    except pa.ArrowInvalid:
        return []  # a torn frame names no events: they count as missing, which they are


def _repeats(blocks: Iterable[tuple[int, bytes]]) -> int:
    """Counts are sent again until superseded: of each (task, pane, config) the highest revision holds."""
    newest: dict[tuple[Any, ...], tuple[int, int]] = {}
    for _, payload in blocks:
        for record in _lines(payload) if b'"repeat"' in payload else ():
            if "repeat" in record.get("losses", {}):
                key = record["task"], record["pane"], record["model"], record["config"], record["arm"]
                newest[key] = max(newest.get(key, (0, 0)), (record["revision"], record["losses"]["repeat"][1]))
    return sum(bad for _, bad in newest.values())


def _lines(payload: bytes) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(b"[" + b",".join(payload.split(b"\n")).rstrip(b",") + b"]")
    return found


def _blocks(env: Any, topic: int) -> Iterator[tuple[int, bytes]]:
    """(partition, payload) of every block of `topic`, in order."""
    log = env.open_db(b"log", create=False)
    with env.begin(db=log) as txn, txn.cursor() as cursor:
        if not cursor.set_range(bytes([topic])):
            return
        for key, value in cursor:
            number, partition, *_ = _KEY.unpack(key)
            if number != topic:
                return
            yield partition, bytes(value)


def _opened(path: Path) -> Any:
    return lmdb.open(str(path), readonly=True, create=False, lock=False, max_dbs=8)


def _examples(numbers: set[int]) -> tuple[str, ...]:
    return tuple(f"f{n}" for n in sorted(numbers)[:EXAMPLES])
