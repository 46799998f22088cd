"""What MLflow gets to know: a run and a registered version per model, and the alias `champion`. Never asked by agents.

Only `MlflowClient` calls: the model flavours (`mlflow.onnx`, `log_model`) want pandas and start subprocesses. Every
step looks for its effect first, so it can be repeated after a crash or a failure.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mendstream.adapters.models.catalogue import Catalogue
from mendstream.contracts.errors import CouldNot
from mendstream.contracts.models import ModelCard

if TYPE_CHECKING:
    from mlflow.entities import Metric, Param
    from mlflow.tracking import MlflowClient

CHAMPION = "champion"
_DIGEST = "mendstream.digest"
_VERSION = "mendstream.version"
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # A server that is away must not hold the trainer for MLflow's default of minutes; we try again ourselves.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "GIT_PYTHON_REFRESH": "quiet",
}


class Registry:
    """One registered model in one MLflow store. Raises CouldNot if the store refuses; then ask again later."""

    def __init__(self, directory: Path, *, uri: str = "", name: str = "mendstream") -> None:
        """`uri`: an MLflow server or database; empty: `DIR/mlflow.db`. Only a server keeps the artifacts by itself;
        otherwise they are in `DIR/mlartifacts`.
        """
        served = uri.startswith(("http://", "https://"))
        self._artifacts = "" if served else (directory / "mlartifacts").resolve().as_uri()
        self._own = None if uri else (directory / "mlflow.db").resolve()
        self.uri = uri or f"sqlite:///{self._own}"
        self.name = name
        self._connected: MlflowClient | None = None
        self._experiment = ""

    def register(self, catalogue: Catalogue, card: ModelCard) -> str:
        """Log and register one version with its files; returns the run's id."""
        with _Refusals(self.uri):
            client = self._client()
            run_id = self._run(client, card)
            client.log_artifacts(run_id, str(catalogue.path(card.version).parent), "model")
            client.set_terminated(run_id, "FINISHED")
            if self._registered(client, run_id) is None:
                client.create_model_version(
                    self.name,
                    source=f"{client.get_run(run_id).info.artifact_uri}/model",
                    run_id=run_id,
                    tags={_VERSION: card.version, _DIGEST: card.digest},
                    description=f"{card.version}: {card.data_window}",
                )
        return run_id

    def champion(self, card: ModelCard) -> bool:
        """Point the alias `champion` at a version; False if the registry does not know it."""
        with _Refusals(self.uri):
            client = self._client()
            number = self._registered(client, card.run_id) if card.run_id else None
            if number is None:
                return False
            client.set_registered_model_alias(self.name, CHAMPION, number)
        return True

    def _client(self) -> MlflowClient:
        """Connected; the first contact makes the store's tables (a second or two)."""
        if self._connected is None:
            if self._own is not None and not self._own.exists():
                _make_store(self._own)
            client = connect(self.uri)
            experiment = client.get_experiment_by_name(self.name)
            if experiment is not None:
                self._experiment = experiment.experiment_id
            else:
                self._experiment = client.create_experiment(self.name, artifact_location=self._artifacts or None)
            if not client.search_registered_models(f"name = '{self.name}'"):
                client.create_registered_model(self.name, description="Models of a mendstream pipeline")
            self._connected = client
        return self._connected

    def _run(self, client: MlflowClient, card: ModelCard) -> str:
        """The run of this very file, made if it is missing."""
        held = client.search_runs(
            [self._experiment],
            f"tags.`{_DIGEST}` = '{card.digest}' and tags.`{_VERSION}` = '{card.version}'",
            max_results=1,
        )
        if held:
            run_id = str(held[0].info.run_id)
        else:
            tags = {_DIGEST: card.digest, _VERSION: card.version, "mendstream.source": card.source}
            run = client.create_run(
                self._experiment, start_time=card.created_at_us // 1000, run_name=card.version, tags=tags
            )
            run_id = str(run.info.run_id)
        client.log_batch(run_id, metrics=_metrics(card), params=_params(card))
        return run_id

    def _registered(self, client: MlflowClient, run_id: str) -> str | None:
        """MLflow's own number of the version that came from `run_id`."""
        found = client.search_model_versions(f"run_id = '{run_id}'")
        return next((str(version.version) for version in found if version.name == self.name), None)


def connect(uri: str) -> MlflowClient:
    """A client for tracking and registry at `uri`, with telemetry and pickles off."""
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    from mlflow.tracking import MlflowClient

    # Their progress is of no interest, and a refusal comes back as an exception.
    for noisy, level in (("mlflow", logging.WARNING), ("alembic", logging.WARNING), ("urllib3", logging.ERROR)):
        logging.getLogger(noisy).setLevel(level)
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _make_store(path: Path) -> None:
    """A new store appears whole: MLflow makes its tables in many steps, and never gets over a kill between two."""
    partial = path.with_name(f"{path.name}.new")  # a folder, for SQLite keeps a journal beside its file
    shutil.rmtree(partial, ignore_errors=True)
    connect(f"sqlite:///{partial / path.name}").search_experiments(max_results=1)
    (partial / path.name).replace(path)
    shutil.rmtree(partial)


class _Refusals:
    """Turns what MLflow and its stores raise into CouldNot. The classes are only known once MLflow is imported."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None:
            return
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        if isinstance(error, MlflowException | SQLAlchemyError | OSError):
            reason = _open((str(error).splitlines() or [type(error).__name__])[0])[:300]
            # A cause that may hold a password must not be printed with a traceback.
            cause = error if _open(self._uri) == self._uri else None
            raise CouldNot(
                f"MLflow store {_open(self._uri)} refused: {reason}",
                hint="models are served all the same; check MLFLOW_TRACKING_URI and that the store can be reached",
            ) from cause


def _open(text: str) -> str:
    """Without the user and password of an address."""
    return re.sub(r"://[^/\s]*@", "://", text)


def _metrics(card: ModelCard) -> list[Metric]:
    from mlflow.entities import Metric

    values = {**card.metrics, "error_level": card.error_level, "error_phi": card.error_phi}
    return [Metric(key, value, card.created_at_us // 1000, 0) for key, value in values.items()]


def _params(card: ModelCard) -> list[Param]:
    from mlflow.entities import Param

    values = {
        "version": card.version,
        "digest": card.digest,
        "features": ",".join(card.features)[:6000],
        "rows": str(card.rows),
        "data_window": card.data_window[:6000],
        "data_from_us": str(card.data_from_us),
        "data_until_us": str(card.data_until_us),
        "source": card.source,
    }
    return [Param(key, value) for key, value in values.items()]
