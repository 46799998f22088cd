"""Settings in, the store's URL with its folder made out."""

from __future__ import annotations

from pathlib import Path

from mendstream.contracts.errors import DataDirError
from mendstream.settings import Settings, store_url


def url_of(settings: Settings) -> str:
    """Where the store is in the data directory, the folder is made: the database may come before the first run."""
    if not settings.store.url:
        try:
            Path(settings.run.data_dir).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataDirError(
                f"cannot make the data directory {settings.run.data_dir}: {error.strerror}",
                hint="choose a writable one with --data DIR",
            ) from error
    return store_url(settings)


def fill_again(settings: Settings) -> None:
    """Empty the projection and apply the whole log to it."""
    from mendstream.adapters.store.recorder import Recorder
    from mendstream.runtime.ground import open_bus

    bus = open_bus(settings, readonly=True)
    try:
        recorder = Recorder(bus, url_of(settings))
        recorder.rebuild()
        while recorder.apply():
            pass
        recorder.close()
    finally:
        bus.close()
