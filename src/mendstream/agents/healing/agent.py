"""The healing agent: alerts, vitals, verdicts and answers in; incident log, proposals, changes and commands out."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, cast

from mendstream.agents.healing import inbox
from mendstream.agents.healing.due import ENDED, deadline, due
from mendstream.agents.healing.ending import retire
from mendstream.agents.healing.params import HealingParams
from mendstream.agents.healing.playbooks import PLAYBOOKS
from mendstream.agents.healing.state import HealingState, Incident
from mendstream.agents.healing.turn import Turn
from mendstream.contracts.agent import Batch, Outputs
from mendstream.contracts.errors import IllegalMove
from mendstream.contracts.topics import Topic

if TYPE_CHECKING:
    from collections.abc import Callable

_RANK = {playbook.answers: rank for rank, playbook in enumerate(PLAYBOOKS)}
_MOVES_MAX = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class HealingAgent:
    """Detection -> Logging -> Planning -> Approval -> Execution -> Verification -> Memory."""

    params: HealingParams = field(default_factory=HealingParams)
    name: str = "healing"
    reads: tuple[Topic, ...] = (
        Topic.ALERTS,
        Topic.VITALS,
        Topic.POLICY_DECISIONS,
        Topic.COMMAND_RESULTS,
        Topic.CONFIG_UPDATES,
    )
    state_type: type[HealingState] = HealingState

    def start(self, partition: int) -> HealingState:
        return HealingState()

    def step(self, state: HealingState, batch: Batch, now: int) -> tuple[HealingState, Outputs]:
        turn = Turn(
            now=now,
            config=batch.config,
            params=self.params,
            state=state,
            outputs=Outputs(batch.turn),
            base=batch.config.version,
        )
        if batch.resumed:
            state.resumed_us = now
        run = _graph()  # at the first step, not at the first incident: the import takes a second or two
        inbox.fold(turn, batch)
        self._advance(turn, run)
        state.ended = [held for held in state.ended if now - held.since_us < self.params.symptom_us]
        turn.outputs.wake_at_us = _wake(turn)
        return state, turn.outputs

    def _advance(self, turn: Turn, run: Callable[[Turn, Incident], None]) -> None:
        for _ in range(_MOVES_MAX):
            incident = next((held for held in _ordered(turn.state) if due(held, turn)), None)
            if incident is None:
                return
            run(turn, incident)
            if incident.phase in ENDED:
                retire(turn, incident)
        raise IllegalMove(f"no end of moves within {_MOVES_MAX}: a bug in a graph node")


def _ordered(state: HealingState) -> list[Incident]:
    """Open incidents in the order of their playbooks, ways back last."""
    return sorted(
        state.incidents.values(),
        key=lambda held: (held.back is not None, _RANK.get(held.kind, len(_RANK)), held.opened_at_us, held.key),
    )


def _graph() -> Callable[[Turn, Incident], None]:
    return cast("Callable[[Turn, Incident], None]", import_module("mendstream.agents.healing.graph").run)


def _wake(turn: Turn) -> int | None:
    times = [deadline(incident, turn) for incident in turn.state.incidents.values()]
    times += [due_us for due_us, _ in turn.state.orphans.values()]
    return min((at for at in times if at is not None and at > turn.now), default=None)
