"""`scripts/services`: install the services, run them in the background for development, say what runs."""

from __future__ import annotations

import fcntl
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import psutil
from tools.services.running import CACHE, NOBODY, Running, ServiceError, end, is_alive
from tools.services.table import SERVICES

_UP = CACHE / "up"
_OPEN_TO_OTHERS = 0o755

_names = click.argument("names", nargs=-1, type=click.Choice(list(SERVICES)), metavar="[NAME]...")


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What `up` writes down about a service that it started, for `status` and `down`."""

    name: str
    url: str
    folder: str
    service: tuple[int, float]
    """Its process id, and when that began: the system gives the same number out again."""
    guard: tuple[int, float]
    stop: int


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Real services for development and tests; without NAME, all of them: kafka, postgres, mlflow, prometheus,
    alertmanager."""


@main.command()
@_names
def install(names: tuple[str, ...]) -> None:
    """Fetch what services need; takes no time where it is there."""
    _each(names, _install)


@main.command()
@_names
def up(names: tuple[str, ...]) -> None:
    """Run services in the background until `down`; fetches what is missing first."""
    with _alone():
        _each(names, _up)


@main.command()
@_names
def down(names: tuple[str, ...]) -> None:
    """End services that `up` started, and remove their folders."""
    with _alone():
        _each(names, _down)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@_names
def status(names: tuple[str, ...], as_json: bool) -> None:
    """Say what is installed, what runs, and whether it serves."""
    found = [_state(name) for name in names or SERVICES]
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for row in found:
        print(f"{row['name']:<14}{row['state']:<9}{row['url'] or row['missing'] or ''}")
        if row["url"]:
            print(f"{'':<23}process {row['pid']}, {row['memory_mb']} MB, in {row['folder']}")


def _install(name: str) -> str:
    before = SERVICES[name].missing()
    SERVICES[name].install()
    if after := SERVICES[name].missing():
        raise ServiceError(after)
    return "installed" if before else "is there"


def _up(name: str) -> str:
    note = _read(name)
    if note and _found(note.service):
        return f"is up at {note.url}"
    if SERVICES[name].missing():
        _install(name)
    if note:
        _end(note)
    folder = Path(note.folder) if note else Path(tempfile.mkdtemp(prefix=f"mendstream-{name}-"))
    folder.mkdir(exist_ok=True)
    folder.chmod(_OPEN_TO_OTHERS)
    running = SERVICES[name].start(folder, owner=NOBODY)
    _write(running)
    return f"serves at {running.url}"


def _down(name: str) -> str:
    note = _read(name)
    if note is None:
        return "is not up"
    _end(note)
    shutil.rmtree(note.folder, ignore_errors=True)
    _path(name).unlink()
    return "is down"


def _state(name: str) -> dict[str, Any]:
    """`serves`, `silent` (it runs and does not answer as it should), `ended` (by itself), `down` or `missing`."""
    note = _read(name)
    missing = SERVICES[name].missing()
    process = _found(note.service) if note else None
    if note is None:
        state = "missing" if missing else "down"
    elif process is None:
        state = "ended"
    else:
        state = "serves" if _serves(note) else "silent"
    return {
        "name": name,
        "state": state,
        "missing": missing,
        "url": note.url if note else None,
        "pid": note.service[0] if note else None,
        "memory_mb": _memory_mb(process) if process else None,
        "folder": note.folder if note else None,
    }


def _serves(note: Note) -> bool:
    try:
        SERVICES[note.name].serves(note.url)
    except Exception:  # noqa: BLE001  every client has exceptions of its own for "no"
        return False
    return True


def _memory_mb(process: psutil.Process) -> int:
    """Of the process and what it began; a child may end while we count."""
    total = 0
    for member in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            total += int(member.memory_info().rss)
    return total // 1_000_000


def _each(names: tuple[str, ...], do: Callable[[str], str]) -> None:
    """Do it for each; one that fails does not keep the others from it."""
    failed = False
    for name in names or SERVICES:
        try:
            print(f"{name}: {do(name)}", flush=True)
        except ServiceError as error:
            failed = True
            print(f"{name}: {error}", file=sys.stderr, flush=True)
    if failed:
        sys.exit(1)


def _end(note: Note) -> None:
    service, guard = _found(note.service), _found(note.guard)
    if guard:
        end(service or guard, guard, note.stop)


def _found(known: tuple[int, float]) -> psutil.Process | None:
    """The process of a note, if it is that one and alive."""
    pid, began = known
    try:
        process = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None
    return process if process.create_time() == began and is_alive(process) else None


def _write(running: Running) -> None:
    def known(pid: int) -> tuple[int, float]:
        return pid, psutil.Process(pid).create_time()

    note = Note(
        name=running.name,
        url=running.url,
        folder=str(running.folder),
        service=known(running.pid),
        guard=known(running.guard),
        stop=int(running.command.stop),
    )
    _path(running.name).write_text(json.dumps(asdict(note), indent=2))


def _read(name: str) -> Note | None:
    path = _path(name)
    if not path.exists():
        return None
    told = json.loads(path.read_text())
    return Note(**told | {key: (told[key][0], told[key][1]) for key in ("service", "guard")})


def _path(name: str) -> Path:
    return _UP / f"{name}.json"


@contextmanager
def _alone() -> Iterator[None]:
    """Two `up` at once would start everything twice and know of one half."""
    _UP.mkdir(parents=True, exist_ok=True)
    with (_UP / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    main(prog_name="scripts/services")
