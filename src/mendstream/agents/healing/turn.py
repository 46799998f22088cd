"""What one turn of healing has at hand: time, config, parameters, state, and where its outputs go."""

from __future__ import annotations

from dataclasses import dataclass

from mendstream.agents.healing.params import HealingParams
from mendstream.agents.healing.state import HealingState
from mendstream.contracts.agent import Outputs
from mendstream.contracts.knobs import LiveConfig


@dataclass(slots=True)
class Turn:
    now: int
    config: LiveConfig
    params: HealingParams
    state: HealingState
    outputs: Outputs
    base: int
    """The config version that the next change of this turn builds on: two changes of one turn do not race."""
