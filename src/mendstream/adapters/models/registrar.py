"""Keeps MLflow in step with the catalogue and with what is live; both come in, nothing but log lines goes out.

MLflow is asked what it knows, at the start and after each refusal: what it missed, or lost, it is told again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

import structlog

from mendstream.adapters.models.catalogue import Catalogue
from mendstream.adapters.models.registry import CHAMPION, PREVIOUS
from mendstream.contracts.errors import BadRecord, CouldNot, ModelError
from mendstream.contracts.knobs import LiveConfig, fold
from mendstream.contracts.models import ModelCard
from mendstream.contracts.ports import Bus, Clock
from mendstream.contracts.records import ConfigChange, decode
from mendstream.contracts.topics import Stream, Topic

_CONFIG = Stream(Topic.CONFIG_UPDATES, 0)
_LOOK_EVERY_S = 5.0
_RETRY_S_MAX = 60.0

_log = structlog.get_logger("trainer")


class LiveModel:
    """Which version config-updates say is live, and which was before it. No position is kept: the topic is short and
    never trimmed.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._config = LiveConfig()
        self._before = ""
        self._at: int | None = None

    def versions(self) -> tuple[str, str]:
        """(the live one, the one that was live before it), each empty if there is none."""
        return self.version(), self._before

    def version(self) -> str:
        """Empty if no model is live yet."""
        at = self._bus.bounds(_CONFIG)[0] if self._at is None else self._at
        while blocks := self._bus.read(_CONFIG, at, max_rows=1024, max_bytes=1 << 20):
            for block in blocks:
                for line in bytes(block.value).splitlines():
                    self._fold(line)
                at = block.next
        self._at = at
        return self._config.model_version

    def _fold(self, line: bytes) -> None:
        try:
            change = decode(Topic.CONFIG_UPDATES, line)
        except BadRecord:
            return  # nobody can apply it; the agents, whose stream this is, put it to the dead letters
        if isinstance(change, ConfigChange):
            held = self._config.model_version
            self._config, _ = fold(self._config, change)
            if self._config.model_version != held:
                self._before = held


class MadeWay(CouldNot):
    """MLflow was not told, for a training came in between."""


class Told(Protocol):
    """What MLflow is told and asked; see `registry.Registry`. Each raises CouldNot."""

    def known(self) -> dict[tuple[str, str], str]: ...
    def register(self, catalogue: Catalogue, card: ModelCard) -> str: ...
    def alias(self, alias: str, card: ModelCard) -> bool: ...
    def close(self) -> None:
        """For now: the next call opens it again."""


class Registrar:
    """Tells MLflow one thing a pump, and never while anything more urgent is to be done."""

    def __init__(
        self,
        registry: Told,
        catalogue: Catalogue,
        clock: Clock,
        live: Callable[[], tuple[str, str]],
        *,
        quiet_s: float,
    ) -> None:
        """`live`: see `LiveModel.versions`. `quiet_s`: MLflow's import and first contact (3.6 s of CPU) wait so long
        after the start, and a version so long after it was made, so as not to compete with a start or with the proof of
        a cure.
        """
        self._registry = registry
        self._catalogue = catalogue
        self._clock = clock
        self._live = live
        self._quiet_s = quiet_s
        self._due_us = 0
        self._failures = 0
        self._known: dict[tuple[str, str], str] | None = None
        self._aliases: dict[str, str] = {}
        self._trouble = ""
        self._broken: set[str] = set()
        self._wait(quiet_s)

    @property
    def trouble(self) -> str:
        """Why MLflow could not be told, for people; empty if it knows what there is to know. Any thread may ask."""
        return self._trouble

    def pump(self) -> bool:
        """True if MLflow was asked or told something. A refusal is logged and tried again, later each time."""
        if self._clock.now_us() < self._due_us:
            return False
        try:
            done = self._ask() or self._follow() or self._register()
        except MadeWay:
            self._wait(self._quiet_s)
            return False
        except CouldNot as error:
            self._failures += 1
            self._known, self._trouble = None, str(error)
            wait_s = min(_RETRY_S_MAX, 2.0**self._failures)
            self._wait(wait_s)
            _log.warning(
                "MLflow was not told, will be tried again",
                reason=str(error), hint=error.hint, attempts=self._failures, again_in_s=wait_s,
            )  # fmt: skip
            return False
        if self._trouble:
            _log.info("MLflow answers again", attempts=self._failures)
        self._failures, self._trouble = 0, ""
        self._wait(0.0 if done else _LOOK_EVERY_S)
        return done

    def rest(self) -> None:
        """There is nothing to tell for a while."""
        self._registry.close()

    def _ask(self) -> bool:
        """What MLflow knows, if that is not clear. Its aliases are set again then, whatever they are."""
        if self._known is not None:
            return False
        self._known, self._aliases = self._registry.known(), {}
        return True

    def _follow(self) -> bool:
        """An alias, after what is live or was before. One that is not registered yet is waited for."""
        for alias, version in zip((CHAMPION, PREVIOUS), self._live(), strict=True):
            card = self._card(version) if version and self._aliases.get(alias) != version else None
            if card is not None and self._run_of(card) and self._registry.alias(alias, card):
                self._aliases[alias] = version
                _log.info("alias set in MLflow", alias=alias, version=version)
                return True
        return False

    def _register(self) -> bool:
        """The oldest version that MLflow does not know."""
        ripe_us = self._clock.now_us() - int(self._quiet_s * 1e6)
        for version in self._catalogue.versions():
            card = self._card(version)
            if card is None or card.created_at_us > ripe_us:
                continue
            run_id = self._run_of(card)
            if not run_id:
                run_id = self._registry.register(self._catalogue, card)
                _log.info("registered in MLflow", version=version, run=run_id)
            elif run_id == card.run_id:
                continue
            self._note(card, run_id)
            return True
        return False

    def _run_of(self, card: ModelCard) -> str:
        """The run of a version that MLflow knows; else empty."""
        return (self._known or {}).get((card.version, card.digest), "")

    def _note(self, card: ModelCard, run_id: str) -> None:
        self._catalogue.set_run(card.version, run_id)
        if self._known is not None:
            self._known[card.version, card.digest] = run_id

    def _card(self, version: str) -> ModelCard | None:
        """None for a version whose files are broken; that is said once."""
        try:
            return self._catalogue.fetch(version)
        except ModelError as error:
            if version not in self._broken:
                _log.warning("a version cannot be registered", version=version, reason=str(error), hint=error.hint)
            self._broken.add(version)
            return None

    def _wait(self, seconds: float) -> None:
        self._due_us = self._clock.now_us() + int(seconds * 1e6)


class Background(threading.Thread):
    """A registrar beside the trainer: MLflow's first contact takes seconds, and no retraining may wait for it."""

    def __init__(self, registrar: Registrar) -> None:
        super().__init__(name="registrar", daemon=True)
        self._registrar = registrar
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(_LOOK_EVERY_S):
            while self._registrar.pump() and not self._ended.is_set():
                pass
            self._registrar.rest()

    def stop(self) -> None:
        """Asks it to end; what it is in the middle of is done again at the next start."""
        self._ended.set()
