"""What runs in processes of its own when the power is cut: a writer that is watched, and a reader of what was left.

Everything that the writer writes follows from the seed, so the reader knows what has to be there.
"""

from __future__ import annotations

import os
import random
import sys
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from mendstream.adapters.bus import boot
from mendstream.adapters.bus.lmdb_bus import LmdbBus
from mendstream.contracts.agent import TaskId
from mendstream.contracts.errors import DataDirError, MendstreamError
from mendstream.contracts.ports import Out, TaskCommit
from mendstream.contracts.topics import Stream, Topic, Wing
from mendstream.runtime.clock import WallClock
from mendstream.simulation.traced import ACKS, trace_me

Durability = Literal["power", "process"]
MAP_BYTES = 64 << 20
_TASK = TaskId("decision", 0)
_SOURCE, _OUTPUT, _BESIDE = Stream(Topic.SOURCE, 0), Stream(Topic.DECISIONS, 0), Stream(Topic.AGENT_METRICS, 0)
_SIZES = (30, 300, 3000, 20_000)
"""Bytes of a block: several to a page, one, and more than a page."""
_SNAPSHOT_EVERY, _CHANGES_EVERY, _PUBLISH_EVERY = 20, 4, 3
"""Other turns have outputs, and nothing new in the state."""
_GO_ON = 2 * _SNAPSHOT_EVERY
"""Turns after the cut: pages that only seem to be free are written over."""


class Left(msgspec.Struct, frozen=True):
    """A data directory after a power cut, and what had been acknowledged before it."""

    root: str
    durability: Durability
    seed: int
    turns: int
    published: int


class Finding(msgspec.Struct, frozen=True):
    """`whole`, `refused` (for a person to mend), `lost` (something acknowledged), `wrong` or `unrecognised`."""

    kind: Literal["whole", "refused", "lost", "wrong", "unrecognised"]
    text: str = ""


class _Turn(NamedTuple):
    outputs: list[Out]
    snapshot: bytes | None
    changes: bytes | None


# --- the writer ------------------------------------------------------------------------------------------------------


def write(root: str, durability: Durability, turns: int, seed: int) -> None:
    """Commit turn after turn, and say of each that it was acknowledged."""
    bus = LmdbBus(Path(root), Wing.DATA, WallClock(), map_bytes=MAP_BYTES, durability=durability)
    acks = os.open(Path(root) / ACKS, os.O_WRONLY | os.O_CREAT)
    trace_me()
    epoch = bus.claim(_TASK, [_SOURCE]).epoch
    for number in range(1, turns + 1):
        bus.commit([_commit(number, epoch, seed)])
        os.write(acks, f"turn {number}".encode())
        if number % _PUBLISH_EVERY == 0:
            bus.publish([_published(number // _PUBLISH_EVERY, seed)])
            os.write(acks, f"published {number // _PUBLISH_EVERY}".encode())
    bus.close()


def _commit(number: int, epoch: int, seed: int) -> TaskCommit:
    turn = _turn(number, seed)
    return TaskCommit(
        task=_TASK, epoch=epoch, turn=number, positions={_SOURCE: number}, before={_SOURCE: number - 1},
        outputs=turn.outputs, snapshot=turn.snapshot, changes=turn.changes,
    )  # fmt: skip


def _turn(number: int, seed: int) -> _Turn:
    dice = random.Random(f"{seed}/{number}")
    outputs = [Out(_OUTPUT, _bytes(dice, dice.choice(_SIZES)), 1) for _ in range(dice.randint(1, 3))]
    if number % _SNAPSHOT_EVERY == 0:
        return _Turn(outputs, dice.randbytes(5000), None)
    return _Turn(outputs, None, dice.randbytes(200) if number % _CHANGES_EVERY == 0 else None)


def _published(number: int, seed: int) -> Out:
    dice = random.Random(f"{seed}/beside/{number}")
    return Out(_BESIDE, _bytes(dice, 400), 1)


def _bytes(dice: random.Random, size: int) -> bytes:
    return dice.randbytes(size).replace(b"\n", b" ")  # one row is one line


# --- the reader ------------------------------------------------------------------------------------------------------


def examine_each() -> None:
    """A `Left` a line comes in on standard input, its `Finding` goes out. A torn log may end this process."""
    for line in sys.stdin.buffer:
        finding = examine(msgspec.json.decode(line, type=Left))
        sys.stdout.buffer.write(msgspec.json.encode(finding) + b"\n")
        sys.stdout.buffer.flush()


def examine(left: Left) -> Finding:
    """As the next start meets it: is the unclean end seen, is the log whole, and is all there that has to be?"""
    root = Path(left.root)
    if left.durability == "process":
        if not boot.unclean(root):
            return Finding("unrecognised")
        try:
            boot.recover(root)
        except DataDirError as error:
            return Finding("refused", str(error))
    elif problems := boot.problems_of(root):
        return Finding("wrong", "; ".join(problems[:3]))
    try:
        return _read(root, left)
    except MendstreamError as error:
        return Finding("wrong", str(error))


def _read(root: Path, left: Left) -> Finding:
    bus = LmdbBus(root, Wing.DATA, WallClock(), map_bytes=MAP_BYTES, durability="process")
    claim = bus.claim(_TASK, [_SOURCE])
    last = claim.turns
    beside = [bytes(block.value) for block in bus.read(_BESIDE, 0, max_rows=1 << 20, max_bytes=1 << 30)]
    if left.durability == "power" and (last < left.turns or len(beside) < left.published):
        said = f"turn {left.turns} and publication {left.published} were acknowledged"
        return Finding("lost", f"{said}; there are {last} and {len(beside)}")
    if left.durability == "process" and "." not in bus.incarnation:
        return Finding("wrong", "the log has no new incarnation")
    turns = [_turn(number, left.seed) for number in range(1, last + 1)]
    blocks = bus.read(_OUTPUT, 0, max_rows=1 << 20, max_bytes=1 << 30)
    expected = {
        "number of outputs": len(blocks) == sum(len(turn.outputs) for turn in turns),
        "outputs": [bytes(block.value) for block in blocks] == [out.value for turn in turns for out in turn.outputs],
        "order": all(one.next == other.position for one, other in pairwise(blocks)),
        "publications": beside == [_published(n + 1, left.seed).value for n in range(len(beside))],
        "position": claim.positions[_SOURCE] == last,
        "snapshot": claim.snapshot == next((t.snapshot for t in reversed(turns) if t.snapshot), None),
        "changes": claim.changes == [t.changes for t in turns[last - last % _SNAPSHOT_EVERY :] if t.changes],
    }
    wrong = [name for name, right in expected.items() if not right]
    for number in range(last + 1, last + _GO_ON + 1):
        bus.commit([_commit(number, claim.epoch, left.seed)])
    bus.close()
    wrong += [f"{problem} when it went on" for problem in boot.problems_of(root)]
    return Finding("wrong", f"after turn {last}: {', '.join(wrong)}") if wrong else Finding("whole")
