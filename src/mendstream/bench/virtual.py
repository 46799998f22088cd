"""The pipeline and its monitoring on one thread and a virtual clock: lines go in, alerts come out.

The agents are the real ones; what is left out is what only machines do (latency, death). So it shows what the *data*
alone makes the detectors say, and a year takes seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from mendstream.adapters.models.catalogue import Catalogue
from mendstream.adapters.models.onnx import LoadedModels
from mendstream.agents.monitoring.joiner import JoinerAgent
from mendstream.agents.monitoring.judge import JudgeAgent
from mendstream.agents.monitoring.settings import JudgeSettings
from mendstream.agents.pipeline.decision import DecisionAgent
from mendstream.agents.pipeline.feature import FeatureAgent
from mendstream.agents.pipeline.ingestion import IngestionAgent
from mendstream.agents.pipeline.model import ModelAgent
from mendstream.contracts.agent import STAGES, Batch, Line, Outputs
from mendstream.contracts.frame import Frame
from mendstream.contracts.knobs import LiveConfig
from mendstream.contracts.records import Alert, Counts, Feedback, Pulse, Record, TaskPulse, decode_block
from mendstream.contracts.topics import Topic
from mendstream.demo.pipeline import flights
from mendstream.settings import Settings

_JUDGE_AFTER_US = 30_000


class VirtualHouse:
    """Serves the first version of a catalogue."""

    def __init__(self, catalogue: Catalogue, settings: Settings) -> None:
        card = catalogue.fetch(catalogue.versions()[0])
        models = LoadedModels(catalogue)
        models.fetch(card.version, card.digest)
        watch = settings.monitoring
        self._config = LiveConfig(version=1, model_version=card.version, model_digest=card.digest)
        self._ingestion, self._feature = IngestionAgent(flights), FeatureAgent(flights)
        self._model, self._decision, self._joiner = ModelAgent(flights, models), DecisionAgent(flights), JoinerAgent()
        self._judge = JudgeAgent(
            settings=JudgeSettings(
                rules=watch.rules,
                false_alarm_s=watch.arl_hours * 3600,
                season_us=int(watch.season_s * 1e6),
                drift_min_n=watch.season_events,
            ),
            cards=catalogue,
        )
        self._raw, self._made = self._ingestion.start(0), self._feature.start(0)
        self._scored, self._decided = self._model.start(0), self._decision.start(0)
        self._joined, self._judged = self._joiner.start(0), self._judge.start(0)
        self._sent = dict.fromkeys(("ingestion", "model", "decision", "joiner"), 0)
        self._turn = 0

    def feed(self, events: Sequence[bytes], labels: Sequence[bytes], now_us: int) -> list[Alert]:
        """Serve what arrived up to `now_us`; the alerts that this raised or ended."""
        self._turn += 1
        predictions, feedback = self._serve(events, labels, now_us)
        self._joined, _ = self._joiner.step(
            self._joined, self._batch("joiner", frames=predictions, records=feedback), now_us
        )
        seen: list[Record] = [*self._pulses(now_us), *self._counts()]
        alerts: list[Alert] = []
        for at_us, records in ((now_us, seen), (now_us + _JUDGE_AFTER_US, [])):
            self._judged, outputs = self._judge.step(self._judged, self._batch("judge", records=records), at_us)
            alerts += [record for record in outputs.records if isinstance(record, Alert)]
        return alerts

    def _serve(self, events: Sequence[bytes], labels: Sequence[bytes], now: int) -> tuple[list[Frame], list[Record]]:
        batch = self._batch("ingestion")
        batch.lines = [Line(value, n) for n, value in enumerate(events)]
        batch.feedback = [Line(value, n) for n, value in enumerate(labels)]
        self._raw, out = self._ingestion.step(self._raw, batch, now)
        feedback: list[Record] = [r for _, _, block, _ in out.blocks for r in decode_block(Topic.FEEDBACK, block)]
        self._made, out = self._feature.step(self._made, self._batch("feature", frames=_frames(out)), now)
        self._scored, out = self._model.step(self._scored, self._batch("model", frames=_frames(out)), now)
        predictions = _frames(out)
        self._decided, _ = self._decision.step(self._decided, self._batch("decision", frames=predictions), now)
        return predictions, [record for record in feedback if isinstance(record, Feedback)]

    def _batch(self, name: str, frames: Sequence[Frame] = (), records: Sequence[Record] = ()) -> Batch:
        return Batch(
            turn=f"virtual/{name}/0/{self._turn}", partition=0, config=self._config, frames=frames, records=records
        )  # fmt: skip

    def _counts(self) -> list[Counts]:
        found: list[Counts] = []
        for name, counted in (
            ("ingestion", self._ingestion.counts(self._raw, self._sent["ingestion"])),
            ("model", self._model.counts(self._scored, self._sent["model"])),
            ("decision", self._decision.counts(self._decided, self._sent["decision"])),
            ("joiner", self._joiner.counts(self._joined, self._sent["joiner"])),
        ):
            counts, self._sent[name] = counted
            found += [msgspec.structs.replace(count, task=f"{name}/0") for count in counts]
        return found

    def _pulses(self, now_us: int) -> list[Pulse]:
        return [
            Pulse(
                process=f"{stage}-0", agent=stage, generation=1, pid=1, at_us=now_us, rss_mb=0.0,
                tasks=(TaskPulse(task=f"{stage}/0", epoch=1, turns=self._turn, backlog=0, config=1),),
            )
            for stage in STAGES
        ]  # fmt: skip


def _frames(outputs: Outputs) -> list[Frame]:
    return [frame for _, _, frame in outputs.frames]


def catalogue_of(folder: Path, models: Path) -> Catalogue:
    """A catalogue in `folder` with the bundled first version."""
    catalogue = Catalogue(folder / "models")
    catalogue.import_dir(models)
    return catalogue
