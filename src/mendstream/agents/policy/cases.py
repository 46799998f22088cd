"""A table of cases (TOML) and policies in; for each case what was expected and what the policies said out.

    [facts.house]              # what holds unless a case says otherwise, group by group
    paused = false

    [[case]]
    name = "a fourth restart in ten minutes is denied"
    action = "RESTART"
    facts.restarts.last_10min = 3
    verdict = "DENIED"
    policy = "restart-storm"   # among the policies that determined it; "" if none did

`uses.RESTART = ["house", "plan", "restarts"]` says which groups a kind is asked with, and `without = ["house.paused"]`
takes a fact away.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from typing import Any

import msgspec

from mendstream.agents.policy.engine import Facts, Policies, rule
from mendstream.contracts.errors import SettingsError
from mendstream.contracts.records import Scalar, VerdictKind


class CaseResult(msgspec.Struct, frozen=True, kw_only=True):
    """One case of the table, expected and found."""

    name: str
    action: str
    passed: bool
    expected: VerdictKind
    verdict: VerdictKind
    policy: str
    policies: tuple[str, ...]
    reason: str
    threshold_bp: int | None = None


def run_cases(policies: Policies, cases_toml_text: str) -> list[CaseResult]:
    """Every case in order; raises SettingsError if the table itself is wrong."""
    try:
        table = msgspec.convert(tomllib.loads(cases_toml_text), _Table)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise SettingsError(f"cases: {error}", hint="the shipped cases.toml shows the form") from error
    return [_run(policies, table, case) for case in table.case]


def uncovered(policies: Policies, results: Iterable[CaseResult]) -> tuple[str, ...]:
    """Ids of policies that determined no case: nobody would notice if they were wrong."""
    seen = {name for result in results for name in result.policies}
    return tuple(name for name in policies.rules if name not in seen)


class _Case(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    action: str
    verdict: VerdictKind
    policy: str
    target: str = "model-0"
    facts: Facts = {}
    without: tuple[str, ...] = ()
    threshold_bp: int | None = None
    """What a MODIFIED one is clamped to."""


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    facts: Facts
    uses: dict[str, tuple[str, ...]]
    case: tuple[_Case, ...]


def _run(policies: Policies, table: _Table, case: _Case) -> CaseResult:
    ruling = rule(policies, case.action, case.target, _facts(table, case))
    named = case.policy in ruling.policies if case.policy else not ruling.policies
    return CaseResult(
        name=case.name, action=case.action, expected=case.verdict, verdict=ruling.verdict, policy=case.policy,
        policies=ruling.policies, reason=ruling.reason, threshold_bp=ruling.threshold_bp,
        passed=ruling.verdict is case.verdict and named and case.threshold_bp in (None, ruling.threshold_bp),
    )  # fmt: skip


def _facts(table: _Table, case: _Case) -> Facts:
    """The table's facts for this kind, the case's own above them."""
    groups = table.uses.get(case.action, table.uses.get("*", ()))
    facts: dict[str, dict[str, Any]] = {name: dict(_group(table, case, name)) for name in groups}
    for group, values in case.facts.items():
        for name, value in values.items():
            if name not in facts.get(group, {}):
                known = ", ".join(f"{g}.{n}" for g, held in facts.items() for n in held)
                raise SettingsError(
                    f"case {case.name!r}: {case.action} is not judged by {group}.{name}", hint=f"known: {known}"
                )
            facts[group][name] = value
    if "threshold" in facts:
        moved = facts["threshold"]
        moved["step_bp"] = abs(moved["proposed_bp"] - moved["current_bp"])
    for path in case.without:
        group, _, name = path.partition(".")
        if facts.get(group, {}).pop(name, None) is None:
            raise SettingsError(f"case {case.name!r}: there is no fact {path!r} to leave out", hint="group.fact")
    return facts


def _group(table: _Table, case: _Case, name: str) -> dict[str, Scalar]:
    if name not in table.facts:
        raise SettingsError(f"cases: no [facts.{name}], which {case.action} uses", hint="add the group's usual facts")
    return table.facts[name]
