"""After a power cut: was the log closed cleanly, is it whole, and if it is, a new incarnation for it.

Durability `process` survives the death of any process, not of the machine: what LMDB had not synced may be lost or
torn.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import lmdb
import msgspec

from mendstream.adapters.bus import lmdb_bus
from mendstream.adapters.room import overwrite
from mendstream.contracts.errors import DataDirError
from mendstream.contracts.topics import Topic, Wing

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SIZE = 256


class Boot(msgspec.Struct, frozen=True):
    """DATA/run/boot.json: on which boot of the machine the log was last open, and whether it was closed."""

    boot: str
    clean: bool
    durability: str


def unclean(root: Path) -> bool:
    """Whether the machine went down while the log was open with less than full durability."""
    try:
        last = msgspec.json.decode((root / "run" / "boot.json").read_bytes(), type=Boot)
    except FileNotFoundError:
        return False
    except msgspec.DecodeError:
        return True  # half written: it was open
    return last.boot != boot_id() and not last.clean and last.durability == "process"


def opened(root: Path, durability: Literal["power", "process"]) -> None:
    """Note that the log is in use."""
    path = root / "run" / "boot.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    overwrite(path, msgspec.json.encode(Boot(boot_id(), False, durability)), _SIZE)


def closed(root: Path) -> None:
    """Everything is synced and nobody writes any more."""
    path = root / "run" / "boot.json"
    last = msgspec.json.decode(path.read_bytes(), type=Boot)
    overwrite(path, msgspec.json.encode(Boot(last.boot, True, last.durability)), _SIZE)


def verify(root: Path) -> list[str]:
    """What is wrong with a log: torn blocks and states, gaps, rows of another moment, positions beyond an end. Empty:
    nothing, but for a chance of 2^-64.

    Looked at by a process of its own: LMDB believes what it reads, and a torn page may end who follows it.
    """
    call = f"from mendstream.adapters.bus.boot import tell; tell({str(root)!r})"
    reader = subprocess.run([sys.executable, "-c", call], capture_output=True, check=False)
    if reader.returncode != 0:
        said = reader.stderr.decode(errors="replace").strip().splitlines()
        why = said[-1] if said else f"its reader ended with signal {-reader.returncode}"
        return [f"cannot be read: {why}"]
    return msgspec.json.decode(reader.stdout, type=list[str])


def tell(root: str) -> None:
    """The body of that process."""
    sys.stdout.buffer.write(msgspec.json.encode(problems_of(Path(root))))


def problems_of(root: Path) -> list[str]:
    """What `verify` gives, for a process that may die of it."""
    problems: list[str] = []
    ends: dict[str, int] = {}
    positions: list[tuple[str, str, int]] = []
    for wing in Wing:
        try:
            with lmdb.open(str(root / wing.value), create=False, max_dbs=8, lock=False) as env:
                _count_pages(env)
                _try_to_write(env)
                problems += lmdb_bus.inspect(env, ends, positions)
        except (lmdb.Error, OSError) as error:
            problems.append(f"{wing.value}: cannot be read: {error}")
    for task, stream, position in positions:
        if not stream.startswith(Topic.SOURCE.value) and position > ends.get(stream, 0):
            problems.append(f"{task} is at {position} of {stream}, which ends at {ends.get(stream, 0)}")
    return problems


def _count_pages(env: lmdb.Environment) -> None:
    """LMDB compares pages in use and free pages with all that there are when it copies. A list of free pages that is an
    older one would let it write over what is in use.
    """
    with open(os.devnull, "wb") as nowhere:
        env.copyfd(nowhere.fileno(), compact=True)


def _try_to_write(env: lmdb.Environment) -> None:
    """LMDB's list of free pages is looked at only when some are needed. Nothing is kept of it."""
    meta = env.open_db(b"meta", create=False)
    txn = env.begin(write=True)
    try:
        txn.put(b"trial", bytes(env.stat()["psize"]), db=meta)
    finally:
        txn.abort()


def recover(root: Path) -> None:
    """Verify; raises DataDirError with the fix if the log is torn. If it is whole, a new incarnation begins."""
    problems = verify(root)
    if problems:
        raise DataDirError(
            f"the machine went down while {root} was open, and its log is torn: {'; '.join(problems[:3])}",
            hint='restore a copy, or begin anew with --data DIR; bus.durability = "power" prevents it',
        )
    lmdb_bus.renew(root)


def boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:  # not Linux: the boot is not known, so a crash of the machine is not told from one of the house
        return ""
