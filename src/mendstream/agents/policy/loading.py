"""Cedar texts and a schema in, `Policies` out; or what is wrong with them, each with file, line, policy and hint."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import cedarpy

from mendstream.agents.policy.engine import Clamp, Policies, Rule
from mendstream.agents.policy.policies import shipped
from mendstream.contracts.errors import SettingsError

_ANNOTATIONS = ("id", "reason", "verdict", "obligation")
_CLAMP = re.compile(r"clamp step_bp=(\d{1,5}) low_bp=(\d{1,5}) high_bp=(\d{1,5})")
# A string, a comment, or the end of a policy; the first two hide semicolons.
_TOKENS = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|;', re.DOTALL)
_MISSPELT = re.compile(r'attribute `([^`]+)`|Action::"([^"]+)"`')


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong with a policy text."""

    file: str
    line: int
    """From 1; 0 if it is not known."""
    policy: str
    """Its @id, or empty if it has none."""
    message: str
    hint: str

    def __str__(self) -> str:
        name = f" policy {self.policy!r}:" if self.policy else ""
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}:{name} {self.message}"


def load_policies(texts: Mapping[str, str], schema: str) -> Policies:
    """`texts`: file name -> Cedar text. Raises SettingsError that names file, line, policy, reason and remedy."""
    found = _read(texts, schema)
    if isinstance(found, Policies):
        return found
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    raise SettingsError(f"{found[0]}{more}", hint=found[0].hint)


@cache
def shipped_policies() -> Policies:
    """Those that come with mendstream, read once: nothing changes them, and reading costs more than many rulings."""
    return load_policies(*shipped())


def check_policies(texts: Mapping[str, str], schema: str) -> list[Problem]:
    """Everything that is wrong, for `mendstream policy check`; empty if `load_policies` would take them."""
    found = _read(texts, schema)
    return [] if isinstance(found, Policies) else found


@dataclass(frozen=True, slots=True)
class _Statement:
    """One policy as text."""

    file: str
    line: int
    text: str

    def problem(self, message: str, hint: str) -> Problem:
        """With the @id as it can be read from the text, since a broken policy has no parsed one."""
        name = re.search(r'@id\(\s*"([^"]*)"', self.text)
        return Problem(file=self.file, line=self.line, policy=name[1] if name else "", message=message, hint=hint)


def _read(texts: Mapping[str, str], schema_text: str) -> Policies | list[Problem]:
    try:
        schema = cedarpy.Schema.from_str(schema_text)
    except ValueError as error:
        return [Problem(file="schema", line=0, policy="", message=str(error), hint="mend the Cedar schema")]
    problems: list[Problem] = []
    rules: dict[str, Rule] = {}
    bodies: dict[str, Any] = {}
    for file, text in texts.items():
        for statement in _statements(file, text):
            parsed = _parse(statement, schema, schema_text)
            if isinstance(parsed, Problem):
                problems.append(parsed)
                continue
            rule, body = parsed
            if rule.id in rules:
                first = rules[rule.id]
                hint = f"the first one is at {first.file}:{first.line}; give this one a name of its own"
                problems.append(statement.problem(f"the @id {rule.id!r} is used twice", hint))
                continue
            rules[rule.id], bodies[rule.id] = rule, body
    if problems:
        return problems
    if not rules:
        where = ", ".join(texts) or "no file"
        return [
            Problem(file=where, line=0, policy="", message="no policy found", hint="without a permit all is denied")
        ]
    # Under their own ids, so that the engine's answers name them.
    whole = {"staticPolicies": bodies, "templates": {}, "templateLinks": []}
    return Policies(rules=rules, handle=cedarpy.PolicySet.from_json_str(json.dumps(whole)), schema=schema)


def _statements(file: str, text: str) -> Iterator[_Statement]:
    """The text cut at the ends of policies; each with the line of its first word."""
    start = 0
    for token in _TOKENS.finditer(text):
        if token[0] == ";":
            yield _statement(file, text, start, token.end())
            start = token.end()
    rest = _statement(file, text, start, len(text))
    if re.sub(r"//[^\n]*", "", rest.text).strip():
        yield rest


def _statement(file: str, text: str, start: int, end: int) -> _Statement:
    blank = re.match(r"(?:\s|//[^\n]*(?:\n|$))*", text[start:end])
    start += blank.end() if blank else 0
    return _Statement(file, text.count("\n", 0, start) + 1, text[start:end])


def _parse(statement: _Statement, schema: cedarpy.Schema, schema_text: str) -> tuple[Rule, Any] | Problem:
    """The rule and Cedar's own JSON of the policy."""
    try:
        parsed = json.loads(cedarpy.policies_to_json_str(statement.text))
    except ValueError as error:
        return statement.problem(f"does not parse: {error}", "Cedar syntax: https://docs.cedarpolicy.com/policies")
    if len(parsed["staticPolicies"]) != 1:
        return statement.problem("is a template", "write the policy out: slots such as ?principal are never filled")
    body = next(iter(parsed["staticPolicies"].values()))
    annotations: dict[str, str | None] = body.get("annotations", {})
    rule = _rule(statement, body["effect"], {name: value or "" for name, value in annotations.items()})
    if isinstance(rule, Problem):
        return rule
    validation = cedarpy.validate_policies(statement.text, schema)
    if not validation.validation_passed:
        return _invalid(statement, [error.error for error in validation.errors], schema_text)
    return rule, body


def _rule(statement: _Statement, effect: str, annotations: dict[str, str]) -> Rule | Problem:
    for name in annotations:
        # A misspelt @verdict would turn a question into a permission.
        if name not in _ANNOTATIONS:
            return statement.problem(f"unknown annotation @{name}", _nearest(name, _ANNOTATIONS))
    for name in ("id", "reason"):
        if not annotations.get(name):
            hint = f'write @{name}("...") above it: verdicts show it to people'
            return statement.problem(f"has no @{name}", hint)
    verdict, obligation = annotations.get("verdict"), annotations.get("obligation")
    if verdict is not None and (verdict != "ESCALATED" or effect != "permit" or obligation is not None):
        message = f'@verdict("{verdict}") on a {effect}' + (" with an @obligation" if obligation is not None else "")
        return statement.problem(message, 'only @verdict("ESCALATED") on a permit without obligation has a meaning')
    clamp = None
    if obligation is not None:
        form = _CLAMP.fullmatch(obligation)
        if form is None or effect != "permit":
            hint = 'a permit may carry @obligation("clamp step_bp=1000 low_bp=2000 high_bp=8000")'
            return statement.problem(f'@obligation("{obligation}") on a {effect} is not understood', hint)
        step, low, high = (int(number) for number in form.groups())
        if low > high:
            return statement.problem(f"low_bp {low} is above high_bp {high}", "exchange the two")
        clamp = Clamp(step_bp=step, low_bp=low, high_bp=high)
    return Rule(
        id=annotations["id"], effect=effect, reason=annotations["reason"], file=statement.file, line=statement.line,
        asks=verdict is not None, clamp=clamp,
    )  # fmt: skip


def _invalid(statement: _Statement, errors: list[str], schema_text: str) -> Problem:
    """Cedar says the same thing once for each kind of action; the one that names a word is enough."""
    message = min(errors, key=lambda error: (_MISSPELT.search(error) is None, error))
    message = re.sub(r"^for policy `[^`]*`, ", "", message)
    misspelt = _MISSPELT.search(message)
    words = sorted(set(re.findall(r"\w+", re.sub(r"//[^\n]*", "", schema_text))))
    word = (misspelt[1] or misspelt[2]).rpartition(".")[2] if misspelt else ""
    return statement.problem(
        message, _nearest(word, words) if word else "the schema says which facts an action has, and of which type"
    )


def _nearest(word: str, known: tuple[str, ...] | list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
