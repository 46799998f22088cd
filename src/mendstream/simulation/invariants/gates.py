"""A model that healing promotes has shown in the shadow what it can do."""

from __future__ import annotations

from collections.abc import Iterator

from mendstream.agents.healing.params import HealingParams
from mendstream.contracts.knobs import Fold, LiveConfig, fold
from mendstream.contracts.records import ActionKind, ConfigChange, Feedback, Proposal
from mendstream.contracts.topics import Stream, Topic
from mendstream.simulation.invariants.folded import Folded
from mendstream.simulation.log import Append
from mendstream.simulation.machine import Machine
from mendstream.simulation.story import Story
from mendstream.simulation.trail import parts_of, records_of

_GATE = HealingParams()


class Gated(Folded):
    """A version is promoted only past its gate, unless a person forces it: else retraining could make all worse.

    Looked at are the shadow's own scores in the log, against the world's labels that had come by then.
    """

    name = "promoted through the gate"
    topics = (Topic.POLICY_REQUESTS, Topic.CONFIG_UPDATES)
    SLACK = 0.1
    """The gate looked a moment ago, at fewer labels: both shares may have moved since."""

    def __init__(self, machine: Machine, story: Story) -> None:
        super().__init__(machine, story)
        self._config = LiveConfig()
        self._promotes: dict[str, str] = {}
        """action -> version, of all promotions that were proposed"""
        self._since: dict[str, int] = {}
        """version -> the config version with which it went into the shadow last"""

    def told(self, append: Append) -> None:
        match append.stream.topic:
            case Topic.POLICY_REQUESTS:
                for record in append.records:
                    if isinstance(record, Proposal) and record.action.kind is ActionKind.PROMOTE:
                        self._promotes[record.action.id] = str(record.action.params["version"])
            case Topic.CONFIG_UPDATES:
                for record in append.records:
                    if isinstance(record, ConfigChange):
                        self._change(record)

    def _change(self, change: ConfigChange) -> None:
        before = self._config
        self._config, became = fold(before, change)
        if became is not Fold.APPLIED:
            return
        shadow = self._config.shadow_version
        if shadow and shadow != before.shadow_version:
            self._since[shadow] = self._config.version
        version = self._promotes.get(change.action_id or "")
        if version is not None and not change.forced:
            why = self._ungated(version)
            if why:
                self.broken(f"{version} is promoted ({change.action_id}), and {why}")

    def _ungated(self, version: str) -> str:
        since = self._since.get(version)
        if since is None:
            return "it never ran in the shadow"
        judged = list(self._judged(version, since))
        if len(judged) < _GATE.gate_labels:
            return f"{len(judged)} labels tell of its shadow, {_GATE.gate_labels} are wanted"
        shadow, live = (sum(wrong) / len(judged) for wrong in zip(*judged, strict=True))
        if shadow > live + _GATE.gate_margin + self.SLACK:
            return f"in the shadow {shadow:.0%} were wrong, live {live:.0%}"
        return ""

    def _judged(self, version: str, since: int) -> Iterator[tuple[bool, bool]]:
        """(whether the shadow was wrong, whether the live one was), of each event whose label has come."""
        made, log = self.machine.tape.made, self.machine.log
        for p in range(self.machine.settings.run.partitions):
            known = {held.event_id for held in records_of(log, Stream(Topic.FEEDBACK, p)) if isinstance(held, Feedback)}
            for part in parts_of(log, Stream(Topic.PREDICTIONS, p)):
                if part.meta.get("shadow") != version or part.meta["config"] < since:
                    continue
                scores = (part.batch.column(name).to_pylist() for name in ("shadow_score", "score"))
                for event_id, tried, live in zip(part.ids, *scores, strict=True):
                    if event_id in known:
                        label = made[int(event_id[1:])].label == 1
                        yield (tried >= 0.5) != label, (live >= 0.5) != label
