"""What a person reads who has written a wrong policy."""

from __future__ import annotations

import pytest

from mendstream.agents.policy import Ruling, check_policies, load_policies, rule
from mendstream.agents.policy.policies import shipped
from mendstream.contracts.errors import SettingsError, UsageError
from mendstream.contracts.records import VerdictKind

TEXTS, SCHEMA = shipped()
GOOD = """// my own
@id("mine")
@reason("because; of \\"this\\" // not a comment")
permit (principal, action == Action::"RETRAIN", resource)
when { context.house.sick_bp < 5000 }; // a tail; with a semicolon

@id("second")
@reason("later")
forbid (principal, action, resource) when { context.house.paused };
// the end
"""
CALM = {
    "house": {
        "paused": False, "data_quality_bad": False, "blind": False, "sick_bp": 1, "open_incidents": 0,
        "actions_1h": 0, "actions_1h_limit": 1,
    },
    "plan": {"is_undo": False, "impact": "low", "mode": "auto", "rung": 0},
}  # fmt: skip


def refused(text: str) -> tuple[str, str]:
    """(message, hint) for one file with this text."""
    with pytest.raises(SettingsError) as wrong:
        load_policies({"mine.cedar": text}, SCHEMA)
    assert isinstance(wrong.value, UsageError)
    return str(wrong.value), wrong.value.hint


def test_ids_reasons_files_and_lines_are_known():
    policies = load_policies({"mine.cedar": GOOD}, SCHEMA)
    assert [(r.id, r.effect, r.line) for r in policies.rules.values()] == [
        ("mine", "permit", 2),
        ("second", "forbid", 7),
    ]
    assert policies.rules["mine"].reason == 'because; of "this" // not a comment'
    assert check_policies({"mine.cedar": GOOD}, SCHEMA) == []


def test_the_shipped_policies_are_sound():
    assert check_policies(TEXTS, SCHEMA) == []
    assert sorted(TEXTS) == ["actions.cedar", "house.cedar"]


def test_a_misspelt_fact_is_refused_with_policy_place_and_the_nearest_name():
    message, hint = refused(GOOD.replace("house.sick_bp", "house.sik_bp"))
    assert message.startswith("mine.cedar:2: policy 'mine': attribute `house.sik_bp`")
    assert hint == "did you mean 'sick_bp'?"


def test_a_misspelt_action_is_refused():
    message, hint = refused(GOOD.replace('"RETRAIN"', '"RETRIAN"'))
    assert message.startswith("mine.cedar:2: policy 'mine':")
    assert hint


def test_a_wrong_type_is_refused():
    message, _ = refused(GOOD.replace("< 5000", '< "5000"'))
    assert "expected Long but saw String" in message


@pytest.mark.parametrize(
    ("broken", "place"),
    [
        (GOOD.replace("forbid (", "forbidd ("), "mine.cedar:7: policy 'second': does not parse: invalid policy effect"),
        (GOOD.replace("< 5000", "<"), "mine.cedar:2: policy 'mine': does not parse: unexpected token `}`"),
        (GOOD + "permit (principal,", "mine.cedar:11: does not parse: unexpected end of input"),
        (GOOD.replace('@reason("later")', '@reason("later)'), "mine.cedar:7: policy 'second': does not parse"),
    ],
)
def test_broken_text_is_refused_with_its_line(broken, place):
    message, hint = refused(broken)
    assert message.startswith(place)
    assert hint


def test_without_id_or_reason_a_policy_is_refused():
    message, hint = refused(GOOD.replace('@id("second")\n', ""))
    assert message == "mine.cedar:7: has no @id"
    assert '@id("...")' in hint
    message, _ = refused(GOOD.replace('@reason("later")\n', ""))
    assert message == "mine.cedar:7: policy 'second': has no @reason"
    message, _ = refused(GOOD.replace('@reason("later")\n', '@reason("")\n'))
    assert message.endswith("has no @reason")


def test_an_id_may_be_used_once_in_all_files():
    with pytest.raises(SettingsError, match=r"b\.cedar:2: policy 'mine': the @id 'mine' is used twice") as wrong:
        load_policies({"a.cedar": GOOD, "b.cedar": GOOD}, SCHEMA)
    assert "a.cedar:2" in wrong.value.hint
    assert str(wrong.value).endswith("(and 1 more)")


def test_a_misspelt_annotation_is_refused_for_it_would_turn_a_question_into_a_permission():
    message, hint = refused(GOOD.replace('@id("mine")', '@id("mine")\n@verdct("ESCALATED")'))
    assert "unknown annotation @verdct" in message
    assert hint == "did you mean 'verdict'?"


@pytest.mark.parametrize(
    ("annotation", "says"),
    [
        ('@verdict("MAYBE")', '@verdict("MAYBE") on a permit'),
        ('@obligation("clamp")', "is not understood"),
        ('@obligation("clamp step_bp=1 low_bp=9 high_bp=8")', "low_bp 9 is above high_bp 8"),
        ('@verdict("ESCALATED") @obligation("clamp step_bp=1 low_bp=2 high_bp=3")', "with an @obligation"),
    ],
)
def test_an_annotation_that_means_nothing_is_refused(annotation, says):
    message, hint = refused(GOOD.replace('@id("mine")', f'@id("mine") {annotation}'))
    assert says in message
    assert hint


@pytest.mark.parametrize("annotation", ['@verdict("ESCALATED")', '@obligation("clamp step_bp=1 low_bp=2 high_bp=3")'])
def test_a_forbid_neither_asks_nor_modifies(annotation):
    message, _ = refused(GOOD.replace('@id("second")', f'@id("second") {annotation}'))
    assert "on a forbid" in message


def test_a_template_is_refused():
    message, _ = refused('@id("t") @reason("r") permit (principal == ?principal, action, resource);')
    assert message == "mine.cedar:1: policy 't': is a template"


def test_no_policy_at_all_is_refused():
    message, hint = refused("// nothing yet\n")
    assert message == "mine.cedar: no policy found"
    assert "denied" in hint
    with pytest.raises(SettingsError, match="no file: no policy found"):
        load_policies({}, SCHEMA)


def test_a_broken_schema_is_refused():
    with pytest.raises(SettingsError, match="schema: failed to resolve type: Bol"):
        load_policies(TEXTS, SCHEMA.replace("paused: Bool", "paused: Bol"))


def test_check_names_everything_that_is_wrong_and_load_the_first():
    both = GOOD.replace("house.sick_bp", "house.sik_bp").replace("house.paused", "house.pausd")
    problems = check_policies({"mine.cedar": both}, SCHEMA)
    assert [(p.file, p.line, p.policy) for p in problems] == [("mine.cedar", 2, "mine"), ("mine.cedar", 7, "second")]
    assert refused(both)[0].endswith("(and 1 more)")


# --- the engine fails closed -----------------------------------------------------------------------------------------


def test_an_error_in_one_policy_denies_although_another_permits():
    boom = '@id("boom") @reason("r") forbid (principal, action, resource) when { 9223372036854775807 + PLUS > 0 };'
    policies = load_policies({"a": GOOD, "b": boom.replace("PLUS", "context.house.sick_bp")}, SCHEMA)
    ruling = rule(policies, "RETRAIN", "trainer", CALM)
    assert ruling.verdict is VerdictKind.DENIED
    assert "overflow" in ruling.reason


@pytest.mark.parametrize("path", [f"{group}.{name}" for group, held in CALM.items() for name in held])
def test_any_missing_fact_denies(path):
    policies = load_policies(TEXTS, SCHEMA)
    assert rule(policies, "RETRAIN", "trainer", CALM).verdict is VerdictKind.APPROVED
    group, _, name = path.partition(".")
    lacking = {**CALM, group: {key: value for key, value in CALM[group].items() if key != name}}
    ruling = rule(policies, "RETRAIN", "trainer", lacking)
    assert (ruling.verdict, ruling.policies) == (VerdictKind.DENIED, ())
    assert name in ruling.reason


def test_a_float_among_the_facts_denies():
    odd = {**CALM, "house": {**CALM["house"], "sick_bp": 0.5}}
    assert rule(load_policies(TEXTS, SCHEMA), "RETRAIN", "trainer", odd).verdict is VerdictKind.DENIED


def test_a_question_alone_permits_nothing():
    ask = '@id("ask") @reason("r") @verdict("ESCALATED") permit (principal, action, resource);'
    ruling = rule(load_policies({"a": ask}, SCHEMA), "RETRAIN", "trainer", CALM)
    assert ruling == Ruling(verdict=VerdictKind.DENIED, policies=(), reason="no policy permits it")


def test_a_clamp_on_an_action_without_a_threshold_denies():
    clamp = (
        '@id("c") @reason("r") @obligation("clamp step_bp=1 low_bp=2 high_bp=3") permit (principal, action, resource);'
    )
    ruling = rule(load_policies({"a": clamp}, SCHEMA), "RETRAIN", "trainer", CALM)
    assert (ruling.verdict, ruling.policies) == (VerdictKind.DENIED, ("c",))


def test_the_strictest_of_two_clamps_wins():
    text = """
    @id("wide") @reason("w") @obligation("clamp step_bp=2000 low_bp=1000 high_bp=9000")
    permit (principal, action == Action::"SET_THRESHOLD", resource) when { context.threshold.step_bp > 2000 };
    @id("narrow") @reason("n") @obligation("clamp step_bp=500 low_bp=1000 high_bp=9000")
    permit (principal, action == Action::"SET_THRESHOLD", resource) when { context.threshold.step_bp > 500 };
    @id("plain") @reason("p")
    permit (principal, action == Action::"SET_THRESHOLD", resource) when { context.threshold.step_bp <= 500 };
    """
    facts = {**CALM, "threshold": {"current_bp": 5000, "proposed_bp": 1000, "step_bp": 4000}}
    ruling = rule(load_policies({"a": text}, SCHEMA), "SET_THRESHOLD", "decision", facts)
    assert (ruling.verdict, ruling.threshold_bp) == (VerdictKind.MODIFIED, 4500)
    assert ruling.policies == ("wide", "narrow", "plain")
