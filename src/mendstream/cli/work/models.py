"""The catalogue and config-updates in; lists, cards, histories, and forced changes of the live model out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from mendstream.adapters.models.catalogue import Catalogue
from mendstream.cli.show import document, note, pairs, table, when
from mendstream.cli.work.bus import Wish, changes, live_config, opened, turn_knobs
from mendstream.contracts.errors import CouldNot, UsageError
from mendstream.contracts.knobs import LiveConfig
from mendstream.contracts.ports import Bus
from mendstream.settings import Settings, models_dir


def catalogue_of(settings: Settings) -> Catalogue:
    return Catalogue(models_dir(settings).absolute())


def list_versions(settings: Settings, *, as_json: bool) -> int:
    catalogue = catalogue_of(settings)
    config = _config(settings)
    rows: list[dict[str, Any]] = []
    for version in catalogue.versions():
        card = catalogue.fetch(version)
        rows.append(
            {"version": version, "state": _state(version, config), "created_at_us": card.created_at_us,
             "accuracy": card.metrics.get("accuracy"), "rows": card.rows, "source": card.source,
             "data_window": card.data_window, "digest": card.digest}
        )  # fmt: skip
    if as_json:
        document(rows)
        return 0
    table(
        ("version", "state", "created", "accuracy", "rows", "source", "trained on", "digest"),
        (
            (r["version"], r["state"], when(r["created_at_us"]), r["accuracy"], r["rows"], r["source"],
             r["data_window"], f"{r['digest'][:12]}...")
            for r in rows
        ),
        empty=f"no model versions in {catalogue.directory}",
    )  # fmt: skip
    return 0


def show_version(settings: Settings, version: str, *, as_json: bool) -> int:
    catalogue = catalogue_of(settings)
    card = catalogue.fetch(version)
    catalogue.model(version, card.digest)  # raises ModelError if the file is not the one that was registered
    facts = {"state": _state(version, _config(settings)), "path": str(catalogue.path(version))}
    if as_json:
        document(facts | msgspec.to_builtins(card))
        return 0
    shown = {name: value for name, value in msgspec.to_builtins(card).items() if not name.endswith("reference")}
    shown |= {name: when(shown[name]) for name in ("created_at_us", "data_from_us", "data_until_us") if shown[name]}
    pairs(shown | facts | {"reference": f"{len(card.reference)} features (--json has the bins)"})
    return 0


def promote_version(settings: Settings, version: str, reason: str, *, lift: bool, as_json: bool) -> int:
    catalogue = catalogue_of(settings)
    card = catalogue.fetch(version)
    catalogue.model(version, card.digest)
    with opened(settings, readonly=False) as bus:
        if version in live_config(bus).excluded_models and not lift:
            note(f"{version} is excluded since it was rolled back; --lift lifts that")
            return 1
        made = turn_knobs(bus, _to(version, card.digest, lift=lift), reason)
    _tell(made, version, as_json=as_json)
    return 0


def roll_back(settings: Settings, version: str | None, reason: str, *, as_json: bool) -> int:
    with opened(settings, readonly=False) as bus:
        config = live_config(bus)
        spans = [span for span in live_spans(bus) if span.version and span.version != config.model_version]
        allowed = {span.version: span.digest for span in spans if span.version not in config.excluded_models}
        if version is None:
            if not allowed:
                raise CouldNot(
                    "no version was live before that is not excluded", hint="`mendstream models promote VERSION`"
                )
            version = [span.version for span in spans if span.version in allowed][-1]
        elif version not in allowed:
            note(f"{version} was never live before, is live now, or is excluded")
            return 1
        catalogue_of(settings).model(version, allowed[version])
        made = turn_knobs(bus, _to(version, allowed[version], exclude=config.model_version), reason)
    _tell(made, version, as_json=as_json)
    return 0


def _to(version: str, digest: str, *, lift: bool = False, exclude: str = "") -> Wish:
    """What to change so that `version` is live."""

    def wish(config: LiveConfig) -> dict[str, Any]:
        if config.model_version == version and config.model_digest == digest:
            return {}
        wanted: dict[str, Any] = {"model_version": version, "model_digest": digest}
        if config.shadow_version == version:
            wanted |= {"shadow_version": "", "shadow_digest": ""}
        excluded = [name for name in config.excluded_models if not (lift and name == version)]
        if exclude and exclude not in excluded:
            excluded.append(exclude)
        return wanted | ({"excluded_models": excluded} if excluded != list(config.excluded_models) else {})

    return wish


def _tell(made: LiveConfig | None, version: str, *, as_json: bool) -> None:
    if as_json:
        document({"model": version, "changed": made is not None, "config": made.version if made else None})
    elif made is None:
        click.echo(f"{version} is live already")
    else:
        click.echo(f"{version} is live from config {made.version} on")


# --- history ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Span:
    """How long one version was live."""

    version: str
    digest: str
    config: int
    from_us: int
    until_us: int | None
    """None: it is live."""
    actor: str
    reason: str
    forced: bool
    incident_id: str | None


def live_spans(bus: Bus) -> list[Span]:
    """Oldest first. Changes that lost the compare and set never were live."""
    spans: list[Span] = []
    for change, config in changes(bus):
        if config is None or (spans and spans[-1].version == config.model_version):
            continue
        if spans:
            spans[-1].until_us = change.at_us
        spans.append(
            Span(
                version=config.model_version, digest=config.model_digest, config=config.version, from_us=change.at_us,
                until_us=None, actor=change.actor, reason=change.reason, forced=change.forced,
                incident_id=change.incident_id,
            )
        )  # fmt: skip
    return spans


def show_history(settings: Settings, at: str | None, *, as_json: bool) -> int:
    """With `at`: exit code 1 if no version was live then."""
    with opened(settings) as bus:
        spans = live_spans(bus)
    if at is not None:
        at_us = _time(at)
        spans = [s for s in spans if s.from_us <= at_us and (s.until_us is None or at_us < s.until_us)]
        spans = [span for span in spans if span.version]
    if as_json:
        document(spans)
    else:
        table(
            ("version", "from", "until", "config", "by", "forced", "incident", "reason"),
            (
                (s.version or "none (fallback)", when(s.from_us), when(s.until_us) if s.until_us else "live", s.config,
                 s.actor, "yes" if s.forced else "no", s.incident_id, s.reason)
                for s in spans
            ),
            empty="no version was live then" if at else "no version has been live",
        )  # fmt: skip
    return 1 if at is not None and not spans else 0


def _time(text: str) -> int:
    try:
        return int(datetime.fromisoformat(text).astimezone().timestamp() * 1e6)
    except ValueError as error:
        raise UsageError(f"{text!r} is no time", hint="write it as 2026-11-24T06:30:00") from error


def _state(version: str, config: LiveConfig) -> str:
    if version == config.model_version:
        return "live"
    if version == config.shadow_version:
        return "shadow"
    return "excluded" if version in config.excluded_models else "ready"


def _config(settings: Settings) -> LiveConfig:
    """The knobs; the defaults where nothing has run yet, so that versions can be looked at before the first run."""
    if not (Path(settings.run.data_dir) / "control").exists():
        return LiveConfig()
    with opened(settings) as bus:
        return live_config(bus)
