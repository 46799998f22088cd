"""A number of moments in; what a log loses when the power goes at each of them out.

A writer works through the real bus while every write and sync that it asks of the system is recorded (`traced`). For
each moment the log is rebuilt from what the disk must have, and from a random choice of what it may have, opened as the
next start opens it, and read (`outage`).

What is modelled. A write is in the page cache; the kernel may bring any sector of 512 bytes to the disk at any time, in
any order, or not at all; a call that was under way may have happened in part. When fsync or fdatasync returns, all of
the file is on the disk; when a write through O_DSYNC returns, that write is. What is not: a disk that lies about its
cache, a torn sector, bytes that rot, the directory's own entries (the log was there before), the control wing (it is
written by the same code), and files outside of the log, which hold nothing that is promised.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import msgspec

from mendstream.adapters.bus import boot
from mendstream.adapters.bus.lmdb_bus import create
from mendstream.contracts.errors import CouldNot
from mendstream.contracts.topics import Wing
from mendstream.simulation import outage, traced
from mendstream.simulation.outage import Durability, Finding, Left
from mendstream.simulation.traced import Event, Room, Said, Sync, Write

DURABILITIES: tuple[Durability, ...] = ("power", "process")
TURNS = 120
SECTOR = 512
_PAGE = 4096 // SECTOR
_LOG = f"{Wing.DATA.value}/data.mdb"
_HEAD_BYTES = 2 * 4096
"""LMDB's two meta pages, which say where everything else is."""
_EXAMPLES = 5

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cuts:
    """What the next starts found."""

    durability: Durability
    cuts: int
    acknowledged: int
    """Turns that the writer was told to be durable."""
    dirty: int
    """Cuts at which something was not on the disk yet."""
    whole: int
    refused: int
    lost: int
    """Logs without something that was acknowledged (durability `power`)."""
    wrong: int
    """Taken for whole and not so, broke when the work went on, ended their reader, or were not seen to be unclean."""
    examples: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """`power` loses nothing and refuses nothing; `process` may refuse, but takes nothing torn for whole."""
        return not self.lost and not self.wrong and (self.durability == "process" or not self.refused)


def cut_power(
    cuts: int, durability: Durability, *, seed: int, progress: Progress, stop: Callable[[], bool], prelude: str = ""
) -> Cuts:
    """Cut and look. `prelude`: Python that the writer runs first, for planting a mistake. Raises CouldNot."""
    chapter = f"power cuts, durability {durability}"
    progress(chapter, 0, cuts)
    found: Counter[str] = Counter()
    examples: list[str] = []
    with tempfile.TemporaryDirectory(prefix="mendstream-power-") as folder, _Reader() as reader:
        record = _Record.of_writer(Path(folder) / "log", durability, seed, prelude)
        dirty = 0
        for image in record.images(cuts, random.Random(seed)):
            left = record.left(Path(folder) / "left", image, durability, seed)
            finding = reader.ask(left)
            shutil.rmtree(left.root)
            found[finding.kind] += 1
            dirty += image.dirty
            if finding.kind not in ("whole", "refused") and len(examples) < _EXAMPLES:
                examples.append(f"cut at call {image.at} ({image.how}): {finding.kind}: {finding.text}")
            progress(chapter, found.total(), cuts)
            if stop():
                break
    return Cuts(
        durability=durability, cuts=found.total(), acknowledged=record.acknowledged, dirty=dirty,
        whole=found["whole"], refused=found["refused"], lost=found["lost"],
        wrong=found["wrong"] + found["unrecognised"], examples=tuple(examples),
    )  # fmt: skip


# --- what the disk may have ------------------------------------------------------------------------------------------


class Image(NamedTuple):
    """The log's file as the next start may find it."""

    at: int
    """The call that was under way, by its number."""
    how: str
    data: bytes
    dirty: bool
    turns: int
    published: int


@dataclass(slots=True)
class Disk:
    """One file: what the disk has for sure, and per sector what it may have instead."""

    sure: bytearray
    cache: bytearray
    may: dict[int, list[bytes]] = field(default_factory=dict)
    """Sector -> its contents since the last sync, oldest first."""

    def put(self, event: Write | Room) -> None:
        """Into the cache; nothing is sure yet."""
        if isinstance(event, Room):
            self._reach(event.size)
            return
        end = event.at + len(event.data)
        self._reach(end)
        self.cache[event.at : end] = event.data
        for sector in _sectors(event):
            self.may.setdefault(sector, []).append(bytes(self.cache[sector * SECTOR : (sector + 1) * SECTOR]))

    def _reach(self, size: int) -> None:
        self.cache.extend(bytes(max(0, size - len(self.cache))))

    def settle(self, sectors: Sequence[int]) -> None:
        """These are on the disk."""
        for sector in sectors:
            _place(self.sure, sector, self.may.pop(sector)[-1])

    def after(self, how: str, dice: random.Random) -> bytes:
        """What is found when the power is back."""
        found = bytearray(self.sure)
        missing = dice.choice([-1, *(sector // _PAGE for sector in self.may)])
        for sector, contents in self.may.items():
            head = sector * SECTOR < _HEAD_BYTES
            match how:
                case "nothing more":
                    kept = None
                case "all of it":
                    kept = contents[-1]
                case "only the head":
                    kept = contents[-1] if head else None
                case "all but the head":
                    kept = None if head else contents[-1]
                case "all but a page":
                    kept = None if sector // _PAGE == missing else contents[-1]
                case _:
                    kept = dice.choice([None, *contents])
            if kept is not None:
                _place(found, sector, kept)
        # Where a file ends is written apart from what is in it.
        if dice.random() < 0.5:
            found.extend(bytes(len(self.cache) - len(found)))
        return bytes(found)


HOW = ("nothing more", "all of it", "only the head", "all but the head", "all but a page", "any sectors")
"""What of the unsynced writes has reached the disk. The head goes first or last in the worst cases."""


def _sectors(event: Write) -> range:
    return range(event.at // SECTOR, -(-(event.at + len(event.data)) // SECTOR))


def _place(disk: bytearray, sector: int, content: bytes) -> None:
    end = sector * SECTOR + len(content)
    if end > len(disk):
        disk.extend(bytes(end - len(disk)))
    disk[sector * SECTOR : end] = content


# --- the record ------------------------------------------------------------------------------------------------------


class _Record:
    """What a writer asked of the system, and the log as it was before."""

    def __init__(self, root: Path, before: bytes, events: list[Event]) -> None:
        self._root = root
        self._before = before
        self._events = events
        if bytes(self._last()) != (root / _LOG).read_bytes():
            raise CouldNot("the record of the writer's calls does not explain the file that it left", hint="a bug")

    @classmethod
    def of_writer(cls, root: Path, durability: Durability, seed: int, prelude: str) -> _Record:
        create(root, incarnation="cut", map_bytes=outage.MAP_BYTES)
        before = (root / _LOG).read_bytes()
        call = f"from mendstream.simulation.outage import write; write({str(root)!r}, {durability!r}, {TURNS}, {seed})"
        return cls(root, before, traced.record([sys.executable, "-c", f"{prelude}\n{call}"], root))

    @property
    def acknowledged(self) -> int:
        return sum(isinstance(event, Said) and event.text.startswith("turn") for event in self._events)

    def _last(self) -> bytearray:
        disk = Disk(bytearray(self._before), bytearray(self._before))
        for event in self._of_log():
            if isinstance(event, Write | Room):
                disk.put(event)
        return disk.cache

    def _of_log(self) -> list[Event]:
        """In order; words count where they were said."""
        return [event for event in self._events if isinstance(event, Said) or event.file == _LOG]

    def images(self, cuts: int, dice: random.Random) -> Iterator[Image]:
        """The log after `cuts` power cuts at random calls. The call under way may have happened in part."""
        events = self._of_log()
        calls = [n for n, event in enumerate(events) if not isinstance(event, Said)]
        wanted = Counter(dice.choices(calls, k=cuts))
        disk = Disk(bytearray(self._before), bytearray(self._before))
        said = {"turn": 0, "published": 0}
        for number, event in enumerate(events):
            if isinstance(event, Said):
                word, _, count = event.text.partition(" ")
                said[word] = int(count)
                continue
            if isinstance(event, Write | Room):
                disk.put(event)
            for _ in range(wanted[number]):
                how = dice.choice(HOW)
                yield Image(number, how, disk.after(how, dice), bool(disk.may), said["turn"], said["published"])
            if isinstance(event, Sync):
                disk.settle(list(disk.may))
            elif isinstance(event, Write) and event.through:
                disk.settle(_sectors(event))

    def left(self, root: Path, image: Image, durability: Durability, seed: int) -> Left:
        """A data directory with that image, as another boot of the machine finds it."""
        for wing in Wing:
            (root / wing.value).mkdir(parents=True)
        shutil.copy(self._root / Wing.CONTROL.value / "data.mdb", root / Wing.CONTROL.value / "data.mdb")
        (root / _LOG).write_bytes(image.data)
        (root / "run").mkdir()
        last = boot.Boot("the boot before", False, durability)
        (root / "run" / "boot.json").write_bytes(msgspec.json.encode(last))
        return Left(str(root), durability, seed, image.turns, image.published)


class _Reader:
    """A process that reads what was left; another one if a torn log has ended it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.communicate()

    def ask(self, left: Left) -> Finding:
        if self._process is None:
            call = "from mendstream.simulation.outage import examine_each; examine_each()"
            self._process = subprocess.Popen(
                [sys.executable, "-c", call], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode(left) + b"\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if answer:
            return msgspec.json.decode(answer, type=Finding)
        process.communicate()
        self._process = None
        return Finding("wrong", f"its reader ended with {process.returncode}")
