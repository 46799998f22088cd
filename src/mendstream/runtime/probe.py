"""Probes of the model off the serving turn, while SAFE_MODE holds: the way back is judged by what they measure."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from mendstream.agents.panes import PaneTable, pane_of
from mendstream.agents.pipeline.model import ModelAgent
from mendstream.contracts.knobs import LiveConfig
from mendstream.contracts.ports import Bus, Clock, Out
from mendstream.contracts.records import encode_block
from mendstream.contracts.topics import Stream, Topic

EVERY_S = 0.25
ROWS = 64
_log = structlog.get_logger("model")


class Prober:
    """Calls the live model on recent input and publishes how long it took, as counts with arm `probe`."""

    def __init__(
        self, bus: Bus, clock: Clock, agent: ModelAgent, task: str, config: Callable[[], LiveConfig]
    ) -> None:  # fmt: skip
        self._bus = bus
        self._clock = clock
        self._agent = agent
        self._task = task
        self._config = config
        # Revisions begin at the time, so that those of a process before are never above ours.
        self._panes = PaneTable(revision=clock.now_us())

    def probe(self) -> None:
        """Once, if SAFE_MODE holds and there is input to probe with."""
        try:
            self._probe()
        except Exception as error:  # noqa: BLE001 - without probes there would be no way back from SAFE_MODE
            _log.warning("a probe failed", task=self._task, cause=repr(error))

    def _probe(self) -> None:
        config, matrix = self._config(), self._agent.probe_input
        scorer = self._agent.models.get(config.model_digest) if config.safe_mode and config.model_digest else None
        if scorer is not None and matrix is not None and matrix.shape[1] == len(scorer.card.features):
            _, seconds = scorer.score(matrix[-ROWS:])
            self._publish(scorer.card.version, config.version, seconds)

    def _publish(self, version: str, config: int, seconds: float) -> None:
        pane = pane_of(self._clock.now_us())
        sent = self._panes.revision
        totals = self._panes.at(pane, version, config, "probe")
        totals.n += 1
        totals.add_latency(seconds * 1000, 1)
        totals.hists["model_ms"] = totals.hists["latency"]
        counts, _ = self._panes.changed(self._task, sent)
        self._panes.drop_before(pane - 8)
        self._bus.publish([Out(Stream(Topic.AGENT_METRICS, 0), encode_block(counts), len(counts))])
