"""A second process on a log: `python -m tests.support.writer ROOT VERB ...` publishes, does turns, or listens."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import lmdb
from tests.support.log import MAP_BYTES, out

from mendstream.adapters.bus.lmdb_bus import LmdbBus
from mendstream.contracts.agent import TaskId
from mendstream.contracts.ports import TaskCommit
from mendstream.contracts.topics import Stream, Topic, Wing
from mendstream.runtime.clock import WallClock


def main(root: str, verb: str, *arguments: str) -> None:
    VERBS[verb](Path(root), *arguments)


def publish(root: Path, wing: str, topic: str, partition: str, count: str, name: str) -> None:
    """`count` lines `NAME/N`."""
    bus = _open(root, Wing(wing))
    for n in range(int(count)):
        bus.publish([out(Stream(Topic(topic), int(partition)), f"{name}/{n}".encode())])


def turns(root: Path, agent: str, read: str, write: str, count: str) -> None:
    """Turns that name themselves in output, position and state, printed once committed; `count` 0: until killed."""
    bus = _open(root, Wing.DATA)
    source, target = Stream(Topic(read), 0), Stream(Topic(write), 0)
    claim = bus.claim(TaskId(agent, 0), [source])
    turn, position = claim.turns, claim.positions[source]
    while not int(count) or turn < claim.turns + int(count):
        turn, name = turn + 1, b"%d" % (turn + 1)
        bus.commit(
            [
                TaskCommit(
                    claim.task, claim.epoch, turn, {source: turn}, {source: position}, [out(target, name)],
                    snapshot=name if turn % 7 == 1 else None, changes=name,
                )
            ]
        )  # fmt: skip
        position = turn
        sys.stdout.write(f"{turn}\n")
        sys.stdout.flush()


def listen(root: Path, topic: str) -> None:
    """Listen until killed."""
    _open(root, Wing.CONTROL).listen("listener", [Stream(Topic(topic), 0)])
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    time.sleep(60)


def set_format(root: Path, version: int) -> None:
    """As a later mendstream would have written it."""
    for wing in Wing:
        env = lmdb.open(str(root / wing.value), max_dbs=8)
        with env.begin(write=True, db=env.open_db(b"meta")) as txn:
            txn.put(b"format", str(version).encode())
        env.close()


def _open(root: Path, wing: Wing) -> LmdbBus:
    return LmdbBus(root, wing, WallClock(), map_bytes=MAP_BYTES)


VERBS = {"publish": publish, "turns": turns, "listen": listen}

if __name__ == "__main__":
    main(*sys.argv[1:])
