"""A model card in; out comes what MLflow shows of it: metrics, parameters, tags, and the card as a text for people."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mendstream.contracts.models import ModelCard

if TYPE_CHECKING:  # 90 MB
    from mlflow.entities import Metric, Param

VERSION_TAG = "mendstream.version"
DIGEST_TAG = "mendstream.digest"
SOURCE_TAG = "mendstream.source"
NOTE_TAG = "mlflow.note.content"
"""What MLflow's page of a run shows as its description."""
_VALUE_MAX = 6000
_TEXT_MAX = 5000


def tags(card: ModelCard) -> dict[str, str]:
    """By which a version is found again: the number that MLflow gives it is not ours."""
    return {VERSION_TAG: card.version, DIGEST_TAG: card.digest, SOURCE_TAG: card.source}


def metrics(card: ModelCard) -> list[Metric]:
    from mlflow.entities import Metric

    return [Metric(key, value, card.created_at_us // 1000, 0) for key, value in _values(card).items()]


def params(card: ModelCard) -> list[Param]:
    from mlflow.entities import Param

    values = {
        "version": card.version,
        "digest": card.digest,
        "features": ",".join(card.features),
        "rows": str(card.rows),
        "data_window": card.data_window,
        "data_from_us": str(card.data_from_us),
        "data_until_us": str(card.data_until_us),
        "source": card.source,
    }
    return [Param(key, value[:_VALUE_MAX]) for key, value in values.items()]


def text(card: ModelCard) -> str:
    """The card in Markdown. What is longest comes last, where a cut does the least harm."""
    made = datetime.fromtimestamp(card.created_at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    rows = [f"| {name} | {value:g} |" for name, value in _values(card).items()]
    return "\n".join([
        f"**{card.version}**, made {made} by: {card.source}", "",
        f"Trained on {card.rows} rows: {card.data_window}", "",
        "| metric | value |", "| --- | --- |", *rows, "",
        f"`model/model.onnx` has SHA-256 `{card.digest}`; the whole card is `model/card.json`.", "",
        f"Features: {', '.join(card.features)}",
    ])[:_TEXT_MAX]  # fmt: skip


def _values(card: ModelCard) -> dict[str, float]:
    return {**card.metrics, "error_level": card.error_level, "error_phi": card.error_phi}
