"""The four dashboards as tables: what each panel asks Prometheus, and in which unit it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tools.infra.rules import BUDGET, OBJECTIVE, OPEN_S, SILENT_S

from mendstream.contracts.agent import STAGES
from mendstream.settings import Settings

IN = 'pipeline=~"$pipeline"'
"""Of the chosen pipelines only."""
_STAGES = "|".join(STAGES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    title: str
    doc: str
    queries: tuple[Query, ...]
    kind: Literal["timeseries", "stat", "bargauge", "table"] = "timeseries"
    unit: str = "short"
    width: int = 12
    """Of 24."""
    limit: float | None = None
    """Beyond it is bad; drawn as a line."""
    floor: bool = False
    """Bad is what lies below the limit."""
    maximum: float | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    """What values are called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    uid: str
    title: str
    doc: str
    panels: tuple[Panel, ...]


def q(expr: str, legend: str = "") -> Query:
    return Query(expr=expr, legend=legend)


def dashboards(settings: Settings) -> tuple[Dashboard, ...]:
    return (_fleet(), _pipeline(settings), _model(settings), _healing())


def _fleet() -> Dashboard:
    return Dashboard(
        uid="mendstream-fleet", title="mendstream / Fleet", doc="Who is there, who works, who is silent.",
        panels=(
            Panel(
                title="Agents up", kind="stat", width=6, maximum=1, unit="percentunit", limit=1, floor=True,
                doc="Share of the agents that answer Prometheus.",
                queries=(q(f'avg by (pipeline) (up{{job="mendstream", {IN}}})', "{{pipeline}}"),),
            ),
            Panel(
                title="Open incidents", kind="stat", width=6, limit=1, doc="What healing is at work on.",
                queries=(q(f"sum by (pipeline) (mendstream_incidents_open{{{IN}}})", "{{pipeline}}"),),
            ),
            Panel(
                title="Mode", kind="stat", width=6, limit=1, names={"0": "NORMAL", "1": "SAFE_MODE"},
                doc="SAFE_MODE: rules decide instead of the model.",
                queries=(q(f"max by (pipeline) (mendstream_mode{{{IN}}})", "{{pipeline}}"),),
            ),
            Panel(
                title="Decisions per second", kind="stat", width=6, unit="ops", doc="All partitions together.",
                queries=(q(f"pipeline:mendstream_events_served:rate5m{{{IN}}}", "{{pipeline}}"),),
            ),
            Panel(
                title="Rows per second", unit="ops", doc="Rows that each agent's committed turns took in.",
                queries=(
                    q(f"sum by (agent) (rate(events_processed_total{{{IN}}}[$__rate_interval]))", "{{agent}}"),
                ),
            ),
            Panel(
                title="Busy", unit="percentunit",
                doc="Share of the time that an agent is inside a step. At 100 % it is the bottleneck.",
                queries=(
                    q(f"sum by (agent) (rate(processing_latency_seconds_sum{{{IN}}}[$__rate_interval]))", "{{agent}}"),
                ),
            ),
            Panel(
                title="Length of a step, p95", unit="s", limit=0.3, doc="Whatever its number of rows.",
                queries=(q(f"agent:processing_latency_seconds:p95_5m{{{IN}}}", "{{agent}}"),),
            ),
            Panel(
                title="Dead letters per second", unit="ops", doc="Records that an agent could not use.",
                queries=(q(f"sum by (agent) (rate(errors_total{{{IN}}}[$__rate_interval]))", "{{agent}}"),),
            ),
            Panel(
                title="Pipeline tasks by state", doc="As the judge sees them.",
                queries=(q(f"sum by (state) (mendstream_tasks{{{IN}}})", "{{state}}"),),
            ),
            Panel(
                title="Age of the last heartbeat", unit="s", limit=SILENT_S, doc="Of the owner of each pipeline task.",
                queries=(
                    q(f"time() - mendstream_stage_last_heartbeat_timestamp_seconds{{{IN}}}", "{{task}}"),
                ),
            ),
            Panel(
                title="Spans dropped per second", unit="ops", width=24, doc="Traces that did not reach the collector.",
                queries=(
                    q(f"sum by (agent) (rate(mendstream_spans_dropped_total{{{IN}}}[$__rate_interval]))", "{{agent}}"),
                ),
            ),
            Panel(
                title="What runs", kind="table", width=24, doc="Versions of mendstream and of Python.",
                queries=(q(f"mendstream_build_info{{{IN}}}"),),
            ),
        ),
    )  # fmt: skip


def _pipeline(settings: Settings) -> Dashboard:
    limit_s = settings.slo.latency_ms / 1e3
    of_stages = f'agent=~"{_STAGES}", {IN}'
    return Dashboard(
        uid="mendstream-pipeline", title="mendstream / Pipeline",
        doc="Rate, errors, duration, lag; end to end against the objective.",
        panels=(
            Panel(
                title="Latency budget left", kind="stat", width=6, unit="percentunit", limit=0, floor=True, maximum=1,
                doc=f"Of three days: promised are {OBJECTIVE:.0%} within {settings.slo.latency_ms:g} ms.",
                queries=(q(f"1 - pipeline:mendstream_slow:ratio_rate3d{{{IN}}} / {BUDGET:g}", "{{pipeline}}"),),
            ),
            Panel(
                title="Burning", kind="stat", width=6, limit=1,
                doc="Times the pace at which a month's budget lasts a month; of the last hour.",
                queries=(q(f"pipeline:mendstream_slow:ratio_rate1h{{{IN}}} / {BUDGET:g}", "{{pipeline}}"),),
            ),
            Panel(
                title="Rows waiting", kind="stat", width=6, doc="At all stages.",
                queries=(q(f"sum by (pipeline) (mendstream_consumer_lag_records{{{IN}}})", "{{pipeline}}"),),
            ),
            Panel(
                title="Mode", kind="stat", width=6, limit=1, names={"0": "NORMAL", "1": "SAFE_MODE"},
                doc="SAFE_MODE: rules decide instead of the model.",
                queries=(q(f"max by (pipeline) (mendstream_mode{{{IN}}})", "{{pipeline}}"),),
            ),
            Panel(
                title="From acceptance to decision", unit="s", limit=limit_s,
                doc="In the newest pane of 250 ms; the line is the limit of the p95.",
                queries=(q(f"mendstream_event_latency_seconds{{{IN}}}", "{{pipeline}} p{{quantile}}"),),
            ),
            Panel(
                title="Share of late decisions", unit="percentunit", limit=BUDGET,
                doc="Of 5 minutes and of an hour; the line is what the objective has room for.",
                queries=(
                    q(f"pipeline:mendstream_slow:ratio_rate5m{{{IN}}}", "{{pipeline}} 5 min"),
                    q(f"pipeline:mendstream_slow:ratio_rate1h{{{IN}}}", "{{pipeline}} 1 h"),
                ),
            ),
            Panel(
                title="Rows per second by stage", unit="ops", doc="Where it falls, something waits.",
                queries=(
                    q(f"sum by (agent) (rate(events_processed_total{{{of_stages}}}[$__rate_interval]))", "{{agent}}"),
                ),
            ),
            Panel(
                title="Decisions per second by arm", unit="ops",
                doc="live: the model. fallback: the rules of SAFE_MODE. shadow: scored beside, decides nothing.",
                queries=(
                    q(f"sum by (arm) (rate(mendstream_events_served_total{{{IN}}}[$__rate_interval]))", "{{arm}}"),
                ),
            ),
            Panel(
                title="Rows waiting by task", doc="At its inputs.",
                queries=(q(f"mendstream_consumer_lag_records{{{IN}}}", "{{task}}"),),
            ),
            Panel(
                title="Lag in seconds by stage", unit="s", doc="What waits, at the pace of the last 5 minutes.",
                queries=(q(f"agent:mendstream_lag:seconds{{{IN}}}", "{{agent}}"),),
            ),
            Panel(
                title="Length of a step, p95, by stage", unit="s", doc="Whatever its number of rows.",
                queries=(q(f"agent:processing_latency_seconds:p95_5m{{{of_stages}}}", "{{agent}}"),),
            ),
            Panel(
                title="Dead letters per second by stage", unit="ops", doc="Records that could not be used.",
                queries=(q(f"agent:errors:rate5m{{{of_stages}}}", "{{agent}}"),),
            ),
        ),
    )  # fmt: skip


def _model(settings: Settings) -> Dashboard:
    return Dashboard(
        uid="mendstream-model", title="mendstream / Model and data",
        doc="How right the model is, and whether the data is still what it was trained on.",
        panels=(
            Panel(
                title="Accuracy of the live model", kind="stat", width=6, unit="percentunit", maximum=1,
                limit=settings.slo.accuracy, floor=True, doc="Of the newest labels.",
                queries=(q(f"mendstream_model_accuracy_ratio{{{IN}}}", "{{version}}"),),
            ),
            Panel(
                title="Age of the newest label", kind="stat", width=6, unit="s",
                doc="Without labels nobody can tell how right the model is.",
                queries=(q(f"time() - mendstream_label_newest_timestamp_seconds{{{IN}}}", "{{pipeline}}"),),
            ),
            Panel(
                title="Features beyond their limit", kind="stat", width=6, limit=1,
                doc="Whose PSI is above the limit for the window's size.",
                queries=(
                    q(
                        f"sum by (pipeline) (mendstream_feature_drift_score{{{IN}}}"
                        f" > bool mendstream_feature_drift_limit{{{IN}}})", "{{pipeline}}",
                    ),
                ),
            ),
            Panel(
                title="Version of the live config", kind="stat", width=6, doc="It grows with every change.",
                queries=(q(f"max by (pipeline) (mendstream_config_version{{{IN}}})", "{{pipeline}}"),),
            ),
            Panel(
                title="Accuracy by version", unit="percentunit", limit=settings.slo.accuracy, floor=True, maximum=1,
                doc="Of the newest labels of whichever version is live.",
                queries=(q(f"mendstream_model_accuracy_ratio{{{IN}}}", "{{version}}"),),
            ),
            Panel(
                title="Share of wrong predictions by arm", unit="percentunit", maximum=1,
                doc="The shadow beside the live model: what a promotion would change.",
                queries=(
                    q(
                        f"sum by (arm) (rate(mendstream_labels_wrong_total{{{IN}}}[5m]))"
                        f" / sum by (arm) (rate(mendstream_labels_total{{{IN}}}[5m]))", "{{arm}}",
                    ),
                    q(f"pipeline:mendstream_labels_wrong:ratio_rate1h{{{IN}}}", "{{pipeline}} 1 h"),
                ),
            ),
            Panel(
                title="Share of predictions by arm", unit="percentunit", maximum=1, doc="Who decides.",
                queries=(
                    q(
                        f'sum by (arm) (rate(mendstream_events_served_total{{arm!="shadow", {IN}}}[$__rate_interval]))'
                        " / ignoring (arm) group_left ()"
                        f' sum (rate(mendstream_events_served_total{{arm!="shadow", {IN}}}[$__rate_interval]))',
                        "{{arm}}",
                    ),
                ),
            ),
            Panel(
                title="Labels per second", unit="ops", doc="That found their event.",
                queries=(q(f"sum by (arm) (rate(mendstream_labels_total{{{IN}}}[$__rate_interval]))", "{{arm}}"),),
            ),
            Panel(
                title="Drift by feature", doc="PSI against the reference of the live model.",
                queries=(q(f"mendstream_feature_drift_score{{{IN}}}", "{{feature}}"),),
            ),
            Panel(
                title="Drift as a share of its limit", unit="percentunit", limit=1,
                doc="The limit allows for the size of the window; beyond 100 % it is an alarm.",
                queries=(
                    q(
                        f"mendstream_feature_drift_score{{{IN}}} / mendstream_feature_drift_limit{{{IN}}}",
                        "{{feature}}",
                    ),
                ),
            ),
        ),
    )  # fmt: skip


def _healing() -> Dashboard:
    def in_range(metric: str, by: str) -> str:
        return f"sum by ({by}) (increase({metric}{{{IN}}}[$__range]))"

    def quantile(share: float, metric: str, by: str) -> str:
        return f"histogram_quantile({share:g}, {in_range(f'{metric}_bucket', by)})"

    resolution = "mendstream_incident_resolution_seconds"
    return Dashboard(
        uid="mendstream-healing", title="mendstream / Healing",
        doc="What went wrong, what was done about it, by whom, and whether it helped.",
        panels=(
            Panel(
                title="Oldest open incident", kind="stat", width=6, unit="s", limit=OPEN_S, doc="Its age.",
                queries=(q(f"time() - mendstream_incident_oldest_timestamp_seconds{{{IN}}}", "{{pipeline}}"),),
            ),
            Panel(
                title="Waiting for a person", kind="stat", width=6, limit=1,
                doc="Remedies to approve, and incidents to close.",
                queries=(
                    q(f"sum by (pipeline) (mendstream_approvals_waiting{{{IN}}})", "{{pipeline}}: to approve"),
                    q(f"sum by (pipeline) (mendstream_incidents_escalated{{{IN}}})", "{{pipeline}}: to close"),
                ),
            ),
            Panel(
                title="Longest wait for a person", kind="stat", width=6, unit="s", doc="Of those that wait now.",
                queries=(q(f"time() - mendstream_approval_oldest_timestamp_seconds{{{IN}}}", "{{pipeline}}"),),
            ),
            Panel(
                title="Budget left", kind="stat", width=6, limit=1, floor=True,
                doc="Remedies that may still be done within the hour; as of the newest verdict.",
                queries=(q(f"mendstream_action_budget_left{{{IN}}}", "{{pipeline}}"),),
            ),
            Panel(
                title="Open incidents", doc="OPEN: being planned. MITIGATING: a remedy is at work.",
                queries=(q(f"sum by (status) (mendstream_incidents_open{{{IN}}})", "{{status}}"),),
            ),
            Panel(
                title="Time to recover", unit="s", doc="From detection to RESOLVED with proof; in the chosen time.",
                queries=(
                    q(quantile(0.5, resolution, "type, le"), "{{type}} p50"),
                    q(quantile(0.95, resolution, "type, le"), "{{type}} p95"),
                ),
            ),
            Panel(
                title="Incidents", kind="bargauge", doc="Opened in the chosen time, by type.",
                queries=(q(in_range("mendstream_incidents_total", "type"), "{{type}}"),),
            ),
            Panel(
                title="Came back within an hour", kind="bargauge", doc="Same type and subject as one that had ended.",
                queries=(q(in_range("mendstream_incidents_repeated_total", "type"), "{{type}}"),),
            ),
            Panel(
                title="How incidents ended", kind="bargauge",
                doc="mitigated: by a remedy. recovered: by themselves. person: closed by one. unresolved: not healed.",
                queries=(q(in_range("mendstream_incidents_ended_total", "outcome"), "{{outcome}}"),),
            ),
            Panel(
                title="Alarms", kind="bargauge", doc="That began to fire; several may be of one incident.",
                queries=(q(in_range("mendstream_alerts_total", "kind"), "{{kind}}"),),
            ),
            Panel(
                title="Actions", kind="bargauge", doc="SUCCESS only if done and verified.",
                queries=(q(in_range("mendstream_actions_total", "action, result"), "{{action}} {{result}}"),),
            ),
            Panel(
                title="Undone", kind="bargauge", doc="Remedies that did not help, and were taken back.",
                queries=(q(in_range("mendstream_undos_total", "action, result"), "{{action}} {{result}}"),),
            ),
            Panel(
                title="Verdicts", kind="bargauge", doc="The AGL's answers to proposals.",
                queries=(q(in_range("mendstream_verdicts_total", "verdict"), "{{verdict}}"),),
            ),
            Panel(
                title="Guard rails", kind="bargauge", doc="Policies that denied, changed or asked.",
                queries=(q(in_range("mendstream_guard_rails_total", "policy"), "{{policy}}"),),
            ),
            Panel(
                title="Wait for a person", unit="s", doc="From asking to the answer; in the chosen time.",
                queries=(
                    q(quantile(0.5, "mendstream_approval_wait_seconds", "le"), "p50"),
                    q(quantile(0.95, "mendstream_approval_wait_seconds", "le"), "p95"),
                ),
            ),
            Panel(
                title="Asked", doc="Remedies that wait for a person.",
                queries=(q(f"sum by (pipeline) (mendstream_approvals_waiting{{{IN}}})", "{{pipeline}}"),),
            ),
        ),
    )  # fmt: skip
