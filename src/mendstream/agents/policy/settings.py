"""What a person sets for the policy agent; the policies themselves are Cedar texts."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from mendstream.contracts.errors import SettingsError
from mendstream.contracts.records import ActionKind

Mode = Literal["observe", "ask", "auto"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """Limits that policies compare with, and the mode of each kind of action."""

    modes: Mapping[str, Mode] = field(default_factory=dict)
    """Action kind -> `observe` (record it only), `ask` (a person decides) or `auto`; a kind not named is `auto`."""
    restarts_per_10min: int = 3
    """Most restarts of one target in 10 minutes."""
    actions_per_hour: int = 30
    """From here on a person is asked; undos are not counted and not asked about."""
    vitals_max_age_s: float = 30.0
    """Without vitals newer than this the house is blind."""
    verdict_ttl_s: float = 60.0
    """How long a verdict may be acted on."""

    def __post_init__(self) -> None:
        for kind, mode in self.modes.items():
            if kind not in ActionKind.__members__:
                near = difflib.get_close_matches(kind.upper(), ActionKind.__members__, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(ActionKind.__members__)}"
                raise SettingsError(f"policy.modes: there is no kind of action {kind!r}", hint=hint)
            if mode not in get_args(Mode):
                raise SettingsError(f"policy.modes.{kind} = {mode!r} is no mode", hint="observe, ask or auto")
