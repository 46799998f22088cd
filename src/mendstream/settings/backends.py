"""From settings to backends: where they are."""

from __future__ import annotations

from pathlib import Path

from mendstream.settings.groups import Settings, Store
from mendstream.settings.secret import with_password


def store_url(settings: Settings) -> str:
    """The store's SQLAlchemy URL, password included: for the library that connects, never for a message."""
    store = settings.store
    if store.url.startswith("postgresql"):
        return with_password(_limited(store), store.password)
    if store.url:
        return with_password(store.url, store.password)
    return f"sqlite:///{Path(settings.run.data_dir).absolute() / 'mendstream.db'}"


def mlflow_uri(settings: Settings) -> str:
    """MLflow's tracking URI, password included: for the library that connects, never for a message."""
    if settings.models.mlflow_uri:
        return with_password(settings.models.mlflow_uri, settings.models.mlflow_password)
    return f"sqlite:///{Path(settings.run.data_dir).absolute() / 'mlflow.db'}"


def models_dir(settings: Settings) -> Path:
    """The folder of model versions: `VERSION/card.json` and the ONNX file beside it."""
    return Path(settings.models.dir) if settings.models.dir else Path(settings.run.data_dir) / "models"


def _limited(store: Store) -> str:
    """The URL with the time-outs and the pool's size in its query; what stands there already is not said twice."""
    limits = {
        "connect_timeout": store.connect_timeout_s,
        "statement_timeout": store.statement_timeout_s,
        "pool_size": store.pool_size,
        "pool_timeout": store.pool_timeout_s,
    }
    head, _, query = store.url.partition("?")
    given = [part for part in query.split("&") if part]
    names = {part.partition("=")[0] for part in given}
    return head + "?" + "&".join(given + [f"{name}={value}" for name, value in limits.items() if name not in names])
