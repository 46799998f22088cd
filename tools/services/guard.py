"""The one process between a starter and its service: what the service began ends with the service and the starter.

Run as a file, with one order as JSON. Prints the service's process id, then watches. It ends everything when its
starter is gone, however that died, and then removes the folder if that was a temporary one; on SIGTERM it ends
everything and leaves the folder. A service that ends by itself takes its own children along, and the guard stays: it
still has the folder to remove.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from types import FrameType
from typing import Any

import psutil

_LOOK_S = 0.05
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def main() -> int:
    """Start the service of the order in `argv`, and watch until the starter is gone or says so."""
    order = json.loads(sys.argv[1])
    signal.signal(signal.SIGTERM, _leave)
    # A parent that dies leaves its children to us and not to init, or a killed server's workers would live on.
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    service = _begin(order)
    print(service, flush=True)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.stdin.read()  # until the starter has looked: a process that has ended can be seen till it is reaped
    try:
        _watch(service, order["starter"])
    finally:
        _end_children()
    if order["temporary"]:
        shutil.rmtree(order["temporary"], ignore_errors=True)
    return 0


def _begin(order: dict[str, Any]) -> int:
    """What the service writes goes to our own stderr, which is its log."""
    as_user = {"user": order["user"], "group": order["group"], "extra_groups": []} if order["user"] is not None else {}
    return subprocess.Popen(
        order["argv"],
        cwd=order["cwd"],
        env=order["env"],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno(),
        preexec_fn=lambda: _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),
        **as_user,
    ).pid


def _watch(service: int, starter: int | None) -> None:
    # Not a pipe from the starter: a child that the starter forked would hold its end open after the starter's death.
    while starter is None or os.getppid() == starter:
        if service in _reaped():
            _end_children()
        time.sleep(_LOOK_S)


def _reaped() -> set[int]:
    """The children that have ended since the last look."""
    ended: set[int] = set()
    try:
        while pid := os.waitpid(-1, os.WNOHANG)[0]:
            ended.add(pid)
    except ChildProcessError:
        pass
    return ended


def _end_children() -> None:
    """Kill, and again: the children of those that died are ours by now."""
    while children := psutil.Process().children(recursive=True):
        for child in children:
            try:
                child.kill()
            except psutil.NoSuchProcess:
                continue
        _reaped()
        time.sleep(0.005)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)


if __name__ == "__main__":
    sys.exit(main())
