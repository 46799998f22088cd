"""Python packages from a lock with hashes: into a folder of their own, or into an environment of their own."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tools.services.running import run

_UV = (sys.executable, "-m", "uv", "pip", "install", "--quiet", "--require-hashes")
_LOCK = "installed.lock"
"""A copy of the lock beside what it installed: another one installs again."""


def install_into(folder: Path, lock: Path) -> None:
    """The packages alone, unpacked into `folder`."""
    if not is_installed(folder, lock):
        shutil.rmtree(folder, ignore_errors=True)
        run((*_UV, "--no-deps", "-r", lock, "--target", folder))
        shutil.copy(lock, folder / _LOCK)


def install_environment(folder: Path, lock: Path) -> None:
    """A virtual environment at `folder` with what the lock names."""
    if not is_installed(folder, lock):
        shutil.rmtree(folder, ignore_errors=True)
        run((sys.executable, "-m", "uv", "venv", "--quiet", "--python", sys.executable, folder))
        run((*_UV, "--python", folder / "bin" / "python", "-r", lock))
        shutil.copy(lock, folder / _LOCK)


def is_installed(folder: Path, lock: Path) -> bool:
    copy = folder / _LOCK
    return copy.exists() and copy.read_bytes() == lock.read_bytes()
