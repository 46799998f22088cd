"""Settings in; the recording and the alerting rules of Prometheus out.

The latency objective is the brief's: 95 % of the decisions within `slo.latency_ms`. Its budget burns in several windows
at once, as in the SRE workbook: the long window says that it matters, the short one that it still goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mendstream.adapters.metrics.table import AGENTS
from mendstream.contracts.agent import STAGES
from mendstream.settings import Settings

OBJECTIVE = 0.95
"""Share of the decisions that have to be in time: `slo.latency_ms` is a limit of the p95."""
BUDGET = 1 - OBJECTIVE
WINDOWS = ("5m", "30m", "1h", "6h", "3d")
FAST = (("1h", "5m", 14.4), ("6h", "30m", 6.0))
"""(long window, short window, times the allowed pace): 2 % of 30 days' budget in an hour, 5 % in six."""
SLOW = (("3d", "6h", 1.0),)
"""All of it in 30 days."""
SILENT_S = 30
"""The brief's limit of a missing heartbeat."""
OPEN_S = 600
"""Ten times what the slowest of the brief's scenarios takes."""
LAG_S = 30
ASKED_S = 300
"""A person is reminded after so long, or sooner where the wait itself is short (`healing.person_timeout_s`)."""
WATCHERS = tuple(agent for agent in AGENTS if agent not in STAGES)
"""The agents without which nobody heals."""
BUDGET_POLICIES = ("ask-hourly-budget", "restart-storm")
PAGE = "docs/how-to/alerts.md"
"""What `runbook_url` leads to; a path in this repository, which your own site may stand for."""

_BY_AGENT = 'label_replace({metric}, "agent", "$1", "task", "(.*)/.*")'


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A rule that computes a series once, for alerts and dashboards."""

    name: str
    expr: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRule:
    """A condition that wants a person."""

    name: str
    expr: str
    hold: str
    """How long it has to last."""
    severity: Literal["page", "ticket"]
    """page: now; ticket: today."""
    summary: str
    description: str

    @property
    def runbook(self) -> str:
        """The place in our docs, as GitHub names its anchor."""
        return f"{PAGE}#{self.name.lower()}"


def recorded() -> tuple[Recorded, ...]:
    slow = tuple(Recorded(name=f"pipeline:mendstream_slow:ratio_rate{w}", expr=_slow(w)) for w in WINDOWS)
    return (*slow, *_PIPELINE, *_AGENTS)


def _slow(window: str) -> str:
    return (
        f'sum by (pipeline) (rate(mendstream_events_slow_total{{arm!="shadow"}}[{window}]))\n'
        f'/ sum by (pipeline) (rate(mendstream_events_served_total{{arm!="shadow"}}[{window}]))'
    )


_PIPELINE = (
    Recorded(
        name="pipeline:mendstream_events_served:rate5m",
        expr='sum by (pipeline) (rate(mendstream_events_served_total{arm!="shadow"}[5m]))',
    ),
    Recorded(
        name="pipeline:mendstream_labels_wrong:ratio_rate1h",
        expr='sum by (pipeline) (rate(mendstream_labels_wrong_total{arm!="shadow"}[1h]))\n'
        '/ sum by (pipeline) (rate(mendstream_labels_total{arm!="shadow"}[1h]))',
    ),
)
_AGENTS = (
    Recorded(
        name="agent:events_processed:rate5m",
        expr="sum by (pipeline, agent) (rate(events_processed_total[5m]))",
    ),
    Recorded(
        name="agent:errors:rate5m",
        expr="sum by (pipeline, agent) (rate(errors_total[5m]))",
    ),
    Recorded(
        name="agent:processing_latency_seconds:p95_5m",
        expr="histogram_quantile(0.95, sum by (pipeline, agent, le) (rate(processing_latency_seconds_bucket[5m])))",
    ),
    Recorded(
        name="agent:mendstream_lag:records",
        expr=f"sum by (pipeline, agent) ({_BY_AGENT.format(metric='mendstream_consumer_lag_records')})",
    ),
    Recorded(
        name="agent:mendstream_lag:seconds",
        expr="agent:mendstream_lag:records / agent:events_processed:rate5m",
    ),
    Recorded(
        name="agent:mendstream_heartbeat_age:seconds",
        expr="time() - min by (pipeline, agent) "
        f"({_BY_AGENT.format(metric='mendstream_stage_last_heartbeat_timestamp_seconds')})",
    ),
)


def alerts(settings: Settings) -> tuple[AlertRule, ...]:
    return (*_of_the_pipeline(settings), *_of_the_healer(settings))


def _of_the_pipeline(settings: Settings) -> tuple[AlertRule, ...]:
    slo = settings.slo
    stages = "|".join(STAGES)
    objective = f"{OBJECTIVE:.0%} of the decisions within {slo.latency_ms:g} ms"
    return (
        AlertRule(
            name="LatencyBudgetBurnsFast", expr=_burn(FAST), hold="2m", severity="page",
            summary="{{ $labels.pipeline }}: decisions come late, and the budget of a month is going in days",
            description=f"Promised: {objective}. {{{{ $value | humanizePercentage }}}} of the newest are later, and"
            " healing has not mended it.",
        ),
        AlertRule(
            name="LatencyBudgetBurnsSlowly", expr=_burn(SLOW), hold="15m", severity="ticket",
            summary="{{ $labels.pipeline }}: more decisions come late than a month's budget has room for",
            description=f"Promised: {objective}. {{{{ $value | humanizePercentage }}}} have been later for hours.",
        ),
        AlertRule(
            name="StageSilent", hold="1m", severity="page",
            expr=f"agent:mendstream_heartbeat_age:seconds > {SILENT_S}\n"
            f'or (agent:events_processed:rate5m{{agent=~"{stages}"}} == 0 and agent:mendstream_lag:records > 0)',
            summary="{{ $labels.pipeline }}: the {{ $labels.agent }} stage gives no sign of life or does no work",
            description="It was not brought back within a minute: look at what healing does about it.",
        ),
        AlertRule(
            name="LagGrowing", hold="5m", severity="ticket",
            expr=f"agent:mendstream_lag:seconds > {LAG_S} and deriv(agent:mendstream_lag:records[5m]) > 0",
            summary="{{ $labels.pipeline }}: {{ $labels.agent }} falls behind",
            description="What waits for it is {{ $value | humanizeDuration }} of its work, and more every minute.",
        ),
        AlertRule(
            name="AccuracyLow", expr=f"mendstream_model_accuracy_ratio < {slo.accuracy:g}", hold="5m", severity="page",
            summary="{{ $labels.pipeline }}: model {{ $labels.version }} is right too seldom",
            description=f"Promised: {slo.accuracy:g}. It is {{{{ $value | humanizePercentage }}}} of the newest labels,"
            " and neither rollback nor retraining has mended it.",
        ),
        AlertRule(
            name="DriftHigh", expr="mendstream_feature_drift_score > mendstream_feature_drift_limit", hold="10m",
            severity="ticket",
            summary="{{ $labels.pipeline }}: {{ $labels.feature }} is not what the live model was trained on",
            description="Its PSI is {{ $value | humanize }}, above the limit for a window of this size.",
        ),
    )  # fmt: skip


def _of_the_healer(settings: Settings) -> tuple[AlertRule, ...]:
    asked_s = min(ASKED_S, settings.healing.person_timeout_s // 4)
    watchers, budgets = "|".join(WATCHERS), "|".join(BUDGET_POLICIES)
    return (
        AlertRule(
            name="HealerDown", hold="1m", severity="page",
            expr=f'up{{job="mendstream", agent=~"{watchers}"}} == 0\n'
            f'or rate(processing_latency_seconds_count{{agent=~"{watchers}"}}[2m]) == 0',
            summary="{{ $labels.pipeline }}: the {{ $labels.agent }} agent is down or stuck: nobody heals",
            description="The supervisor starts it again by itself. That this lasts means that the supervisor is gone,"
            " has given up, or that the agent does not get to work.",
        ),
        AlertRule(
            name="IncidentOpenTooLong", hold="1m", severity="page",
            expr=f"time() - mendstream_incident_oldest_timestamp_seconds > {OPEN_S}",
            summary="{{ $labels.pipeline }}: an incident has been open for {{ $value | humanizeDuration }}",
            description="Healing tries its ladder, rung by rung, and has not proved a cure.",
        ),
        AlertRule(
            name="IncidentEscalated", expr="mendstream_incidents_escalated > 0", hold="1m", severity="page",
            summary="{{ $labels.pipeline }}: healing is at its wits' end",
            description="{{ $value }} incident(s) without a rung left: a person has to mend and close them.",
        ),
        AlertRule(
            name="ApprovalWaiting", hold="0m", severity="ticket",
            expr=f"time() - mendstream_approval_oldest_timestamp_seconds > {asked_s}",
            summary="{{ $labels.pipeline }}: a remedy has waited {{ $value | humanizeDuration }} for a person",
            description=f"It expires {settings.healing.person_timeout_s} s after it was proposed.",
        ),
        AlertRule(
            name="ActionFailed", hold="0m", severity="ticket",
            expr='sum by (pipeline, action) (increase(mendstream_actions_total{result="FAIL"}[15m])) > 0',
            summary="{{ $labels.pipeline }}: {{ $labels.action }} was not done, or did not help",
            description="It was taken back where that is possible, and the next rung is tried.",
        ),
        AlertRule(
            name="BudgetExhausted", hold="0m", severity="page",
            expr=f'sum by (pipeline, policy) (increase(mendstream_guard_rails_total{{policy=~"{budgets}"}}[15m])) > 0',
            summary="{{ $labels.pipeline }}: the budget of remedies is spent ({{ $labels.policy }})",
            description="Healing has acted so often that it may not go on by itself: something keeps coming back.",
        ),
        AlertRule(
            name="IncidentRepeats", hold="0m", severity="ticket",
            expr="sum by (pipeline, type) (increase(mendstream_incidents_repeated_total[1h])) > 0",
            summary="{{ $labels.pipeline }}: {{ $labels.type }} came back within the hour",
            description="The remedy eases the symptom; the cause is still there.",
        ),
    )  # fmt: skip


def _burn(pairs: tuple[tuple[str, str, float], ...]) -> str:
    return "\nor ".join(
        f"(pipeline:mendstream_slow:ratio_rate{short} > {pace * BUDGET:g}"
        f" and pipeline:mendstream_slow:ratio_rate{long} > {pace * BUDGET:g})"
        for long, short, pace in pairs
    )


# --- as YAML ---------------------------------------------------------------------------------------------------------


def recording_file() -> str:
    lines = ["groups:", "  - name: mendstream-recorded", "    rules:"]
    for rule in recorded():
        lines += [f"      - record: {rule.name}", *_expr(rule.expr)]
    return "\n".join(lines) + "\n"


def alerts_file(settings: Settings) -> str:
    lines = ["groups:"]
    for group, rules in (("pipeline", _of_the_pipeline(settings)), ("healer", _of_the_healer(settings))):
        lines += [f"  - name: mendstream-{group}", "    rules:"]
        for rule in rules:
            lines += _alert(rule)
    return "\n".join(lines) + "\n"


def _alert(rule: AlertRule) -> Iterator[str]:
    yield f"      - alert: {rule.name}"
    yield from _expr(rule.expr)
    yield f"        for: {rule.hold}"
    yield "        labels:"
    yield f"          severity: {rule.severity}"
    yield "        annotations:"
    for name, text in (("summary", rule.summary), ("description", rule.description), ("runbook_url", rule.runbook)):
        yield f"          {name}: '{text.replace(chr(39), chr(39) * 2)}'"


def _expr(expr: str) -> Iterator[str]:
    yield "        expr: |-"
    yield from (f"          {line}" for line in expr.splitlines())
