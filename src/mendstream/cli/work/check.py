"""Settings in; every problem of the pipeline and its files out, each with what to do."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mendstream.cli.show import document, note
from mendstream.cli.work.findings import Finding
from mendstream.contracts.errors import MendstreamError, ModelError, SettingsError
from mendstream.runtime.ground import cluster_of, embedded
from mendstream.settings import Loaded, Settings

if TYPE_CHECKING:
    from mendstream.contracts.pipeline import Pipeline


def check_all(loaded: Loaded, events: Path | None, *, as_json: bool) -> int:
    settings = loaded.settings
    if not settings.pipeline:
        raise SettingsError("no pipeline is set", hint='pipeline = "module:object"; `mendstream init` writes a start')
    found = list(_findings(loaded, events))
    if as_json:
        document({"pipeline": settings.pipeline, "problems": found, "settings": loaded.shown()})
    elif found:
        for finding in found:
            note(f"{finding.where}: {finding.what}" + (f"\n  hint: {finding.hint}" if finding.hint else ""))
        note(f"{len(found)} problem{'s' if len(found) > 1 else ''}")
    else:
        click.echo(f"{settings.pipeline} is well")
    return 1 if found else 0


def _findings(loaded: Loaded, events: Path | None) -> Iterator[Finding]:
    settings = loaded.settings
    if not embedded(settings):
        try:
            cluster_of(settings)
        except SettingsError as error:
            yield Finding("settings", str(error), error.hint)
    pipeline = _pipeline(settings)
    if isinstance(pipeline, Finding):
        yield pipeline
    else:
        from mendstream.cli.work.trial import try_pipeline

        trial = try_pipeline(pipeline, events)
        yield from trial.findings
        yield from _model(settings, trial.features)
    yield from _source(settings)
    yield from _policies(settings)


def _pipeline(settings: Settings) -> Pipeline | Finding:
    from mendstream.runtime.assembly import load_pipeline

    try:
        return load_pipeline(settings)
    except MendstreamError as error:
        return Finding("pipeline", str(error), error.hint)
    except Exception as error:  # noqa: BLE001 - importing runs the user's code, which may raise anything
        last = traceback.extract_tb(error.__traceback__)[-1]
        return Finding(f"{last.filename}:{last.lineno}", f"{type(error).__name__}: {error}", "importing it failed here")


def _model(settings: Settings, features: tuple[str, ...] | None) -> Iterator[Finding]:
    """The versions of models.initial: files sound, and their inputs among the pipeline's features."""
    if not settings.models.initial:
        return
    from mendstream.adapters.models.catalogue import Catalogue
    from mendstream.adapters.models.onnx import OnnxScorer

    folder = Path(settings.models.initial)
    catalogue = Catalogue(folder)
    if not catalogue.versions():
        yield Finding("models.initial", f"{folder} holds no version", "a version is a folder such as v1 with card.json")
    for version in catalogue.versions():
        where = f"model {version}"
        try:
            card = catalogue.fetch(version)
            OnnxScorer.of_bytes(catalogue.model(version, card.digest), card, str(catalogue.path(version)))
        except ModelError as error:
            yield Finding(where, str(error), error.hint)
            continue
        missing = [name for name in card.features if features is not None and name not in features]
        if missing:
            yield Finding(
                where, f"wants features that the pipeline does not make: {', '.join(missing)}",
                f"the pipeline makes {', '.join(features or ())}",
            )  # fmt: skip


def _source(settings: Settings) -> Iterator[Finding]:
    kind, _, rest = settings.ingestion.source.partition(":")
    if not kind:
        yield Finding(
            "ingestion.source", "is empty: no event will ever come", "file:PATH, stdin, http, kafka:TOPIC or python:..."
        )
    if kind == "file" and not Path(rest).exists():
        yield Finding("ingestion.source", f"there is no file {rest}", "paths start at the working folder")
    if kind == "kafka" and not rest.startswith("//") and not settings.bus.bootstrap_servers:
        told = f"names the topic {rest}, and bus.bootstrap_servers no broker"
        yield Finding("ingestion.source", told, "ingestion.source = kafka://HOST:PORT/TOPIC")


def _policies(settings: Settings) -> Iterator[Finding]:
    if not settings.policy.dir:
        return
    from mendstream.agents.policy import check_policies
    from mendstream.cli.work.policy import texts_of

    try:
        texts, schema, _ = texts_of(settings, None)
    except MendstreamError as error:
        yield Finding("policy.dir", str(error), error.hint)
        return
    for problem in check_policies(texts, schema):
        yield Finding(f"policy {problem.file}:{problem.line}", problem.message, problem.hint)
