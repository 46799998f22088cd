"""Fetching what a config needs from the world, outside the turn: the old version serves meanwhile."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from mendstream.contracts.knobs import LiveConfig
from mendstream.runtime.world import Loader, World

_log = structlog.get_logger("model")


class ModelFetch:
    """Loads models aside. A file that cannot be used is logged once; the model that served before goes on."""

    def __init__(self, models: Loader, world: World) -> None:
        self.served_last: Callable[[], tuple[str, str]] = lambda: ("", "")
        """(version, digest) of the model that goes on where the live one cannot be used; a new process needs it too."""
        self._models = models
        self._world = world
        self._busy: Callable[[], bool] = lambda: False
        self._failed: set[tuple[str, str]] = set()

    def ready(self, config: LiveConfig) -> bool:
        """True once every model that `config` names is loaded, or known not to load."""
        live = (config.model_version, config.model_digest)
        named = [live, (config.shadow_version, config.shadow_digest)]
        if live in self._failed:
            named.append(self.served_last())
        wanted = [
            pair for pair in named if pair[1] and pair not in self._failed and self._models.get(pair[1]) is None
        ]  # fmt: skip
        if wanted and not self._busy():
            self._busy = self._world.aside("model-fetch", lambda: self._load(wanted))
        return not wanted

    def _load(self, wanted: list[tuple[str, str]]) -> None:
        for version, digest in wanted:
            try:
                self._models.fetch(version, digest)
            except Exception as error:  # noqa: BLE001 - a library may fail on a file in any way; the turn must not wait
                self._failed.add((version, digest))
                _log.error("model cannot be used; the one before goes on", version=version, cause=repr(error))
