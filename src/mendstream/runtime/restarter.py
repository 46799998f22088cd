"""The processes of a house on this machine: forked from a server that has imported what they need."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from multiprocessing import connection, forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from mendstream.contracts.ports import Bell, Ended, LifeSign, Started
from mendstream.runtime.beat import Beat
from mendstream.runtime.generations import next_generation
from mendstream.runtime.roster import Place

Body = Callable[[dict[str, str], Place, int, Connection], None]
"""What a child runs (worker.main): environment, place, generation, and a pipe that closes when the house ends."""


class _Life(NamedTuple):
    process: ForkServerProcess
    started: Started


class LocalRestarter:
    """`contracts.ports.Restarter`. `bell` wakes `wait`; all children end when this process does, however it ends."""

    def __init__(self, root: Path, bell: Bell, body: Body, environment: dict[str, str]) -> None:
        self._root = root
        self._bell = bell
        self._body = body
        self._environment = environment
        self._context = fork_server()
        self._lifeline, self._hold = self._context.Pipe(duplex=False)
        self._lives: dict[str, _Life] = {}
        self._beats: dict[str, Beat] = {}

    def start(self, process: str) -> Started:
        assert process not in self._lives, f"{process} runs"
        generation = next_generation(self._root, process)
        child = self._context.Process(
            target=self._body,
            args=(self._environment, Place.of(process), generation, self._lifeline),
            name=process,
        )
        with _no_main():
            child.start()
        assert child.pid is not None
        started = Started(generation, child.pid)
        self._lives[process] = _Life(child, started)
        self._beats[process] = Beat(self._root / "run" / f"beat-{process}")
        return started

    def stop(self, process: str) -> None:
        self._signal(process, signal.SIGTERM)

    def kill(self, process: str) -> None:
        self._signal(process, signal.SIGKILL)

    def wait(self, timeout_s: float) -> list[Ended]:
        running: dict[Any, str] = {life.process.sentinel: process for process, life in self._lives.items()}
        ended = []
        for ready in connection.wait([*running, self._bell.fileno()], timeout_s):
            if ready in running:
                ended.append(self._end(running[ready]))
            else:
                self._bell.wait(0)
        return ended

    def life_sign(self, process: str) -> LifeSign:
        beat = self._beats.get(process)
        return beat.last() if beat is not None else LifeSign(0, 0)

    def failure(self, process: str) -> tuple[str, str] | None:
        path = self._root / "run" / f"error-{process}"
        left = path.read_bytes().strip() if path.exists() else b""
        if not left:  # a process takes the room for its last words when it starts
            return None
        path.unlink()
        said = msgspec.json.decode(left, type=dict[str, str])
        return said["message"], said["hint"]

    def close(self) -> None:
        self._hold.close()
        self._lifeline.close()

    def _end(self, process: str) -> Ended:
        child, started = self._lives.pop(process)
        child.join()
        code = child.exitcode
        assert code is not None
        return Ended(process, started.generation, started.pid, code)

    def _signal(self, process: str, number: int) -> None:
        life = self._lives.get(process)
        if life is not None:
            with contextlib.suppress(ProcessLookupError):  # it was faster
                os.kill(life.started.pid, number)


def fork_server() -> ForkServerContext:
    """Children are forked from a process that has imported what they need, so they start in milliseconds.

    It begins to import at the first call, beside whatever the caller does next.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")  # a heap per thread would keep what threads once needed
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    os.environ.setdefault("LANGSMITH_TRACING", "false")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mendstream.runtime.preload"])
    with _no_main():
        forkserver.ensure_running()
    return context


@contextlib.contextmanager
def _no_main() -> Iterator[None]:
    """Children need nothing of the caller's main module, and importing it again would cost each of them its start."""
    main = sys.modules["__main__"]
    held: dict[str, Any] = {n: main.__dict__.pop(n) for n in ("__file__", "__spec__") if n in main.__dict__}
    main.__dict__["__spec__"] = None
    try:
        yield
    finally:
        main.__dict__.update(held)
