"""A real Prometheus watches a house that is hurt, asks a person and heals: every expression of ours finds data."""

from __future__ import annotations

import json
import math
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
from tests.processes.house import Running
from tests.support import promql
from tests.support.services import service
from tests.unit.metrics.given import free_base
from tools import make_infra

from mendstream.adapters.metrics.table import AGENTS

pytestmark = [pytest.mark.processes, pytest.mark.services, pytest.mark.timeout(300)]

PIPELINE = "flights"


class Prometheus:
    """What may be asked of a server."""

    def __init__(self, url):
        self._url = url

    def get(self, path, **params):
        with urlopen(f"{self._url}/api/v1/{path}?{urlencode(params)}", timeout=10) as answer:
            return json.loads(answer.read())["data"]

    def values(self, expr):
        """Of an expression now, NaN left out: that is no data."""
        found = [float(row["value"][1]) for row in self.get("query", query=expr)["result"]]
        return [value for value in found if not math.isnan(value)]


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    asks = {"SAFE_MODE_ON": "ask"}
    root = tmp_path_factory.mktemp("observed")
    with Running(root, metrics__enabled=True, metrics__base_port=free_base(), policy__modes=asks) as running:
        yield running


@pytest.fixture(scope="module")
def prometheus(house, tmp_path_factory):
    """On the files that are generated for this house; it only looks more often."""
    folder = tmp_path_factory.mktemp("infra")
    made = make_infra.files(house.settings, PIPELINE)
    quick = made["prometheus.yml"].replace("_interval: 5s", "_interval: 1s").replace("_interval: 15s", "_interval: 1s")
    assert quick.count("_interval: 1s") == 2
    make_infra.write({**made, "prometheus.yml": quick}, folder)
    with service("prometheus", config=folder / "prometheus.yml") as running:
        yield Prometheus(running.url)


@pytest.fixture(scope="module")
def unanswered(house, prometheus):
    """Expressions that have given no number, from before an incident until after it."""
    folders = make_infra.OUT / "rules", make_infra.OUT / "grafana" / "dashboards"
    asked = {*promql.of_rules(folders[0]), *promql.of_dashboards(folders[1])}
    assert len(asked) > 100
    left = set(asked)

    def ask():
        left.difference_update([row for row in left if prometheus.values(row.expr)])
        return not left

    house.warm_up()
    case = house.incident(house.hurt("slow-model"), "LATENCY_SLO_BREACH")
    house.until(lambda: case.phase == "ASKED", why="a person is asked")
    waits = lambda: prometheus.values("mendstream_approvals_waiting") == [1.0]  # noqa: E731
    house.until(waits, 20, why="Prometheus knows that a remedy waits")
    ask()
    house.told("approve", case.id, "--reason", "go ahead")
    assert house.ended(case).resolved
    house.hurt("slow-model", on=False)
    try:
        house.until(ask, 60, why="every expression gives a number")
    except AssertionError:
        return left
    return left


def test_every_expression_of_rules_and_dashboards_has_data(unanswered):
    assert sorted(unanswered) == []


def test_what_nobody_serves_has_no_data(prometheus):
    assert prometheus.values("mendstream_no_such_metric") == []
    assert prometheus.values("vector(0) / 0") == []


def test_all_agents_answer_under_their_own_names(house, prometheus, unanswered):
    targets = prometheus.get("targets")["activeTargets"]
    assert {row["labels"]["agent"]: row["health"] for row in targets} == dict.fromkeys(AGENTS, "up")
    assert {row["labels"]["pipeline"] for row in targets} == {PIPELINE}
    served = prometheus.get("query", query="events_processed_total")["result"]
    assert {row["metric"]["agent"] for row in served} == set(AGENTS)
    assert prometheus.get("query", query='{exported_agent!=""}')["result"] == []


def test_the_variable_of_the_dashboards_finds_the_pipeline(prometheus, unanswered):
    assert prometheus.get("label/pipeline/values", **{"match[]": "mendstream_build_info"}) == [PIPELINE]


def test_the_rules_are_evaluated_without_a_failure(prometheus, unanswered):
    rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == len(promql.rules(make_infra.OUT / "rules"))
    assert {rule["name"]: rule["lastError"] for rule in rules if rule.get("lastError")} == {}


def test_the_metrics_tell_the_incident_as_the_log_does(house, prometheus, unanswered):
    def value(expr):
        (found,) = prometheus.values(expr)
        return found

    assert value('mendstream_incidents_total{type="LATENCY_SLO_BREACH"}') >= 1
    assert value('mendstream_incidents_ended_total{type="LATENCY_SLO_BREACH", outcome="mitigated"}') >= 1
    assert value('mendstream_actions_total{action="SAFE_MODE_ON", result="SUCCESS"}') >= 1
    assert value('mendstream_guard_rails_total{policy="mode-ask"}') >= 1
    assert value("mendstream_approval_wait_seconds_count") >= 1
    assert value('sum(mendstream_events_served_total{arm="fallback"})') > 100
    assert value("mendstream_config_version") >= 1
    assert value("mendstream_action_budget_left") < house.settings.healing.actions_per_hour + 1


def test_what_is_open_is_known_again_after_healing_was_killed(house, prometheus, unanswered):
    house.until(house.calm, 120)
    case = house.incident(house.hurt("slow-model"), "LATENCY_SLO_BREACH")
    house.until(lambda: case.phase == "ASKED", why="a person is asked")
    before = house.shown("healing-0")["generation"]
    house.kill("healing-0")
    house.until(lambda: house.shown("healing-0")["generation"] > before, why="healing is started again")
    steps = len(case.steps)
    again = 'mendstream_incidents_open{status="MITIGATING"} and on () (mendstream_approvals_waiting == 1)'
    fresh = "processing_latency_seconds_count{agent='healing'} < 100"
    house.until(lambda: prometheus.values(f"({again}) and on () ({fresh})") == [1.0], 30, why="shown as open")
    assert len(case.steps) == steps, "it was not a new step that told it"
    house.told("deny", case.id, "--reason", "enough")
