"""A process and a folder in; every write and sync of files in that folder out, in order, with the bytes.

The process is watched by ptrace, so what counts is what the system was asked to do and not what anybody believes. A
write through a shared memory map would not be seen: whoever uses the record compares it with the files that were left.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mendstream.contracts.errors import CouldNot


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes that were put into the page cache; `through`: they are on the disk when the call returns (O_DSYNC)."""

    file: str
    at: int
    data: bytes
    through: bool


@dataclass(frozen=True, slots=True)
class Room:
    """The file is at least so long from now on, with zeros where nothing was written."""

    file: str
    size: int


@dataclass(frozen=True, slots=True)
class Sync:
    """All of the file is on the disk when the call returns."""

    file: str


@dataclass(frozen=True, slots=True)
class Said:
    """What the process told us (see `ACKS`): whatever it says is true at this place of the order."""

    text: str


Event = Write | Room | Sync | Said
ACKS = "acks"
"""Writes to a file of this name are words for the record."""

# sys/ptrace.h, linux/ptrace.h
_TRACEME, _UNTIL_CALL, _SETOPTIONS, _GET_SYSCALL_INFO = 0, 24, 0x4200, 0x420E
_EXITKILL, _SYSGOOD = 0x100000, 1
_ENTRY, _EXIT = 1, 2
_INFO_BYTES = 88
_HEAD = struct.Struct("<B3xIQQ")
_CALL = struct.Struct("<7Q")
_IOVEC = struct.Struct("<QQ")
_CALLS = {
    "x86_64": {1: "write", 18: "pwrite", 20: "writev", 296: "pwritev", 74: "sync", 75: "sync", 285: "room"},
    "aarch64": {64: "write", 68: "pwrite", 66: "writev", 70: "pwritev", 82: "sync", 83: "sync", 47: "room"},
}
_CALL_STOP = signal.SIGTRAP | 0x80


def trace_me() -> None:
    """To be called by the process that wants to be watched; it goes on when its parent looks."""
    if _ptrace(_TRACEME, 0, 0, 0) != 0:
        raise CouldNot(f"this process may not be traced: {os.strerror(ctypes.get_errno())}", hint=_HINT)
    os.kill(os.getpid(), signal.SIGSTOP)


def record(command: Sequence[str], folder: Path) -> list[Event]:
    """Run `command`, which calls `trace_me`, to its end. Raises CouldNot if it fails or cannot be watched."""
    calls = _CALLS.get(platform.machine()) if sys.platform == "linux" else None
    if calls is None:
        raise CouldNot(f"no power can be cut on {sys.platform} {platform.machine()}", hint=_HINT)
    pid = os.posix_spawn(command[0], list(command), dict(os.environ))
    try:
        return list(_events(pid, calls, str(folder.resolve())))
    except BaseException:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        raise


_HINT = "it needs Linux on x86_64 or aarch64, and the right to trace a process of one's own"


def _events(pid: int, calls: dict[int, str], folder: str) -> Iterator[Event]:
    _, status = os.waitpid(pid, 0)
    if not os.WIFSTOPPED(status):
        raise CouldNot(f"the watched process ended with {os.waitstatus_to_exitcode(status)}", hint=_HINT)
    _asked(_SETOPTIONS, pid, 0, _SYSGOOD | _EXITKILL)
    begun: list[Event] = []
    number = 0
    while True:
        _asked(_UNTIL_CALL, pid, 0, number)
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            if status != 0:
                raise CouldNot(f"the watched process ended with {os.waitstatus_to_exitcode(status)}")
            return
        stopped = os.WSTOPSIG(status)
        number = 0 if stopped in (_CALL_STOP, signal.SIGSTOP) else stopped  # another signal is passed on
        if stopped != _CALL_STOP:
            continue
        info = ctypes.create_string_buffer(_INFO_BYTES)
        _asked(_GET_SYSCALL_INFO, pid, _INFO_BYTES, ctypes.addressof(info))
        operation = _HEAD.unpack_from(info.raw)[0]
        if operation == _ENTRY:
            call, *args = _CALL.unpack_from(info.raw, _HEAD.size)
            begun = _called(pid, calls[call], args, folder) if call in calls else []
        elif operation == _EXIT:
            # What was asked for has been done. LMDB takes a short write for a failure, so there is none to look for.
            yield from begun
            begun = []


def _called(pid: int, call: str, args: Sequence[int], folder: str) -> list[Event]:
    try:
        path = os.readlink(f"/proc/{pid}/fd/{args[0]}")
    except OSError:
        return []
    if not path.startswith(folder + "/"):
        return []
    file = path[len(folder) + 1 :]
    if call == "sync":
        return [Sync(file)]
    if call == "room":
        return [Room(file, args[2] + args[3])]
    data = _gathered(pid, args[1], args[2]) if call.endswith("v") else _memory(pid, args[1], args[2])
    if os.path.basename(file) == ACKS:
        return [Said(data.decode().strip())]
    flags, at = _opened(pid, args[0])
    return [Write(file, args[3] if call.startswith("p") else at, data, bool(flags & os.O_DSYNC))]


def _opened(pid: int, fd: int) -> tuple[int, int]:
    """(flags, position) of an open file."""
    told = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/fdinfo/{fd}").read_text().splitlines())
    return int(told["flags"], 8), int(told["pos"])


def _gathered(pid: int, address: int, count: int) -> bytes:
    vectors = _memory(pid, address, count * _IOVEC.size)
    return b"".join(_memory(pid, base, size) for base, size in _IOVEC.iter_unpack(vectors))


def _memory(pid: int, address: int, size: int) -> bytes:
    with open(f"/proc/{pid}/mem", "rb", 0) as memory:
        memory.seek(address)
        return memory.read(size)


def _asked(request: int, pid: int, address: int, data: int) -> None:
    if _ptrace(request, pid, address, data) < 0:
        raise CouldNot(f"the system does not let us watch: {os.strerror(ctypes.get_errno())}", hint=_HINT)


def _ptrace(request: int, pid: int, address: int, data: int) -> int:
    return int(_function()(request, pid, address, data))


@cache
def _function() -> Any:
    found = ctypes.CDLL(None, use_errno=True).ptrace
    found.restype = ctypes.c_long
    found.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    return found
