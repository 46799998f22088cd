"""A table or the log in, a new version in the catalogue (and in MLflow) out. What is live does not change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from mendstream.adapters.models.catalogue import Catalogue
from mendstream.adapters.models.offline import train_from_log, train_from_table
from mendstream.cli.show import note
from mendstream.cli.work.bus import live_config, opened
from mendstream.cli.work.models import catalogue_of
from mendstream.contracts.errors import CouldNot, ModelError
from mendstream.contracts.models import ModelCard
from mendstream.runtime.clock import WallClock
from mendstream.settings import Settings, mlflow_uri


def train_on_table(
    settings: Settings, place: Path, label: str, features: Sequence[str] | None, *, mlflow: bool, as_json: bool
) -> int:
    catalogue = catalogue_of(settings)
    card = train_from_table(
        catalogue, place, label=label, now_us=WallClock().now_us(), features=features, seed=settings.run.seed
    )  # fmt: skip
    return _made(settings, catalogue, card, mlflow=mlflow, as_json=as_json)


def train_on_log(settings: Settings, hours: float, *, mlflow: bool, as_json: bool) -> int:
    catalogue = catalogue_of(settings)
    with opened(settings) as bus:
        now, config = bus.now_us(), live_config(bus)
        if not config.model_version:
            raise ModelError("no model is live: its features are not known", hint="`mendstream train TABLE` first")
        live = catalogue.fetch(config.model_version)
        card = train_from_log(
            catalogue, bus, partitions=settings.run.partitions, features=live.features,
            since_us=now - int(hours * 3.6e9), now_us=now, live=live, seed=settings.run.seed,
        )  # fmt: skip
    return _made(settings, catalogue, card, mlflow=mlflow, as_json=as_json)


def _made(settings: Settings, catalogue: Catalogue, card: ModelCard, *, mlflow: bool, as_json: bool) -> int:
    if mlflow:
        card = _registered(settings, catalogue, card)
    if as_json:
        click.echo(msgspec.json.encode({"version": card.version, "digest": card.digest, "rows": card.rows,
                                        "metrics": card.metrics, "run_id": card.run_id}))  # fmt: skip
    else:
        click.echo(f"{card.version}: accuracy {card.metrics.get('accuracy', float('nan')):.3f} on {card.rows} rows")
        note(f"it is not live yet: `mendstream models promote {card.version}`")
    return 0


def _registered(settings: Settings, catalogue: Catalogue, card: ModelCard) -> ModelCard:
    """MLflow is told; if it refuses, the version is there all the same."""
    from mendstream.adapters.models.registry import Registry

    uri = mlflow_uri(settings) if settings.models.mlflow_uri else ""
    registry = Registry(Path(settings.run.data_dir), uri=uri, name=_name(settings))
    try:
        return catalogue.set_run(card.version, registry.register(catalogue, card))
    except CouldNot as error:
        note(f"{card.version} is made, but MLflow does not know it: {error}\n  hint: {error.hint}")
        return card


def _name(settings: Settings) -> str:
    from mendstream.runtime.assembly import load_pipeline

    return load_pipeline(settings).name if settings.pipeline else settings.name or "mendstream"
