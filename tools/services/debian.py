"""Packages of Debian: installed as root where a program has to be part of the system, else only unpacked."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tools.services.running import ServiceError, run


def command(package: str, formula: str) -> str:
    """What a person types to install `package`, which is `formula` where there is Homebrew instead of apt."""
    if sys.platform == "darwin":
        return f"brew install {formula}"
    return f"{'' if os.geteuid() == 0 else 'sudo '}apt-get install {package}"


def fetch_command(service: str, formula: str) -> str:
    """What a person types to get the programs of `service`, which `unpack` can fetch where there is apt."""
    return f"scripts/services install {service}" if shutil.which("apt-get") else f"brew install {formula}"


def install(package: str, formula: str, *, why: str) -> None:
    """Install `package`, which needs root; raises with the command where we are not."""
    if os.geteuid() or shutil.which("apt-get") is None:
        raise ServiceError(f"{why} is missing; install it with: {command(package, formula)}")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    _update()
    run(("apt-get", "-qq", "install", "-y", "--no-install-recommends", package), env=quiet)


def unpack(package: str, folder: Path, finish: Callable[[Path], None] | None = None) -> None:
    """The files of `package` under `folder`, as `finish` leaves them: the system stays as it is, no daemon starts."""
    if shutil.which("apt-get") is None:
        raise ServiceError(f"{package} is missing, and there is no apt-get to fetch it with; put it on the path")
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    with tempfile.TemporaryDirectory() as name:
        _download(package, Path(name))
        for archive in Path(name).glob("*.deb"):
            run(("dpkg", "-x", archive, part))
    if finish:
        finish(part)
    part.rename(folder)  # whole or not at all


def _download(package: str, folder: Path) -> None:
    try:
        run(("apt-get", "-qq", "download", package), cwd=folder)
    except ServiceError:
        if os.geteuid():
            raise
        _update()  # a fresh machine has no lists yet
        run(("apt-get", "-qq", "download", package), cwd=folder)


def _update() -> None:
    run(("apt-get", "-qq", "update"))
