"""The table of metrics keeps Prometheus's rules of naming."""

import re

import pytest

from mendstream.adapters.metrics import METRICS
from mendstream.adapters.metrics.table import AGENTS, KNOWN, NO_POLICY, OWN_POLICY, POLICIES
from mendstream.agents.policy import load_policies
from mendstream.agents.policy.policies import shipped

BASE_UNITS = ("seconds", "records", "ratio", "bytes", "total", "info", "score", "open", "mode",
              "left", "limit", "tasks", "version", "waiting", "escalated")  # fmt: skip
BRIEF = ("events_processed_total", "processing_latency_seconds", "errors_total")


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
class TestEachMetric:
    def test_has_a_valid_name_in_base_units(self, metric):
        assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", metric.name)
        assert metric.name.rsplit("_", 1)[1] in BASE_UNITS
        assert not re.search(r"_(ms|us|milliseconds|percent|count|sum|bucket|created)$", metric.name)

    def test_ends_in_total_exactly_if_it_is_a_counter(self, metric):
        assert metric.name.endswith("_total") == (metric.type == "counter")

    def test_has_a_help_text_valid_labels_and_agents_that_exist(self, metric):
        assert metric.help.endswith((".", ";"))
        assert all(re.fullmatch(r"[a-z][a-z0-9_]*", label) for label in metric.labels)
        assert not {"le", "job", "instance"} & set(metric.labels)
        assert metric.agents
        assert set(metric.agents) <= set(AGENTS)

    def test_has_ordered_buckets_exactly_if_it_is_a_histogram(self, metric):
        assert bool(metric.buckets) == (metric.type == "histogram")
        assert list(metric.buckets) == sorted(set(metric.buckets))

    def test_counts_by_closed_labels_only(self, metric):
        if metric.type != "gauge":
            assert set(metric.labels) <= {"agent", *KNOWN}

    def test_bears_our_prefix_unless_the_brief_names_it(self, metric):
        assert metric.name.startswith("mendstream_") or metric.name in BRIEF


def test_names_are_unique():
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_every_agent_serves_the_three_names_of_the_brief():
    assert all(metric.agents == AGENTS for metric in METRICS if metric.name in BRIEF)
    assert {metric.name for metric in METRICS} >= set(BRIEF)


def test_the_latency_limit_of_the_brief_is_the_edge_of_a_bucket():
    (latency,) = [metric for metric in METRICS if metric.name == "processing_latency_seconds"]
    assert 0.3 in latency.buckets


def test_the_policies_that_a_label_may_name_are_the_shipped_ones():
    assert set(POLICIES) - {OWN_POLICY, NO_POLICY} == set(load_policies(*shipped()).rules)
    assert not {OWN_POLICY, NO_POLICY} & set(load_policies(*shipped()).rules)
