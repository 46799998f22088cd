"""What infra/ says of ports, topics, names and metrics is what the code says; generated files are fresh."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
import yaml
from tests.docs.pages import ROOT
from tests.docs.test_links import anchors
from tests.support import promql
from tools import make_infra
from tools.infra import rules, scrape

from mendstream.adapters.bus.kafka.client import Cluster
from mendstream.adapters.bus.kafka.topics import wanted
from mendstream.adapters.metrics.table import AGENTS, METRICS
from mendstream.contracts.topics import TOPICS
from mendstream.settings import Settings, load
from mendstream.settings.sources import BRIEF_NAMES

INFRA = make_infra.OUT
COMPOSE = yaml.safe_load((INFRA / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES = COMPOSE["services"]
BOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((INFRA / "grafana" / "dashboards").glob("*.json"))}
EXPRESSIONS = [*promql.of_rules(INFRA / "rules"), *promql.of_dashboards(INFRA / "grafana" / "dashboards")]
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_WORDS = {"avg", "sum", "min", "max", "by", "rate", "increase", "changes", "deriv", "time", "on", "ignoring",
          "group_left", "label_replace", "histogram_quantile", "bool", "up"}  # fmt: skip


def names_in(expr):
    """Metrics and recorded series that an expression asks for."""
    bare = re.sub(r'"[^"]*"|\[[^\]]*\]|\{[^}]*\}', "", expr)
    bare = re.sub(r"\b(?:by|ignoring|on|group_left) \([^)]*\)", "", bare)
    return {name for name in _NAME.findall(bare) if name not in _WORDS}


# --- generated -------------------------------------------------------------------------------------------------------


def test_generated_files_are_fresh():
    assert make_infra.stale_files(make_infra.files(Settings())) == [], "`make infra` writes them again"


def test_a_stale_file_is_noticed_and_a_stray_one_removed(tmp_path):
    made = make_infra.files(Settings())
    make_infra.write(made, tmp_path)
    (tmp_path / "rules" / "alerts.yml").write_text("groups: []\n")
    (tmp_path / "rules" / "old.yml").write_text("")
    assert make_infra.stale_files(made, tmp_path) == ["rules/alerts.yml", "rules/old.yml"]
    make_infra.write(made, tmp_path)
    assert make_infra.stale_files(made, tmp_path) == []


def test_rules_and_dashboards_take_the_limits_of_the_settings_that_they_are_made_for():
    other = load(env={}, dotenv=None, overrides={
        "slo.latency_ms": 500.0, "slo.accuracy": 0.9, "healing.person_timeout_s": 120, "metrics.base_port": 9100,
    }).settings  # fmt: skip
    made = make_infra.files(other, "payments")
    alerts = made["rules/alerts.yml"]
    assert "within 500 ms" in alerts
    assert "mendstream_model_accuracy_ratio < 0.9\n" in alerts
    assert "mendstream_approval_oldest_timestamp_seconds > 30\n" in alerts
    assert '"localhost:9106"' in made["targets/house.json"]
    assert '"payments"' in made["targets/house.json"]
    board = json.loads(made["grafana/dashboards/mendstream-pipeline.json"])
    panel = next(panel for panel in board["panels"] if panel["title"] == "From acceptance to decision")
    assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"][-1]["value"] == 0.5


# --- metrics ---------------------------------------------------------------------------------------------------------


def test_expressions_name_metrics_that_exist_and_every_metric_is_looked_at():
    served = {f"{m.name}{end}" for m in METRICS for end in ("", *(("_bucket", "_sum", "_count") if m.buckets else ()))}
    made = {rule.name for rule in rules.recorded()}
    asked = {name for row in EXPRESSIONS for name in names_in(row.expr)}
    assert asked - served - made == set()
    looked_at = {metric.name for metric in METRICS if any(name.startswith(metric.name) for name in asked)}
    assert {metric.name for metric in METRICS} - looked_at == set()


def test_every_recorded_series_is_used():
    used = {name for row in EXPRESSIONS if not row.where.endswith(", recorded") for name in names_in(row.expr)}
    assert {rule.name for rule in rules.recorded()} - used == set()


@pytest.mark.parametrize(
    ("condition", "parts"),
    [
        ("up == 0", ["up"]),
        ('rate(a{b="c > d"}[5m]) > 0.5', ['rate(a{b="c > d"}[5m])']),
        ("(a > 1 and b{x!=\"y\"} > 2)\nor (time() - c) > 3", ["a", 'b{x!="y"}', "time() - c"]),
        ("score > limit", ["score", "limit"]),
        ("sum by (x) (a) / sum(b) < 0.75", ["sum by (x) (a) / sum(b)"]),
    ],
)  # fmt: skip
def test_a_condition_is_asked_by_what_it_compares(condition, parts):
    assert promql.compared(condition) == parts


# --- alerts ----------------------------------------------------------------------------------------------------------

ALERTS = [rule for _, rule in promql.rules(INFRA / "rules") if "alert" in rule]
CASES = yaml.safe_load((ROOT / "tests" / "unit" / "infra" / "alerts.yml").read_text(encoding="utf-8"))["tests"]


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
class TestEachAlert:
    def test_has_a_page_that_says_what_it_means_what_to_look_at_and_what_to_do(self, rule):
        place, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        page = ROOT / place
        assert anchor in anchors(page)
        text = page.read_text(encoding="utf-8").split(f"## {rule['alert']}\n", 1)[1].split("\n## ", 1)[0]
        assert [word for word in ("**Means.**", "**Look.**", "**Do.**") if word not in text] == []

    def test_has_cases_in_which_it_fires_and_in_which_it_does_not(self, rule):
        asked = [test for case in CASES for test in case["promql_expr_test"] if f'"{rule["alert"]}"' in test["expr"]
                 or re.search(rf'alertname=~"[^"]*{rule["alert"]}', test["expr"])]  # fmt: skip
        firing = [test for test in asked if test["exp_samples"]]
        assert firing
        assert all(f'severity="{rule["labels"]["severity"]}"' in test["exp_samples"][0]["labels"] for test in firing)
        assert [test for test in asked if not test["exp_samples"]]


def test_the_page_of_alerts_has_none_that_does_not_exist():
    headings = re.findall(r"^## (\w+)$", (ROOT / rules.PAGE).read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == [rule["alert"] for rule in ALERTS]


def test_alertmanager_hushes_alerts_that_exist():
    config = yaml.safe_load((INFRA / "alertmanager.yml").read_text(encoding="utf-8"))
    named = {name for rule in config["inhibit_rules"] for side in rule.values() for matcher in side
             for name in re.findall(r"[A-Z]\w+", matcher)}  # fmt: skip
    assert named
    assert named <= {rule["alert"] for rule in ALERTS}


# --- Grafana ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
class TestEachDashboard:
    def test_has_a_fixed_uid_and_a_data_source_that_is_chosen_on_the_page(self, board):
        assert board["uid"] in BOARDS
        variable = board["templating"]["list"][1]
        targets = [target for panel in board["panels"] for target in panel["targets"]]
        asking = [*board["panels"], *targets, *board["annotations"]["list"], variable]
        assert {row["datasource"]["uid"] for row in asking} == {"${datasource}"}
        assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource", "pipeline"]
        assert board["editable"] is False

    def test_shows_the_chosen_pipelines_only(self, board):
        exprs = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
        assert [expr for expr in exprs if 'pipeline=~"$pipeline"' not in expr] == []

    def test_has_panels_that_lie_side_by_side_within_the_page(self, board):
        taken = set()
        for panel in board["panels"]:
            place = panel["gridPos"]
            cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                     for y in range(place["y"], place["y"] + place["h"])}  # fmt: skip
            assert not cells & taken, panel["title"]
            assert max(x for x, _ in cells) < 24
            taken |= cells
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])

    def test_explains_every_panel(self, board):
        assert all(panel["description"].endswith(".") for panel in board["panels"])


def test_there_are_the_four_dashboards():
    assert set(BOARDS) == {f"mendstream-{name}" for name in ("fleet", "pipeline", "model", "healing")}


# --- ports, names, topics --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "host"),
    [
        ("targets/house.json", scrape.LOCAL),
        ("targets/compose/house.json", "mendstream"),
        ("targets/host/house.json", "host.docker.internal"),
    ],
)
def test_every_agent_is_asked_on_its_own_port(file, host):
    rows = json.loads((INFRA / file).read_text())
    found = {row["labels"]["agent"]: row["targets"] for row in rows}
    assert found == {agent: [f"{host}:{8001 + n}"] for n, agent in enumerate(AGENTS)}


def published():
    """service -> ports of this machine"""
    found = {}
    for name, service in SERVICES.items():
        address, port, _ = service["ports"][0].split(":")
        assert address == "127.0.0.1", f"{name} is open to other machines"
        found[name] = port
    return found


def test_the_ports_are_the_ones_of_the_brief():
    assert published() == {
        "kafka": "29092", "postgres": "5432", "mlflow": "5000", "prometheus": "9090", "alertmanager": "9093",
        "grafana": "3001", "mendstream": "8001-8007",
    }  # fmt: skip


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_is_pinned_watched_and_started_again(name):
    service = SERVICES[name]
    assert re.search(r":v?\d+\.\d+(\.\d+)?$", service["image"])
    assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert service["restart"] == "unless-stopped"
    assert service["volumes"]


def test_volumes_and_files_that_services_name_exist():
    mounts = [mount.rsplit(":", 1)[0] if mount.endswith(":ro") else mount
              for service in SERVICES.values() for mount in service["volumes"]]  # fmt: skip
    sources = {re.sub(r"\$\{\w+:-(.*?)\}", r"\1", mount).split(":")[0] for mount in mounts}
    folders = {source for source in sources if source.startswith("./")}
    assert sources - folders == set(COMPOSE["volumes"])
    assert [source for source in folders if not (INFRA / source).exists()] == []


def test_the_agents_are_given_settings_that_exist_and_the_services_addresses():
    given = SERVICES["mendstream"]["environment"]
    env = {name: re.sub(r"\$\{\w+:-(.*?)\}", r"\1", str(value)) for name, value in given.items()}
    settings = load(env=env, dotenv=None).settings
    assert settings.bus.bootstrap_servers == "kafka:9092"
    assert settings.store.url == "postgresql://agentic_user@postgres:5432/agentic_db"
    assert settings.models.mlflow_uri == "http://mlflow:5000"
    assert settings.metrics.host == "0.0.0.0"
    assert settings.models.initial.endswith("site-packages/mendstream/demo/models")
    assert "INSIDE://kafka:9092" in SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert "OUTSIDE://localhost:29092" in SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]


def test_the_sample_environment_has_the_names_of_the_brief_and_leads_to_the_published_ports():
    lines = (INFRA / ".env.example").read_text(encoding="utf-8").splitlines()
    env = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert set(env) >= set(BRIEF_NAMES)
    settings = load(env={name: env[name] for name in BRIEF_NAMES}, dotenv=None).settings
    ports = published()
    assert settings.bus.bootstrap_servers == f"localhost:{ports['kafka']}"
    assert settings.store.url == f"postgresql://agentic_user@localhost:{ports['postgres']}/agentic_db"
    assert settings.models.mlflow_uri == f"http://localhost:{ports['mlflow']}"
    assert (env["GRAFANA_USER"], env["GRAFANA_PASSWORD"]) == ("admin", "admin")


def test_the_image_runs_as_nobody_special_on_a_pinned_python_that_we_support():
    text = (INFRA / "Dockerfile").read_text(encoding="utf-8")
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert set(bases) == {"python:3.13.12-slim-trixie"}
    last = text.rsplit("FROM ", 1)[1]
    assert re.search(r"^USER mendstream$", last, re.MULTILINE)
    assert "--require-hashes -r requirements.lock" in text
    copied = {name for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE) for name in line.split()}
    allowed = re.findall(r"^!(\S+)$", (INFRA / "Dockerfile.dockerignore").read_text(), re.MULTILINE)
    assert copied == set(allowed)
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.parametrize("namespace", ["", "payments"])
def test_the_topic_script_makes_the_topics_that_the_house_wants(tmp_path, namespace):
    tool = tmp_path / "kafka-topics.sh"
    tool.write_text('#!/bin/sh\necho "$@"\n')
    tool.chmod(0o755)
    env = {"KAFKA_TOPICS": str(tool), "PARTITIONS": "3", "NAMESPACE": namespace, "PATH": "/usr/bin:/bin"}
    said = subprocess.run([INFRA / "kafka-topics.sh"], env=env, capture_output=True, text=True, check=True, timeout=30)
    made = {}
    for line in said.stdout.splitlines():
        words = line.split()
        assert words[:4] == ["--bootstrap-server", "localhost:29092", "--create", "--if-not-exists"]
        name, partitions = words[words.index("--topic") + 1], words[words.index("--partitions") + 1]
        config = dict(words[n + 1].split("=") for n, word in enumerate(words) if word == "--config")
        made[name] = int(partitions), config
    topics = wanted(Cluster(servers="", namespace=namespace), 3)
    assert made == {topic.name: (topic.partitions, topic.config) for topic in topics}
    assert len(made) == len(TOPICS) == 15
