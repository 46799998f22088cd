"""From settings to backends: which of the selected ones this version has, and where they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from mendstream.contracts.errors import NotBuilt
from mendstream.settings.groups import Settings
from mendstream.settings.secret import with_password

_NOWHERE: Mapping[str, str] = MappingProxyType({})


def require_built(settings: Settings, origins: Mapping[str, str] = _NOWHERE) -> None:
    """Raises NotBuilt if a backend is selected that this version has not; `origins` tell who selected it."""
    if settings.bus.kind == "kafka":
        raise _not_built("Kafka", origins.get("bus.kind", "bus.kind"), "--bus lmdb")
    if settings.store.url.startswith("postgresql"):
        raise _not_built("PostgreSQL", origins.get("store.url", "store.url"), "--store sqlite")


def store_url(settings: Settings) -> str:
    """The store's SQLAlchemy URL, password included: for the library that connects, never for a message."""
    if settings.store.url:
        return with_password(settings.store.url, settings.store.password)
    return f"sqlite:///{Path(settings.run.data_dir).absolute() / 'mendstream.db'}"


def mlflow_uri(settings: Settings) -> str:
    """MLflow's tracking URI, password included: for the library that connects, never for a message."""
    if settings.models.mlflow_uri:
        return with_password(settings.models.mlflow_uri, settings.models.mlflow_password)
    return f"sqlite:///{Path(settings.run.data_dir).absolute() / 'mlflow.db'}"


def models_dir(settings: Settings) -> Path:
    """The folder of model versions: `VERSION/card.json` and the ONNX file beside it."""
    return Path(settings.models.dir) if settings.models.dir else Path(settings.run.data_dir) / "models"


def _not_built(backend: str, where: str, override: str) -> NotBuilt:
    return NotBuilt(
        f"{backend} is selected by {where}, and this version has no {backend} backend",
        hint=f"unset it, or run with {override}",
    )
