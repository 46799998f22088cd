"""Real scrapes of real ports: what the turns of each agent show."""

import contextlib
import socket
import threading
import time
import timeit

import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs
from tests.unit.metrics import given
from tests.unit.metrics.given import NOW, outputs

from mendstream.adapters.metrics import METRICS, Meter
from mendstream.contracts.agent import Outputs
from mendstream.contracts.records import AlertState, Status, TaskState, VerdictKind


def samples(text: str) -> dict[tuple, float]:
    """(name, label values in the order of the label names) -> value"""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _open(found: dict[tuple, float]) -> float:
    return sum(value for key, value in found.items() if key[0] == "mendstream_incidents_open")


@pytest.fixture
def base() -> int:
    return given.free_base()


@pytest.fixture
def meter_of(base):
    with contextlib.ExitStack() as stack:

        def make(role: str, partitions: int = 1, replica: int = 0) -> Meter:
            meter = Meter(given.settings(base), given.role(role), partitions, replica)
            stack.callback(meter.close)
            return meter

        yield make


@pytest.mark.parametrize(
    ("role", "offset", "label"),
    [
        ("ingestion", 0, "ingestion"), ("feature", 1, "feature"), ("model", 2, "model"), ("decision", 3, "decision"),
        ("judge", 4, "monitoring"), ("healing", 5, "healing"), ("policy", 6, "policy"),
    ],
)  # fmt: skip
def test_each_agent_serves_the_three_names_of_the_brief_on_its_own_port(meter_of, base, role, offset, label):
    meter = meter_of(role)
    meter.turn(role, 40, 0.25, outputs(dead=[given.dead_letter(0), given.dead_letter(1)]))
    found = samples(given.scrape(base + offset))
    assert meter.ports == {role: base + offset}
    assert found["events_processed_total", label] == 40
    assert found["errors_total", label] == 2
    assert found["processing_latency_seconds_count", label] == 1
    assert found["processing_latency_seconds_sum", label] == 0.25
    assert found["processing_latency_seconds_bucket", label, "0.2"] == 0
    assert found["processing_latency_seconds_bucket", label, "0.3"] == 1


@pytest.mark.parametrize(("partitions", "offsets"), [(1, [0, 1, 2, 3]), (2, [1, 2, 3])])
def test_a_fused_process_serves_each_of_its_agents_on_that_agents_port(meter_of, base, partitions, offsets):
    meter = meter_of("fused", partitions)
    meter.turn("model", 10, 0.01, outputs())
    meter.turn("decision", 7, 0.01, outputs())
    assert sorted(meter.ports.values()) == [base + n for n in offsets]
    assert samples(given.scrape(base + 1))["events_processed_total", "feature"] == 0
    model = samples(given.scrape(base + 2))
    assert model["events_processed_total", "model"] == 10
    assert ("events_processed_total", "decision") not in model
    assert samples(given.scrape(base + 3))["events_processed_total", "decision"] == 7


def test_counters_of_closed_labels_stand_at_zero_from_the_start(meter_of, base):
    meter_of("judge"), meter_of("healing"), meter_of("policy")
    monitoring, healing, policy = (samples(given.scrape(base + n)) for n in (4, 5, 6))
    assert monitoring["mendstream_alerts_total", "AGENT_DOWN"] == 0
    assert healing["mendstream_incidents_total", "DATA_DRIFT"] == 0
    assert healing["mendstream_actions_total", "RESTART", "FAIL"] == 0
    assert healing["mendstream_incident_resolution_seconds_count", "PERF_DROP"] == 0
    assert policy["mendstream_verdicts_total", "DENIED"] == 0
    assert policy["errors_total", "policy"] == 0


def test_no_event_latency_is_claimed_before_an_event_was_seen(meter_of, base):
    meter = meter_of("judge")
    assert 'event_latency_seconds{quantile="0.95"} NaN' in given.scrape(base + 4)
    meter.turn("judge", 0, 0.001, outputs(given.vitals()))
    assert samples(given.scrape(base + 4))["mendstream_event_latency_seconds", "0.95"] == 0.45
    meter.turn("judge", 0, 0.001, outputs(given.vitals(n=0, p50_ms=0.0, p95_ms=0.0)))
    assert 'event_latency_seconds{quantile="0.95"} NaN' in given.scrape(base + 4)


def test_vitals_show_latency_lag_mode_accuracy_and_drift(meter_of, base):
    meter = meter_of("judge")
    seen = given.vitals(
        mode="SAFE_MODE",
        tasks=(given.task("model/0", 3), given.task("decision/0", 0)),
        drift=(given.drift("age", 0.31),),
    )
    meter.turn("judge", 0, 0.001, outputs(seen))
    found = samples(given.scrape(base + 4))
    assert found["mendstream_event_latency_seconds", "0.5"] == 0.002
    assert found["mendstream_consumer_lag_records", "model/0"] == 3
    assert found["mendstream_mode",] == 1
    assert found["mendstream_model_accuracy_ratio", "v1"] == 0.82
    assert found["mendstream_feature_drift_score", "age"] == 0.31
    meter.turn("judge", 0, 0.001, outputs(given.vitals()))
    assert samples(given.scrape(base + 4))["mendstream_mode",] == 0


def test_only_the_newest_model_version_has_an_accuracy(meter_of, base):
    meter = meter_of("judge")
    for version in range(200):
        meter.turn("judge", 0, 0.001, outputs(given.vitals(model=f"v{version}", accuracy=version / 200)))
    kept = {key: v for key, v in samples(given.scrape(base + 4)).items() if "accuracy" in key[0]}
    assert kept == {("mendstream_model_accuracy_ratio", "v199"): 0.995}
    meter.turn("judge", 0, 0.001, outputs(given.vitals(model="v200", accuracy=None)))
    assert not [key for key in samples(given.scrape(base + 4)) if "accuracy" in key[0]]


def test_labels_are_bounded_however_many_features_tasks_and_incidents_pass(meter_of, base):
    judge, healing = meter_of("judge"), meter_of("healing")
    for round_ in range(5):
        rows = tuple(given.drift(f"f{round_}-{n}", 0.1) for n in range(120))
        judge.turn("judge", 0, 0.001, outputs(given.vitals(drift=rows)))
    for n in range(500):
        steps = [
            given.step("detection", Status.OPEN, incident=f"inc-{n}"),
            given.step("verification", Status.RESOLVED, incident=f"inc-{n}", row=given.row("SUCCESS", f"act-{n}")),
            given.step("memory", Status.RESOLVED, incident=f"inc-{n}", mttr=4.0, ended=True),
        ]
        healing.turn("healing", 0, 0.001, outputs(*steps))
    features = [key for key in samples(given.scrape(base + 4)) if key[0] == "mendstream_feature_drift_score"]
    found = samples(given.scrape(base + 5))
    assert len(features) == 50
    assert {key[1][:3] for key in features} == {"f4-"}
    assert found["mendstream_incidents_total", "PERF_DROP"] == 500
    assert found["mendstream_actions_total", "ROLLBACK", "SUCCESS"] == 500
    assert len(found) < 240


def test_an_incident_is_counted_once_open_until_it_ends_and_its_time_taken_with_its_memory(meter_of, base):
    meter = meter_of("healing")
    meter.turn("healing", 0, 0.001, outputs(given.step("detection", Status.OPEN)))
    meter.turn("healing", 0, 0.001, outputs(given.step("logging", Status.OPEN)))
    meter.turn("healing", 0, 0.001, outputs(given.step("execution", Status.MITIGATING, row=given.row(None))))
    found = samples(given.scrape(base + 5))
    assert (found["mendstream_incidents_total", "PERF_DROP"], _open(found)) == (1, 1)
    assert found["mendstream_actions_total", "ROLLBACK", "SUCCESS"] == 0

    ending = [
        given.step("verification", Status.RESOLVED, row=given.row("SUCCESS")),
        given.step("memory", Status.RESOLVED, mttr=4.0, ended=True),
        given.step("verification", Status.RESOLVED, row=given.row("SUCCESS")),  # its way back from SAFE_MODE
        given.step("memory", Status.RESOLVED),
    ]
    meter.turn("healing", 0, 0.001, outputs(*ending))
    found = samples(given.scrape(base + 5))
    assert _open(found) == 0
    assert found["mendstream_actions_total", "ROLLBACK", "SUCCESS"] == 1
    assert found["mendstream_incident_resolution_seconds_count", "PERF_DROP"] == 1
    assert found["mendstream_incident_resolution_seconds_sum", "PERF_DROP"] == 4


def test_an_incident_that_failed_has_no_time_of_resolution(meter_of, base):
    meter = meter_of("healing")
    steps = [
        given.step("detection", Status.OPEN),
        given.step("verification", Status.FAILED),
        given.step("memory", Status.FAILED, ended=True),
    ]
    meter.turn("healing", 0, 0.001, outputs(*steps))
    found = samples(given.scrape(base + 5))
    assert _open(found) == 0
    assert found["mendstream_incident_resolution_seconds_count", "PERF_DROP"] == 0


def test_an_open_incident_shows_its_status_and_the_oldest_one_its_age(meter_of, base):
    meter = meter_of("healing")
    assert "mendstream_incident_oldest_timestamp_seconds NaN" in given.scrape(base + 5)
    later = NOW + 60_000_000
    steps = [
        given.step("logging", Status.OPEN, incident="inc-2", detected=later),
        given.step("execution", Status.MITIGATING, incident="inc-1", detected=NOW),
    ]
    meter.turn("healing", 0, 0.001, outputs(*steps))
    found = samples(given.scrape(base + 5))
    assert (found["mendstream_incidents_open", "OPEN"], found["mendstream_incidents_open", "MITIGATING"]) == (1, 1)
    assert found["mendstream_incident_oldest_timestamp_seconds",] == NOW / 1e6
    meter.turn("healing", 0, 0.001, outputs(given.step("verification", Status.RESOLVED, incident="inc-1")))
    assert samples(given.scrape(base + 5))["mendstream_incident_oldest_timestamp_seconds",] == later / 1e6
    meter.turn("healing", 0, 0.001, outputs(given.step("verification", Status.RESOLVED, incident="inc-2")))
    assert "mendstream_incident_oldest_timestamp_seconds NaN" in given.scrape(base + 5)


def test_an_incident_without_a_rung_left_waits_for_a_person_to_close_it(meter_of, base):
    meter = meter_of("healing")
    meter.turn("healing", 0, 0.001, outputs(given.step("planning", Status.MITIGATING, phase="ESCALATED")))
    assert samples(given.scrape(base + 5))["mendstream_incidents_escalated",] == 1
    closed = [
        given.step("verification", Status.RESOLVED, phase="RESOLVED"),
        given.step("memory", Status.RESOLVED, mttr=90.0, ended=True, outcome="person"),
    ]
    meter.turn("healing", 0, 0.001, outputs(*closed))
    found = samples(given.scrape(base + 5))
    assert found["mendstream_incidents_escalated",] == 0
    assert found["mendstream_incidents_ended_total", "person", "PERF_DROP"] == 1
    assert found["mendstream_incidents_ended_total", "mitigated", "PERF_DROP"] == 0


@pytest.mark.parametrize("status", [Status.MITIGATING, Status.RESOLVED])
def test_a_proposal_waits_for_a_person_from_asking_to_the_answer_also_for_a_way_back(meter_of, base, status):
    meter = meter_of("healing")
    assert "mendstream_approval_oldest_timestamp_seconds NaN" in given.scrape(base + 5)
    meter.turn("healing", 0, 0.001, outputs(given.step("approval", status, phase="ASKED", at=NOW)))
    meter.turn("healing", 0, 0.001, outputs(given.step("approval", status, phase="ASKED", at=NOW + 1_000_000)))
    found = samples(given.scrape(base + 5))
    assert found["mendstream_approvals_waiting",] == 1
    assert found["mendstream_approval_oldest_timestamp_seconds",] == NOW / 1e6
    meter.turn("healing", 0, 0.001, outputs(given.step("approval", status, phase="APPROVED", at=NOW + 8_000_000)))
    found = samples(given.scrape(base + 5))
    assert found["mendstream_approvals_waiting",] == 0
    assert found["mendstream_approval_wait_seconds_sum",] == 8
    assert "mendstream_approval_oldest_timestamp_seconds NaN" in given.scrape(base + 5)


@pytest.mark.parametrize(
    ("subject", "after_s", "repeated"), [("v2", 3599, 1), ("v2", 3601, 0), ("v3", 10, 0)]
)  # fmt: skip
def test_the_same_incident_within_an_hour_of_its_end_is_a_repeated_one(meter_of, base, subject, after_s, repeated):
    meter = meter_of("healing")
    steps = [
        given.step("detection", Status.OPEN),
        given.step("verification", Status.RESOLVED, at=NOW),
        given.step("detection", Status.OPEN, incident="inc-2", subject=subject, detected=NOW + after_s * 1_000_000),
    ]
    meter.turn("healing", 0, 0.001, outputs(*steps))
    found = samples(given.scrape(base + 5))
    assert found["mendstream_incidents_repeated_total", "PERF_DROP"] == repeated
    assert found["mendstream_incidents_total", "PERF_DROP"] == 2


def test_an_undo_is_an_action_and_an_undo(meter_of, base):
    meter = meter_of("healing")
    steps = [
        given.step("verification", Status.MITIGATING, row=given.row("FAIL", "act-1")),
        given.step("verification", Status.MITIGATING, row=given.row("SUCCESS", "act-2", is_undo=True)),
    ]
    meter.turn("healing", 0, 0.001, outputs(*steps))
    found = samples(given.scrape(base + 5))
    assert found["mendstream_actions_total", "ROLLBACK", "FAIL"] == 1
    assert found["mendstream_actions_total", "ROLLBACK", "SUCCESS"] == 1
    assert found["mendstream_undos_total", "ROLLBACK", "FAIL"] == 0
    assert found["mendstream_undos_total", "ROLLBACK", "SUCCESS"] == 1


def test_what_an_earlier_process_left_open_is_shown_and_not_counted_again(meter_of, base):
    meter = meter_of("healing")
    earlier = [
        given.step("detection", Status.OPEN, incident="inc-0"),
        given.step("verification", Status.RESOLVED, incident="inc-0", row=given.row("SUCCESS", "act-0"), at=NOW),
        given.step("memory", Status.RESOLVED, incident="inc-0", mttr=4.0, ended=True),
        given.step("detection", Status.OPEN, incident="inc-1"),
        given.step("approval", Status.MITIGATING, incident="inc-1", phase="ASKED", at=NOW),
    ]
    meter.recall("healing", earlier)
    found = samples(given.scrape(base + 5))
    assert _open(found) == found["mendstream_approvals_waiting",] == 1
    counted = ("mendstream_incidents_total", "mendstream_actions_total", "mendstream_incidents_ended_total")
    assert not any(value for key, value in found.items() if key[0] in counted)
    again = given.step("verification", Status.RESOLVED, incident="inc-0", row=given.row("SUCCESS", "act-0"))
    like = given.step("detection", Status.OPEN, incident="inc-2", detected=NOW + 1)
    meter.turn("healing", 0, 0.001, outputs(again, like))
    found = samples(given.scrape(base + 5))
    assert found["mendstream_actions_total", "ROLLBACK", "SUCCESS"] == 0
    assert found["mendstream_incidents_repeated_total", "PERF_DROP"] == 1


def test_what_was_served_is_counted_by_arm_from_where_the_process_began(meter_of, base):
    meter = meter_of("judge")

    def see(*rows, at=NOW):
        meter.turn("judge", 0, 0.001, outputs(given.vitals(served=rows, at_us=at)))
        return samples(given.scrape(base + 4))

    found = see(given.served("live", 1000, slow=10))
    assert found["mendstream_events_served_total", "live"] == 0
    assert found["mendstream_events_served_total", "fallback"] == 0
    assert "mendstream_label_newest_timestamp_seconds NaN" in given.scrape(base + 4)
    found = see(given.served("live", 1500, slow=60), given.served("fallback", 40, labels=8, errors=3), at=NOW + 1)
    assert (found["mendstream_events_served_total", "live"], found["mendstream_events_slow_total", "live"]) == (500, 50)
    assert found["mendstream_events_served_total", "fallback"] == 40
    assert found["mendstream_labels_total", "fallback"] == 8
    assert found["mendstream_labels_wrong_total", "fallback"] == 3
    assert found["mendstream_label_newest_timestamp_seconds",] == (NOW + 1) / 1e6
    found = see(given.served("live", 1500, slow=60), at=NOW + 2)  # the row of old versions is gone
    assert found["mendstream_events_served_total", "fallback"] == 40
    found = see(given.served("live", 10, config=2), given.served("probe", 99), at=NOW + 3)
    assert found["mendstream_events_served_total", "live"] == 510
    assert found["mendstream_label_newest_timestamp_seconds",] == (NOW + 1) / 1e6


def test_tasks_show_their_state_and_when_they_were_heard(meter_of, base):
    meter = meter_of("judge")
    tasks = (
        given.task("model/0", 3),
        given.task("model/1", 0, state=TaskState.DOWN, age_ms=45_000),
        given.task("decision/0", 0, state=TaskState.UNSEEN),
    )
    meter.turn("judge", 0, 0.001, outputs(given.vitals(tasks=tasks, config=7)))
    found = samples(given.scrape(base + 4))
    heard = {key[1]: value for key, value in found.items() if key[0].endswith("heartbeat_timestamp_seconds")}
    assert heard == {"model/0": NOW / 1e6 - 0.01, "model/1": NOW / 1e6 - 45}
    states = {key[1]: value for key, value in found.items() if key[0] == "mendstream_tasks"}
    assert states == {"OK": 1, "DOWN": 1, "STUCK": 0, "UNSEEN": 1}
    assert found["mendstream_config_version",] == 7


def test_the_limit_of_drift_stands_beside_the_score(meter_of, base):
    meter = meter_of("judge")
    meter.turn("judge", 0, 0.001, outputs(given.vitals(drift=(given.drift("age", 0.1),))))
    assert samples(given.scrape(base + 4))["mendstream_feature_drift_limit", "age"] == 0.2
    meter.turn("judge", 0, 0.001, outputs(given.vitals()))
    assert "mendstream_feature_drift_limit{" not in given.scrape(base + 4)


def test_verdicts_tell_which_policies_held_back_and_what_the_budget_has_left(meter_of, base):
    policy = meter_of("policy")
    assert "mendstream_action_budget_left NaN" in given.scrape(base + 6)
    facts = {"house.actions_1h": 28, "house.actions_1h_limit": 30}
    policy.turn("policy", 0, 0.001, outputs(given.verdict(VerdictKind.APPROVED, policies=("restart",), facts=facts)))
    found = samples(given.scrape(base + 6))
    assert found["mendstream_action_budget_left",] == 2
    assert found["mendstream_guard_rails_total", "restart"] == 0
    held = [
        given.verdict(VerdictKind.ESCALATED, policies=("ask-hourly-budget", "mode-ask")),
        given.verdict(VerdictKind.DENIED, policies=("a-policy-of-the-user",)),
        given.verdict(VerdictKind.DENIED),
        given.verdict(VerdictKind.DENIED, facts={"house.actions_1h": 31, "house.actions_1h_limit": 30}),
    ]
    policy.turn("policy", 0, 0.001, outputs(*held))
    found = samples(given.scrape(base + 6))
    counted = {key[1]: value for key, value in found.items() if key[0] == "mendstream_guard_rails_total" and value}
    assert counted == {"ask-hourly-budget": 1, "mode-ask": 1, "own": 1, "none": 2}
    assert found["mendstream_action_budget_left",] == 0


def test_alerts_are_counted_when_they_begin_and_verdicts_by_kind(meter_of, base):
    judge, policy = meter_of("judge"), meter_of("policy")
    judge.turn("judge", 0, 0.001, outputs(given.alert(AlertState.FIRING), given.alert(AlertState.RESOLVED)))
    policy.turn("policy", 0, 0.001, outputs(given.verdict(VerdictKind.DENIED), given.verdict(VerdictKind.DENIED)))
    assert samples(given.scrape(base + 4))["mendstream_alerts_total", "LATENCY_SLO_BREACH"] == 1
    assert samples(given.scrape(base + 6))["mendstream_verdicts_total", "DENIED"] == 2


def test_a_taken_port_costs_a_warning_and_nothing_else(meter_of, base):
    with socket.socket() as other:
        other.bind(("127.0.0.1", base + 1))
        other.listen()
        with capture_logs() as lines:
            meter = meter_of("fused")
        meter.turn("feature", 10, 0.01, outputs())
        meter.turn("model", 10, 0.01, outputs())
        assert list(meter.ports) == ["ingestion", "model", "decision"]
        assert samples(given.scrape(base + 2))["events_processed_total", "model"] == 10
    (line,) = lines
    assert line["log_level"] == "warning"
    assert (line["agent"], line["host"], line["port"]) == ("feature", "127.0.0.1", base + 1)
    assert f"cannot listen on 127.0.0.1:{base + 1}" in line["event"]
    assert "set metrics.base_port" in line["hint"]


def test_a_second_replica_on_the_machine_runs_without_a_port_of_its_own(meter_of, base):
    first = meter_of("model")
    with capture_logs() as lines:
        second = meter_of("model", 2, replica=1)
    first.turn("model", 1, 0.01, outputs())
    second.turn("model", 5, 0.01, outputs())
    assert second.ports == {}
    assert samples(given.scrape(base + 2))["events_processed_total", "model"] == 1
    assert "replicas on one machine" in lines[0]["hint"]


@pytest.mark.parametrize("host", ["192.0.2.1", "metrics..example"])
def test_a_host_that_is_not_ours_costs_a_warning_only(base, host):
    with capture_logs() as lines:
        meter = Meter(given.Metrics(base_port=base, host=host), given.role("model"), 1, 0)
    assert meter.ports == {}
    assert "metrics.host" in lines[0]["hint"]
    meter.close()


def test_a_closed_meter_frees_its_ports_at_once_and_may_be_closed_again(meter_of, base):
    meter = meter_of("fused")
    given.scrape(base)
    meter.close()
    meter.close()
    assert "metrics" not in {thread.name for thread in threading.enumerate()}
    assert list(meter_of("fused").ports.values()) == [base, base + 1, base + 2, base + 3]


def test_a_client_that_says_nothing_or_hangs_up_does_not_keep_others_from_scraping(meter_of, base):
    meter_of("model")
    with socket.create_connection(("127.0.0.1", base + 2)), capture_logs() as lines:
        with socket.create_connection(("127.0.0.1", base + 2)) as rude:
            rude.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert "events_processed_total" in given.scrape(base + 2)
    assert lines == []


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text; version=1.0.0"])
def test_there_are_no_created_series_in_either_format(meter_of, base, accept):
    meter_of("healing")
    text = given.scrape(base + 5, accept)
    assert "events_processed_total" in text
    assert "_created" not in text


def test_a_role_without_a_port_serves_nothing(meter_of):
    assert meter_of("joiner").ports == {}


def test_a_turn_costs_some_microseconds(meter_of):
    meter = meter_of("model")
    out = Outputs("t")
    turns = timeit.repeat(lambda: meter.turn("model", 512, 0.004, out), timer=time.thread_time, number=500, repeat=40)
    best = min(turns) / 500
    assert best < 1e-5, f"{best * 1e6:.2f} us; 1.0 on a quiet machine, 5 at most are wanted"


def test_every_metric_of_the_table_is_served_by_its_agents_and_by_no_other(meter_of, base):
    meters = {role: meter_of(role) for role in ("fused", "judge", "healing", "policy")}
    everything = given.vitals(tasks=(given.task("model/0", 1),), drift=(given.drift("age", 0.1),))
    meters["judge"].turn("judge", 0, 0.001, outputs(everything))
    agents = ("ingestion", "feature", "model", "decision", "monitoring", "healing", "policy")
    for offset, agent in enumerate(agents):
        families = {family.name for family in text_string_to_metric_families(given.scrape(base + offset))}
        assert families == {metric.name.removesuffix("_total") for metric in METRICS if agent in metric.agents}
