"""What MLflow gets to know: a run and a registered version per model, and the aliases. Never asked by agents.

Only `MlflowClient` calls: the model flavours (`mlflow.onnx`, `log_model`) want pandas and start subprocesses. Every
step looks for its effect first, so it can be repeated after a crash or a failure. A version is registered last, once
its run is finished and holds our file: a half-told one is a run without a version, and no alias can point to it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from mendstream.adapters.models import entry
from mendstream.adapters.models.catalogue import Catalogue
from mendstream.adapters.models.versions import MODEL_FILE
from mendstream.contracts.errors import CouldNot
from mendstream.contracts.models import ModelCard

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

CHAMPION = "champion"
"""What is live."""
PREVIOUS = "previous"
"""What was live before it."""
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # A server that is away must not hold the trainer for MLflow's default of minutes.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "GIT_PYTHON_REFRESH": "quiet",
}
_OURS = {
    # We try again ourselves and look first: MLflow's own way makes a second run if an answer is lost.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
}
_SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
_STARS = "***"


class Registry:
    """One registered model in one MLflow store. Raises CouldNot if the store refuses; then ask again later."""

    def __init__(self, directory: Path, *, uri: str = "", name: str = "mendstream") -> None:
        """`uri`: an MLflow server or database; empty: `DIR/mlflow.db`. Only a server keeps the artifacts by itself;
        otherwise they are in `DIR/mlartifacts`.
        """
        self._artifacts = "" if is_server(uri) else (directory / "mlartifacts").resolve().as_uri()
        self._own = None if uri else (directory / "mlflow.db").resolve()
        self.uri = uri or f"sqlite:///{self._own}"
        self.name = name
        self._connected: MlflowClient | None = None
        self._experiment = ""

    def known(self) -> dict[tuple[str, str], str]:
        """(version, digest) -> run, of every version that is registered."""
        with _Refusals(self.uri):
            found: dict[tuple[str, str], str] = {}
            client, token = self._client(), None
            while token != "":
                page = client.search_model_versions(f"name = '{self.name}'", page_token=token)
                for one in page:
                    found[one.tags.get(entry.VERSION_TAG, ""), one.tags.get(entry.DIGEST_TAG, "")] = str(one.run_id)
                token = page.token or ""
        return found

    def register(self, catalogue: Catalogue, card: ModelCard) -> str:
        """Log and register one version with its files; returns the run's id."""
        with _Refusals(self.uri):
            client = self._client()
            run_id = self._run(client, card)
            client.log_artifacts(run_id, str(catalogue.path(card.version).parent), "model")
            self._read_back(client, run_id, card)
            client.set_terminated(run_id, "FINISHED")
            if self._number(client, card) is None:
                client.create_model_version(
                    self.name,
                    source=f"{client.get_run(run_id).info.artifact_uri}/model",
                    run_id=run_id,
                    tags=entry.tags(card),
                    description=entry.text(card),
                )
        return run_id

    def alias(self, alias: str, card: ModelCard) -> bool:
        """Point `alias` at a version; False if the registry does not know it."""
        with _Refusals(self.uri):
            client = self._client()
            number = self._number(client, card)
            if number is not None:
                client.set_registered_model_alias(self.name, alias, number)
        return number is not None

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
        held = client.search_runs([self._experiment], _same(card), max_results=1)
        if held:
            run_id = str(held[0].info.run_id)
        else:
            run = client.create_run(
                self._experiment,
                start_time=card.created_at_us // 1000,
                run_name=card.version,
                tags=entry.tags(card) | {entry.NOTE_TAG: entry.text(card)},
            )
            run_id = str(run.info.run_id)
        client.log_batch(run_id, metrics=entry.metrics(card), params=entry.params(card))
        return run_id

    def _read_back(self, client: MlflowClient, run_id: str, card: ModelCard) -> None:
        """Raises CouldNot if MLflow holds another file than ours: a 200 may come from a login page in between."""
        with tempfile.TemporaryDirectory() as folder:
            held = Path(client.download_artifacts(run_id, f"model/{MODEL_FILE}", folder)).read_bytes()
        if (digest := hashlib.sha256(held).hexdigest()) != card.digest:
            raise refusal(self.uri, f"{MODEL_FILE} of {card.version} came back with SHA-256 {digest}")

    def _number(self, client: MlflowClient, card: ModelCard) -> str | None:
        """MLflow's own number of this version."""
        found = client.search_model_versions(f"name = '{self.name}' and {_same(card)}", max_results=1)
        return str(found[0].version) if found else None


def is_server(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def connect(uri: str) -> MlflowClient:
    """A client for tracking and registry at `uri`, with telemetry and pickles off."""
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    os.environ.update(_OURS)
    uri = _without_credentials(uri)
    from mlflow.tracking import MlflowClient

    # Their progress is of no interest, and a refusal comes back as an exception.
    for noisy, level in (("mlflow", logging.WARNING), ("alembic", logging.WARNING), ("urllib3", logging.ERROR)):
        logging.getLogger(noisy).setLevel(level)
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def refusal(uri: str, reason: str) -> CouldNot:
    """Without secrets, whatever `reason` says."""
    first = next(iter(hidden(reason).splitlines()), "")[:300]
    return CouldNot(
        f"MLflow store {hidden(uri)} refused: {first}",
        hint="models are served all the same; check MLFLOW_TRACKING_URI and that the store can be reached",
    )


def hidden(text: str) -> str:
    """Without the user and password of an address, and without what MLflow takes from the environment."""
    text = re.sub(r"://[^/\s]*@", "://", text)
    for secret in filter(None, map(os.environ.get, _SECRETS)):
        text = text.replace(secret, _STARS)
    return text


def _without_credentials(uri: str) -> str:
    """A server's address without user and password: MLflow takes those from the environment, where no message of any
    library finds them.
    """
    held = urlsplit(uri)
    if not (is_server(uri) and held.password is not None):
        return uri
    os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(held.username or "")
    os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(held.password)
    return held._replace(netloc=held.netloc.rpartition("@")[2]).geturl()


def _same(card: ModelCard) -> str:
    """MLflow's filter for what is of this version and this file."""
    return f"tags.`{entry.DIGEST_TAG}` = '{card.digest}' and tags.`{entry.VERSION_TAG}` = '{card.version}'"


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
            # A cause may hold a password, and would be printed with a traceback.
            raise refusal(self._uri, _in_short(error)) from None


def _in_short(error: BaseException) -> str:
    """What MLflow's client says of a request, without its three wrappers: the last of them has the reason."""
    from urllib3.exceptions import MaxRetryError

    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, MaxRetryError) and inner.reason is not None:
            return re.sub(r"^HTTPS?Connection(Pool)?\([^)]*\): ", "", str(inner.reason))
        inner = inner.__cause__ or inner.__context__
    return str(error) or type(error).__name__
