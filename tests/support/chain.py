"""One stage of a chain that only hands numbers on: `python -m tests.support.chain ADDRESS NAMESPACE ROOT STAGE`.

The bus is the real one, and so is what a stage does when a turn was not finished. The rest of a house is left out: a
broker can be killed more often while a chain of these runs, and what it does wrong is seen in the numbers.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

from mendstream.adapters.bus.kafka.client import Cluster
from mendstream.adapters.bus.kafka.kafka_bus import KafkaBus
from mendstream.contracts.agent import STAGES, TaskId
from mendstream.contracts.errors import CommitUnknown, Conflict, NoAnswer
from mendstream.contracts.ports import Claim, Out, TaskCommit
from mendstream.contracts.topics import Stream, Topic
from mendstream.runtime.clock import WallClock

THROUGH = (Topic.SOURCE, Topic.RAW_EVENTS, Topic.FEATURES, Topic.PREDICTIONS, Topic.DECISIONS)
_AGAIN_S = 0.1
"""Between two tries while the broker is away; the test that reads the numbers has the deadline."""
_PACE_S = 0.01
"""Between two turns of the source, which else would make numbers as fast as it can."""
_SNAPSHOT_EVERY = 50


def main(address: str, namespace: str, root: str, stage: str) -> None:
    place = STAGES.index(stage)
    source, target = Stream(THROUGH[place], 0), Stream(THROUGH[place + 1], 0)
    bus = _opened(Cluster(address, namespace), Path(root))
    bell = bus.listen(stage, [source])
    claim = _claimed(bus, stage, source)
    turn, at = claim.turns, claim.positions[source]
    while True:
        try:
            outs, after = _made(at) if source.topic is Topic.SOURCE else _read(bus, source, at)
            if not outs:
                bell.wait(_PACE_S)
                continue
            turn += 1
            snapshot = b"whole" if turn % _SNAPSHOT_EVERY == 0 else None
            bus.commit(
                [
                    TaskCommit(
                        claim.task, claim.epoch, turn, {source: after}, {source: at},
                        [Out(target, value, 1) for value in outs], snapshot, None if snapshot else b"change",
                    )
                ]
            )  # fmt: skip
            at = after
        except (CommitUnknown, Conflict, NoAnswer):
            claim = _claimed(bus, stage, source)
            turn, at = claim.turns, claim.positions[source]


def _made(at: int) -> tuple[list[bytes], int]:
    """The source: its positions are the numbers."""
    time.sleep(_PACE_S)
    after = at + random.randrange(1, 6)
    return [b"%d\n" % number for number in range(at, after)], after


def _read(bus: KafkaBus, source: Stream, at: int) -> tuple[list[bytes], int]:
    found = bus.read(source, at, max_rows=40, max_bytes=1 << 20)
    return [block.value for block in found], found[-1].next if found else at


def _opened(cluster: Cluster, root: Path) -> KafkaBus:
    while True:
        try:
            return KafkaBus(cluster, root, WallClock(), partitions=1)
        except NoAnswer:
            time.sleep(_AGAIN_S)


def _claimed(bus: KafkaBus, stage: str, source: Stream) -> Claim:
    while True:
        try:
            return bus.claim(TaskId(stage, 0), [source])
        except NoAnswer:
            time.sleep(_AGAIN_S)


if __name__ == "__main__":
    main(*sys.argv[1:])
