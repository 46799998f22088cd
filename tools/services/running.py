"""A command, a folder and a probe in; out comes a service that serves, and that ends with whoever started it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "build" / "services"
"""What `install` fetched; git knows nothing of it."""
HOST = "127.0.0.1"
LOG = "service.log"

_SERVES_WITHIN_S = 90.0
_STOPS_WITHIN_S = 20.0
_PORTS = range(20_000, 32_000)


class ServiceError(Exception):
    """A service is missing, cannot be installed or does not serve; the text says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """How a service is run."""

    argv: tuple[str, ...]
    folder: Path
    """Its working folder, with its log and its data."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Beside the environment that we have."""
    user: int | None = None
    group: int | None = None
    stop: signal.Signals = signal.SIGTERM
    """What it takes as the wish to end in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whom a service ends with, and what goes with it."""

    pid: int | None = None
    """None: it stays until it is told to end."""
    temporary: Path | None = None
    """A folder that is removed when the owner is gone."""

    @classmethod
    def me(cls, temporary: Path | None = None) -> Owner:
        return cls(pid=os.getpid(), temporary=temporary)


NOBODY = Owner()
"""For what stays when its starter ends."""


class Running:
    """A service that serves: hurt it, end it, start it again on the same folder and port."""

    def __init__(
        self, name: str, port: int, url: str, command: Command, serves: Callable[[str], None], owner: Owner | None
    ) -> None:
        self.name = name
        self.address = f"{HOST}:{port}"
        self.url = url
        self.command = command
        self._serves = serves
        self._owner = owner or Owner.me()
        self.restart()

    @property
    def folder(self) -> Path:
        return self.command.folder

    @property
    def pid(self) -> int:
        """The service's own process; a new one after every restart."""
        return int(self._service.pid)

    @property
    def guard(self) -> int:
        """The process that ends the service with its owner."""
        return int(self._guard.pid)

    @property
    def alive(self) -> bool:
        return is_alive(self._service)

    def stop(self) -> None:
        """Ask the service to end in order; what is left of it after a while is killed."""
        end(self._service, self._guard, self.command.stop)

    def kill(self) -> None:
        """SIGKILL to all of it: what it had in memory is lost."""
        for process in (family := self._family()):
            with contextlib.suppress(psutil.NoSuchProcess):  # some end with the first
                process.kill()
        psutil.wait_procs(family, _STOPS_WITHIN_S)

    def freeze(self) -> None:
        """SIGSTOP to all of it: it neither ends nor answers until `thaw`."""
        for process in self._family():
            process.suspend()
            while is_alive(process) and process.status() != psutil.STATUS_STOPPED:
                time.sleep(0.001)  # the signal is on its way

    def thaw(self) -> None:
        """Let it go on from where it was."""
        for process in self._family():
            process.resume()

    def restart(self) -> None:
        """Start it (again); returns when it serves."""
        if hasattr(self, "_service"):
            self.stop()
        self._guard, self._service = _launch(self.command, self._owner)
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def _family(self) -> list[psutil.Process]:
        return [self._service, *self._service.children(recursive=True)]

    def _wait(self) -> None:
        began = time.monotonic()
        while True:
            try:
                self._serves(self.url)
                return
            except Exception as error:  # noqa: BLE001  every client has exceptions of its own for "not yet"
                reason = f"{type(error).__name__}: {error}"
            waited = time.monotonic() - began
            if not self.alive:
                raise ServiceError(f"{self.name} ended {waited:.1f} s after its start.\n{tail(self.folder)}")
            if waited > _SERVES_WITHIN_S:
                raise ServiceError(f"{self.name} does not serve after {waited:.0f} s: {reason}\n{tail(self.folder)}")
            time.sleep(0.05)


def end(service: psutil.Process, guard: psutil.Process, wish: int) -> None:
    """End a service in order, then its guard, which kills what is left."""
    if is_alive(service):
        with contextlib.suppress(psutil.NoSuchProcess):
            service.send_signal(wish)
            for process in (service, *service.children(recursive=True)):
                process.resume()  # one that is frozen would never read the wish
        _gone(service, _STOPS_WITHIN_S)
    with contextlib.suppress(psutil.NoSuchProcess):
        guard.terminate()
    _gone(guard, _STOPS_WITHIN_S)


def is_alive(process: psutil.Process) -> bool:
    """A process that has ended and still waits for its parent to notice is not alive."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def free_ports(folder: Path, *names: str) -> list[int]:
    """The ports that this folder's service has had, or free ones, which are noted in the folder.

    They lie below those that the system gives to outgoing connections: a client that keeps calling a dead service's
    port may otherwise be given that very port, be connected with itself, and keep the service from coming back.
    """
    path = folder / "ports.json"
    noted: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
    for name in names:
        if name not in noted:
            noted[name] = _free_port(taken=noted.values())
    path.write_text(json.dumps(noted))
    return [noted[name] for name in names]


def config_file(path: Path, config: str | Path | None, usual: str) -> Path:
    """The file of a service's configuration: the one that is named, else `path`, with the text that is given or the
    usual one.
    """
    if isinstance(config, Path):
        return config.resolve()
    path.write_text(usual if config is None else config)
    return path


def run(argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, **options: object) -> str:
    """Run a helper to its end; its output, or an error that shows the end of it."""
    done = subprocess.run(  # type: ignore[call-overload]
        [str(part) for part in argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(env or {})},
        check=False,
        **options,
    )
    if done.returncode:
        last = "\n".join(done.stdout.splitlines()[-25:])
        raise ServiceError(f"`{' '.join(map(str, argv))[:300]}` failed with exit code {done.returncode}:\n{last}")
    return str(done.stdout)


def tail(folder: Path, lines: int = 25) -> str:
    """The end of a service's log, with where it is."""
    path = folder / LOG
    text = path.read_text(errors="replace").splitlines()[-lines:] if path.exists() else []
    return f"The end of {path}:\n" + "\n".join(text)


def _launch(command: Command, owner: Owner) -> tuple[psutil.Process, psutil.Process]:
    order = {
        "argv": command.argv,
        "cwd": str(command.folder),
        "env": {**os.environ, **command.env},
        "user": command.user,
        "group": command.group,
        "starter": owner.pid,
        "temporary": str(owner.temporary) if owner.temporary else None,
    }
    with (command.folder / LOG).open("ab") as log:
        guard = psutil.Popen(
            [sys.executable, "-I", str(Path(__file__).with_name("guard.py")), json.dumps(order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the starter
        )
    with guard.stdin, guard.stdout as said:
        if pid := said.readline():
            return guard, psutil.Process(int(pid))
    guard.wait()
    raise ServiceError(f"`{command.argv[0]}` could not be started.\n{tail(command.folder)}")


def _gone(process: psutil.Process, within_s: float) -> None:
    """Wait for its end, and make one after `within_s`."""
    try:
        process.wait(within_s)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(within_s)


def _free_port(taken: Collection[int]) -> int:
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe:
            if port not in taken and probe.connect_ex((HOST, port)) != 0:
                with socket.socket() as bound, contextlib.suppress(OSError):
                    bound.bind((HOST, port))
                    return port
    raise ServiceError(f"no free port between {_PORTS.start} and {_PORTS.stop}")
