"""A request and its facts in, a ruling out: Cedar decides; what it cannot say (ask, modify) is read from annotations.

Fails closed: no match, an error, a missing fact or an unknown action is DENIED.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import cedarpy

from mendstream.contracts.records import Scalar, VerdictKind

Facts = dict[str, dict[str, Scalar]]
"""Group -> fact -> value, as the schema names them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clamp:
    """The obligation to move a threshold only so far; basis points."""

    step_bp: int
    low_bp: int
    high_bp: int

    def apply(self, current_bp: int, proposed_bp: int) -> int:
        """The value nearest to `proposed_bp` within bounds and step. Where no value has both, the step holds, and the
        second question finds no permit."""
        bounded = min(max(proposed_bp, self.low_bp), self.high_bp)
        stepped = min(max(bounded, current_bp - self.step_bp), current_bp + self.step_bp)
        # From beyond the bounds the nearest value may lie the other way, or further than asked: a clamp only weakens.
        return min(max(stepped, min(current_bp, proposed_bp)), max(current_bp, proposed_bp))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What a person sees of one policy, and what its annotations oblige to."""

    id: str
    effect: str
    """`permit` or `forbid`."""
    reason: str
    file: str
    line: int
    asks: bool = False
    """`@verdict("ESCALATED")`: a person is asked about what another policy permits."""
    clamp: Clamp | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """A parsed and validated set; kept, because parsing costs ten times a decision."""

    rules: Mapping[str, Rule]
    """By id, in the order of files and lines."""
    handle: cedarpy.PolicySet
    schema: cedarpy.Schema
    entities: cedarpy.Entities = field(default_factory=lambda: cedarpy.Entities.from_json_str("[]"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What the policies say about one request."""

    verdict: VerdictKind
    policies: tuple[str, ...]
    reason: str
    threshold_bp: int | None = None
    """The clamped threshold, if an obligation changed it."""


def rule(policies: Policies, kind: str, target: str, facts: Facts) -> Ruling:
    """The ruling on an action of `kind` on `target`; a modified one has been authorised again."""
    first = _ask(policies, kind, target, facts)
    clamps = [held.clamp for held in first.rules if held.clamp is not None]
    if not first.allowed or not clamps:
        return first.ruling()
    if "threshold" not in facts:
        reason = f"{kind} has no threshold that could be clamped"
        return Ruling(verdict=VerdictKind.DENIED, policies=first.ids, reason=reason)
    current, proposed = int(facts["threshold"]["current_bp"] or 0), int(facts["threshold"]["proposed_bp"] or 0)
    for clamp in clamps:
        proposed = clamp.apply(current, proposed)
    changed = {**facts, "threshold": threshold_facts(current, proposed)}
    return _modified(first, _ask(policies, kind, target, changed), proposed)


def threshold_facts(current_bp: int, proposed_bp: int) -> dict[str, Scalar]:
    """The fact group `threshold`."""
    return {"current_bp": current_bp, "proposed_bp": proposed_bp, "step_bp": abs(proposed_bp - current_bp)}


@dataclass(frozen=True, slots=True)
class _Answer:
    """One answer of Cedar."""

    allowed: bool
    rules: tuple[Rule, ...]
    """The policies that determined it."""
    problem: str = ""

    @property
    def ids(self) -> tuple[str, ...]:
        return _ids(self.rules)

    def ruling(self) -> Ruling:
        """Without regard to clamps."""
        if not self.allowed:
            return Ruling(verdict=VerdictKind.DENIED, policies=self.ids, reason=self.problem or _reasons(self.rules))
        asking = tuple(held for held in self.rules if held.asks)
        if len(asking) == len(self.rules):
            return Ruling(verdict=VerdictKind.DENIED, policies=(), reason="no policy permits it")
        if asking:
            return Ruling(verdict=VerdictKind.ESCALATED, policies=_ids(asking), reason=_reasons(asking))
        return Ruling(verdict=VerdictKind.APPROVED, policies=self.ids, reason=_reasons(self.rules))


def _ask(policies: Policies, kind: str, target: str, facts: Facts) -> _Answer:
    request = {
        "principal": {"type": "Agent", "id": "healing"},
        "action": {"type": "Action", "id": kind},
        "resource": {"type": "Target", "id": target},
        "context": facts,
    }
    result = cedarpy.is_authorized(request, policies.handle, policies.entities, schema=policies.schema)
    errors = result.diagnostics.errors
    if errors or result.decision is cedarpy.Decision.NoDecision:
        return _Answer(False, (), f"no decision: {'; '.join(errors) or 'the engine gave none'}")
    found = set(result.diagnostics.reasons)
    determining = tuple(held for held in policies.rules.values() if held.id in found)
    return _Answer(result.allowed, determining, "" if determining else "no policy permits it")


def _modified(first: _Answer, again: _Answer, proposed_bp: int) -> Ruling:
    """What the second question makes of the first: a modified action needs a plain permit of its own."""
    clamped = tuple(held for held in first.rules if held.clamp is not None)
    second = again.ruling()
    if second.verdict is VerdictKind.DENIED or any(held.clamp is not None for held in again.rules):
        reason = f"clamped to {proposed_bp / 10000:g} it is not permitted either: {second.reason}"
        return Ruling(verdict=VerdictKind.DENIED, policies=_ids(clamped, again.rules), reason=reason)
    asked = second.verdict is VerdictKind.ESCALATED
    reason = f"{_reasons(clamped)}: clamped to {proposed_bp / 10000:g}"
    return Ruling(
        verdict=VerdictKind.ESCALATED if asked else VerdictKind.MODIFIED,
        policies=(*_ids(clamped), *second.policies),
        reason=f"{reason}; {second.reason}" if asked else reason,
        threshold_bp=proposed_bp,
    )


def _ids(*groups: tuple[Rule, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(held.id for group in groups for held in group))


def _reasons(rules: tuple[Rule, ...]) -> str:
    return "; ".join(dict.fromkeys(held.reason for held in rules))
