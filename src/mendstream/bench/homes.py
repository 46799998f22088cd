"""The environments of the peers: made on first use from what their folders pin, and kept in build/peers."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mendstream.contracts.errors import CouldNot

_INSTALLED = "installed"
"""In a home: of what it was made. Written last, so that half a home is made anew."""
_DEBIAN = {"javac": "default-jdk-headless", "java": "default-jre-headless", "mvn": "maven"}


class Missing(CouldNot):
    """A peer cannot be installed here; the text says why, and the hint what helps."""


def python(folder: Path, home: Path) -> Path:
    """The interpreter of a virtual environment with the packages of `folder`/requirements.txt, by their hashes."""
    interpreter = home / "venv" / "bin" / "python"
    lock = folder / "requirements.txt"

    def make() -> None:
        _run((sys.executable, "-m", "venv", home / "venv"))
        _run((interpreter, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "-r", lock))

    _once(home, (lock,), make)
    return interpreter


def java(folder: Path, home: Path, main: str) -> tuple[str, ...]:
    """What runs class `main` of `folder`, compiled and with the jars of its pom.xml, by their checksums."""
    runs, compiles = _program("java"), _program("javac")
    pom, sums, source = folder / "pom.xml", folder / "jars.sha256", folder / f"{main}.java"
    libs, classes = home / "libs", home / "classes"

    def make() -> None:
        fetch = ("-q", "-B", "-f", pom, "dependency:copy-dependencies", f"-DoutputDirectory={libs}")
        _run((_program("mvn"), *fetch, "-DincludeScope=runtime"))
        verify(libs, sums.read_text())
        _run((compiles, "-proc:none", "-cp", f"{libs}/*", "-d", classes, source))

    _once(home, (pom, sums, source), make)
    return (runs, "-cp", f"{classes}:{libs}/*", main)


def verify(libs: Path, sums: str) -> None:
    """Raises Missing unless `libs` has the very files of `sums`, which is written as sha256sum writes it."""
    wanted = {name: digest for digest, _, name in (line.partition("  ") for line in sums.splitlines())}
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in libs.iterdir()}
    wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if wrong:
        raise Missing(f"not what jars.sha256 names: {', '.join(wrong)}", hint="has the pom.xml changed?")


def _once(home: Path, parts: Sequence[Path], make: Callable[[], None]) -> None:
    """Make `home` unless it was made of these very files."""
    made_of = hashlib.sha256(b"".join(path.read_bytes() for path in parts)).hexdigest()
    mark = home / _INSTALLED
    if mark.exists() and mark.read_text() == made_of:
        return
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    make()
    mark.write_text(made_of)


def _program(name: str) -> str:
    """The path of a program of Java's, that of JAVA_HOME if there is one."""
    java_home = os.environ.get("JAVA_HOME")
    own = Path(java_home) / "bin" / name if java_home else None
    found = str(own) if own is not None and own.exists() else shutil.which(name)
    if found is None:
        raise Missing(f"{name} is missing", hint=f"apt-get install {_DEBIAN[name]}")
    return found


def _run(words: Sequence[str | Path]) -> None:
    """Raises Missing with the last words of a command that fails."""
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise Missing(f"{Path(words[0]).name} failed: {said[-1] if said else done.returncode}", hint="run it by hand")
