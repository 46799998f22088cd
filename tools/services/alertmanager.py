"""Alertmanager and amtool: those on the path, else out of Debian's package, which is unpacked and not installed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tools.services import debian, web
from tools.services.running import CACHE, HOST, Command, Owner, Running, ServiceError, config_file, free_ports

NAME = "alertmanager"

_HOME = CACHE / NAME
_CONFIG = "alertmanager.yml"
_NAMES = {"alertmanager": ("alertmanager", "prometheus-alertmanager"), "amtool": ("amtool",)}
"""Debian has another name for the server."""
_TEMPLATES = "/usr/share/prometheus/alertmanager"
"""Where Debian's build reads its templates: a folder that an unpacked package does not fill."""
_SILENT = """\
route:
  receiver: nobody
receivers:
  - name: nobody
"""


def missing() -> str | None:
    """What is missing and how to get it, or None."""
    if all(_find(name) for name in _NAMES):
        return None
    return f"Alertmanager is missing; fetch it with: {debian.fetch_command(NAME, 'alertmanager')}"


def install() -> None:
    """Nothing where there is one; else the programs of Debian's package."""
    if missing():
        debian.unpack("prometheus-alertmanager", _HOME, _read_templates_here)


def start(folder: Path, *, config: str | Path | None = None, owner: Owner | None = None) -> Running:
    """A server on `folder`; `config` is the text of its file, or the path of one, and without one it tells nobody."""
    path = program("alertmanager")
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(folder, "server")
    for template in Path(f"{_HOME}{_TEMPLATES}").glob("*.tmpl"):
        shutil.copy(template, folder)
    address = f"{HOST}:{port}"
    argv = (
        str(path),
        f"--config.file={config_file(folder / _CONFIG, config, _SILENT)}",
        f"--storage.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",  # alone: else it opens a second port
    )
    url = f"http://{address}"
    return Running(NAME, port, url, Command(argv=argv, folder=folder), serves, owner)


def program(name: str) -> Path:
    """The path of `alertmanager` or `amtool`."""
    path = _find(name)
    if path is None:
        raise ServiceError(str(missing()))
    return path


def serves(url: str) -> None:
    """It lists the alerts that it has."""
    json.loads(web.get(f"{url}/api/v2/alerts"))


def _read_templates_here(unpacked: Path) -> None:
    """Have it read its templates from where it runs; the text is as long as the one that it takes the place of."""
    path = unpacked / "usr" / "bin" / "prometheus-alertmanager"
    built, here = _TEMPLATES.encode(), b"./" * (len(_TEMPLATES) // 2)
    program = path.read_bytes()
    if len(here) != len(built) or built not in program:
        raise ServiceError(f"{path} is not the build that we know: {_TEMPLATES} is not in it")
    path.write_bytes(program.replace(built, here))


def _find(name: str) -> Path | None:
    for spelled in _NAMES[name]:
        if found := shutil.which(spelled) or shutil.which(spelled, path=str(_HOME / "usr" / "bin")):
            return Path(found)
    return None
