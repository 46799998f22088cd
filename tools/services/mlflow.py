"""MLflow's server, in an environment of its own: the house has only the client, which is a tenth of the size."""

from __future__ import annotations

from pathlib import Path

from tools.services import python, web
from tools.services.running import CACHE, HOST, Command, Owner, Running, ServiceError, free_ports

NAME = "mlflow"

_HOME = CACHE / "mlflow"
_LOCK = Path(__file__).with_name("mlflow.lock")
_ENV = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "PYTHONUNBUFFERED": "1",
    # The runner of evaluation jobs, which we have none of, is seven more processes, 900 MB and 30 s of start.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}


def missing() -> str | None:
    """What is missing and how to get it, or None."""
    if python.is_installed(_HOME, _LOCK):
        return None
    return f"MLflow's server is missing; fetch it with: scripts/services install {NAME}"


def install() -> None:
    """The environment that the lock beside this file names."""
    python.install_environment(_HOME, _LOCK)


def start(folder: Path, *, backend: str | None = None, owner: Owner | None = None) -> Running:
    """A server on `folder`, new or as it was left; `backend` is another database than the folder's own SQLite."""
    if flaw := missing():
        raise ServiceError(flaw)
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(folder, "server")
    options = {
        "host": HOST,
        "port": str(port),
        "workers": "1",
        "backend-store-uri": backend or f"sqlite:///{folder / 'mlflow.db'}",
        "artifacts-destination": str(folder / "artifacts"),
    }
    told = [part for name, value in options.items() for part in (f"--{name}", value)]
    # By the module, as a script's first line names the folder in which it was made.
    argv = (str(_HOME / "bin" / "python"), "-m", "mlflow", "server", *told)
    url = f"http://{HOST}:{port}"
    command = Command(argv=argv, folder=folder, env=_ENV)
    return Running(NAME, port, url, command, serves, owner)


def serves(url: str) -> None:
    """It reads its database: the page that says OK does not."""
    web.post(f"{url}/api/2.0/mlflow/experiments/search", {"max_results": 1})
