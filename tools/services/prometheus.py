"""Prometheus and promtool: those on the path, else out of Debian's package, which is unpacked and not installed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tools.services import debian, web
from tools.services.running import CACHE, HOST, Command, Owner, Running, ServiceError, config_file, free_ports

NAME = "prometheus"

_HOME = CACHE / NAME
_CONFIG = "prometheus.yml"
_SELF = """\
global:
  scrape_interval: 1s
scrape_configs:
  - job_name: prometheus
    static_configs:
      - targets: ["{address}"]
"""


def missing() -> str | None:
    """What is missing and how to get it, or None."""
    if all(_find(name) for name in ("prometheus", "promtool")):
        return None
    return f"Prometheus is missing; fetch it with: {debian.fetch_command(NAME, 'prometheus')}"


def install() -> None:
    """Nothing where there is one; else the programs of Debian's package."""
    if missing():
        debian.unpack("prometheus", _HOME)


def start(folder: Path, *, config: str | Path | None = None, owner: Owner | None = None) -> Running:
    """A server on `folder`, new or as it was left.

    `config` is the text of its file, or the path of one (rules beside it are then found); without one it watches
    itself. A text is written again at every start; `POST /-/reload` reads the file again.
    """
    path = program("prometheus")
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(folder, "server")
    address = f"{HOST}:{port}"
    argv = (
        str(path),
        f"--config.file={config_file(folder / _CONFIG, config, _SELF.format(address=address))}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--web.enable-lifecycle",
    )
    url = f"http://{address}"
    return Running(NAME, port, url, Command(argv=argv, folder=folder), serves, owner)


def program(name: str) -> Path:
    """The path of `prometheus` or `promtool`."""
    path = _find(name)
    if path is None:
        raise ServiceError(str(missing()))
    return path


def serves(url: str) -> None:
    """It evaluates a query."""
    answer = json.loads(web.get(f"{url}/api/v1/query?query=vector(1)"))
    if answer["status"] != "success":
        raise ServiceError(f"{url} answered {answer}")


def _find(name: str) -> Path | None:
    found = shutil.which(name) or shutil.which(name, path=str(_HOME / "usr" / "bin"))
    return Path(found) if found else None
