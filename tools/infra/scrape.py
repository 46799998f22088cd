"""The table of agents in; whom Prometheus asks, and whom its Alertmanager tells, out."""

from __future__ import annotations

import json

from mendstream.adapters.metrics.table import AGENTS
from mendstream.settings.groups import Metrics

LOCAL, COMPOSE, HOST = "localhost", "mendstream", "host.docker.internal"
"""Where the agents are: on Prometheus's own machine; in docker-compose.yml's service; on the machine around that."""
PIPELINE = "mendstream"
"""The label of all series of one house; name your own in the targets file."""

PROMETHEUS = """\
global:
  scrape_interval: 5s # an incident may be over in three
  evaluation_interval: 15s

rule_files:
  - rules/*.yml

# Who is asked stands in files, which are read again when they change: targets/ for agents and Prometheus on one
# machine; targets/compose/ and targets/host/ for docker-compose.yml, with the agents inside of it and outside.
scrape_configs:
  - job_name: mendstream
    # The agents name themselves, and the judge speaks of all stages: its `agent` must not become `exported_agent`.
    honor_labels: true
    file_sd_configs:
      - files: [targets/house.json]

alerting:
  alertmanagers:
    - file_sd_configs:
        - files: [targets/alertmanager.json]
"""

ALERTMANAGER = """\
route:
  receiver: people
  group_by: [pipeline, alertname]
  group_wait: 10s
  group_interval: 1m
  repeat_interval: 4h
  routes:
    - matchers: ['severity = "page"']
      receiver: people
      repeat_interval: 30m

# Put your own receiver here (mail, chat, pager): this one posts Alertmanager's JSON to whoever listens.
receivers:
  - name: people
    webhook_configs:
      - url: http://localhost:9094/alerts
        send_resolved: true

inhibit_rules:
  # Without a healer everything stays open: tell of the healer alone.
  - source_matchers: ['alertname = "HealerDown"']
    target_matchers: ['alertname =~ "IncidentOpenTooLong|ApprovalWaiting|LagGrowing"']
    equal: [pipeline]
  - source_matchers: ['alertname = "LatencyBudgetBurnsFast"']
    target_matchers: ['alertname = "LatencyBudgetBurnsSlowly"']
    equal: [pipeline]
  # What waits before a silent stage says nothing new.
  - source_matchers: ['alertname = "StageSilent"']
    target_matchers: ['alertname = "LagGrowing"']
    equal: [pipeline]
"""


def house_targets(host: str, pipeline: str = PIPELINE, base_port: int = Metrics().base_port) -> str:
    """One target an agent, as Prometheus's `file_sd_configs` read them."""
    return _json(
        [
            {"targets": [f"{host}:{base_port + n}"], "labels": {"pipeline": pipeline, "agent": agent}}
            for n, agent in enumerate(AGENTS)
        ]
    )


def alertmanager_targets(host: str) -> str:
    return _json([{"targets": [f"{host}:9093"]}])


def _json(targets: list[dict[str, object]]) -> str:
    return json.dumps(targets, indent=2) + "\n"
