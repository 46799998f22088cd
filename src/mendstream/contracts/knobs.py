"""What may be turned while the house runs: one table of knobs, folded from config-updates by compare and set."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from mendstream.contracts.records import ConfigChange


class LiveConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The knobs' values at one version. Changed only by records of config-updates."""

    version: int = 0
    safe_mode: tuple[str, ...] = ()
    decision_threshold: float = 0.5
    model_version: str = ""
    model_digest: str = ""
    shadow_version: str = ""
    shadow_digest: str = ""
    excluded_models: tuple[str, ...] = ()
    sampling: float = 1.0
    healing_paused: bool = False

    @property
    def mode(self) -> Mode:
        """SAFE_MODE while anybody holds it."""
        return Mode.SAFE_MODE if self.safe_mode else Mode.NORMAL


class Mode(StrEnum):
    NORMAL = "NORMAL"
    SAFE_MODE = "SAFE_MODE"


@dataclass(frozen=True, slots=True)
class Knob:
    name: str
    type: type
    default: Any
    low: float | None
    high: float | None
    unit: str
    doc: str


KNOBS: tuple[Knob, ...] = (
    Knob("safe_mode", tuple, (), None, None, "holders", "Who holds SAFE_MODE, one hold an incident; empty: NORMAL."),
    Knob("decision_threshold", float, 0.5, 0.01, 0.99, "score", "A score at or above it is a positive decision."),
    Knob("model_version", str, "", None, None, "version", "The live model."),
    Knob("model_digest", str, "", None, None, "sha256", "SHA-256 of the live model's ONNX file, hexadecimal."),
    Knob("shadow_version", str, "", None, None, "version", "Scores live traffic without deciding; empty: none."),
    Knob("shadow_digest", str, "", None, None, "sha256", "SHA-256 of the shadow model's ONNX file."),
    Knob("excluded_models", tuple, (), None, None, "versions", "May not go live until a person lifts it."),
    Knob("sampling", float, 1.0, 0.001, 1.0, "share", "Share of events, by hash of the id, that the joiner watches."),
    Knob("healing_paused", bool, False, None, None, "", "Blocks new remedies; never an undo."),
)  # fmt: skip
_BY_NAME = {knob.name: knob for knob in KNOBS}


class Fold(StrEnum):
    """What became of one change."""

    APPLIED = "applied"
    STALE = "stale"
    INVALID = "invalid"


def check(changes: dict[str, Any]) -> str:
    """Why `changes` may not be applied, or an empty string."""
    for name, value in changes.items():
        knob = _BY_NAME.get(name)
        if knob is None:
            return f"unknown knob {name!r}"
        if knob.type is tuple:
            if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
                return f"{name} must be a list of strings"
        elif knob.type is float:
            if isinstance(value, bool) or not isinstance(value, int | float):
                return f"{name} must be a number"
            if knob.low is not None and knob.high is not None and not knob.low <= value <= knob.high:
                return f"{name} = {value} is outside {knob.low} to {knob.high}"
        elif not isinstance(value, knob.type):
            return f"{name} must be {knob.type.__name__}"
    return ""


def fold(config: LiveConfig, change: ConfigChange) -> tuple[LiveConfig, Fold]:
    """Apply `change` if its base version is the current one (compare and set)."""
    if change.base_version != config.version:
        return config, Fold.STALE
    if check(change.changes):
        return config, Fold.INVALID
    values = {k: tuple(v) if _BY_NAME[k].type is tuple else v for k, v in change.changes.items()}
    return msgspec.structs.replace(config, version=config.version + 1, **values), Fold.APPLIED
