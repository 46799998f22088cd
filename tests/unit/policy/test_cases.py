"""The table of cases beside the shipped policies, and that it notices what it should."""

from __future__ import annotations

import re

import pytest

from mendstream.agents.policy import check_policies, load_policies, run_cases, uncovered
from mendstream.agents.policy.loading import _statements
from mendstream.agents.policy.policies import shipped, shipped_cases
from mendstream.contracts.errors import SettingsError
from mendstream.contracts.records import ActionKind, VerdictKind

TEXTS, SCHEMA = shipped()
CASES = shipped_cases()
WHOLE = "\n".join(TEXTS.values())


def failures(text: str) -> list[str]:
    return [r.name for r in run_cases(load_policies({"all.cedar": text}, SCHEMA), CASES) if not r.passed]


def test_every_shipped_case_passes_and_covers_every_policy_and_kind():
    policies = load_policies(TEXTS, SCHEMA)
    results = run_cases(policies, CASES)
    assert [r for r in results if not r.passed] == []
    assert len(results) >= 25
    assert uncovered(policies, results) == ()
    assert {r.action for r in results} >= set(ActionKind)
    assert {r.verdict for r in results} == set(VerdictKind) - {VerdictKind.EXPIRED}
    assert len({r.name for r in results}) == len(results)


@pytest.mark.parametrize("number", range(len(list(_statements("all", WHOLE)))))
def test_a_policy_left_out_makes_a_case_fail(number):
    statements = [statement.text for statement in _statements("all", WHOLE)]
    del statements[number]
    assert failures("\n".join(statements))


# Numbers and comparisons of conditions and obligations; comments and reasons hold some too, so they are blanked.
BLANKED = re.sub(r"//.*|@reason\(.*", lambda text: " " * len(text[0]), WHOLE)
LIMITS = list(re.finditer(r"(?<=[= ])\d+(?=[ \"\n])|>=|<=|(?<= )>(?= )", BLANKED))


def planted(match: re.Match[str], text: str) -> list[str]:
    """The cases that notice `text` in place of a limit."""
    changed = WHOLE[: match.start()] + text + WHOLE[match.end() :]
    assert check_policies({"all.cedar": changed}, SCHEMA) == []
    return failures(changed)


@pytest.mark.parametrize("match", LIMITS, ids=lambda match: f"{match[0]}@{match.start()}")
def test_a_limit_moved_by_one_makes_a_case_fail(match):
    swapped = {">=": ">", "<=": "<", ">": ">="}.get(match[0])
    if swapped is not None:
        assert planted(match, swapped)
    else:
        # Between a permit and the clamp that begins where it ends, only one side can be told apart.
        assert planted(match, str(int(match[0]) - 1)) or planted(match, str(int(match[0]) + 1))


def test_a_result_says_what_was_expected_and_what_was_found():
    text = WHOLE.replace("last_10min >= context.restarts.limit", "last_10min > context.restarts.limit")
    (failed, *_) = [r for r in run_cases(load_policies({"a": text}, SCHEMA), CASES) if not r.passed]
    assert failed.name == "the fourth restart in ten minutes is denied"
    assert (failed.expected, failed.verdict) == (VerdictKind.DENIED, VerdictKind.APPROVED)
    assert (failed.policy, failed.policies) == ("restart-storm", ("restart",))


def test_a_policy_without_a_case_is_named():
    more = WHOLE + '\n@id("new") @reason("r") forbid (principal, action, resource) when { context.plan.rung > 9 };'
    policies = load_policies({"a": more}, SCHEMA)
    assert uncovered(policies, run_cases(policies, CASES)) == ("new",)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("[[case]", "cases: "),
        (CASES + '\n[[case]]\nname = "x"\n', "cases: "),
        (
            CASES + '\n[[case]]\nname = "x"\naction = "RESTART"\nverdict = "YES"\npolicy = ""\n',
            "Invalid enum value 'YES'",
        ),
        (
            CASES
            + '\n[[case]]\nname = "x"\naction = "RESTART"\nverdict = "DENIED"\npolicy = ""\nfacts.house.pausd = true\n',
            "case 'x': RESTART is not judged by house.pausd",
        ),
        (
            CASES
            + '\n[[case]]\nname = "x"\naction = "RESTART"\nverdict = "DENIED"\npolicy = ""\nwithout = ["house.no"]\n',
            "case 'x': there is no fact 'house.no' to leave out",
        ),
        (CASES.replace("[facts.model]", "[facts.modell]"), r"no \[facts.model\]"),
    ],
)
def test_a_wrong_table_is_refused(table, says):
    with pytest.raises(SettingsError, match=says) as wrong:
        run_cases(load_policies(TEXTS, SCHEMA), table)
    assert wrong.value.hint
