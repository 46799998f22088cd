"""Where events come from: `open_source` turns `ingestion.source` into a `contracts.ports.Source`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mendstream.contracts.errors import SettingsError
from mendstream.contracts.ports import Clock, Source
from mendstream.settings import Settings

SPOOL = Path("spool") / "stdin.jsonl"


def open_source(house: Settings, clock: Clock, regime: Callable[[], str]) -> Source:
    """Raises SettingsError for a source that does not exist, CouldNot for one that cannot be opened."""
    settings = house.ingestion
    kind, _, rest = settings.source.partition(":")
    if settings.value_format != "json" and kind != "kafka":
        raise SettingsError(
            f"ingestion.value_format = {settings.value_format!r} is for a Kafka source",
            hint="any other source has JSON: set ingestion.value_format = json",
        )
    match kind:
        case "file":
            from mendstream.adapters.sources.file import FileSource

            return FileSource(Path(rest), clock, rate=settings.rate)
        case "stdin":
            from mendstream.adapters.sources.file import FileSource

            return FileSource(Path(house.run.data_dir) / SPOOL, clock, rate=settings.rate, follow=True)
        case "http":
            from mendstream.adapters.sources.http import HttpSource

            return HttpSource(settings.http_host, settings.http_port, most_bytes=settings.max_record_bytes)
        case "kafka":
            from mendstream.adapters.sources.kafka import open_kafka

            return open_kafka(rest, house)
        case "python":
            return _python_source(rest, house, clock, regime)
        case "":
            from mendstream.adapters.sources.file import NoSource

            return NoSource()
    raise SettingsError(
        f"ingestion.source = {settings.source!r} is no source",
        hint="file:PATH, stdin, http, kafka:TOPIC or python:MODULE:OBJECT",
    )


def _python_source(name: str, house: Settings, clock: Clock, regime: Callable[[], str]) -> Source:
    """Calls MODULE:OBJECT(seed=..., rate=..., clock=..., regime=...)."""
    module, _, attribute = name.partition(":")
    try:
        make: Any = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingsError(f"ingestion.source = 'python:{name}': {error}", hint="python:MODULE:OBJECT") from error
    source: Source = make(seed=house.run.seed, rate=house.ingestion.rate, clock=clock, regime=regime)
    return source
