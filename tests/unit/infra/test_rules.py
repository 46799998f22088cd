"""promtool and amtool read our files, and the alerts fire when they should and not when they should not."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.services import require
from tools import make_infra
from tools.services import alertmanager, prometheus
from tools.services.running import run

from mendstream.settings import Settings

pytestmark = [pytest.mark.services, pytest.mark.slow]

CASES = Path(__file__).with_name("alerts.yml")


@pytest.fixture
def promtool():
    require("prometheus")
    return lambda *args: run([prometheus.program("promtool"), *args])


@pytest.fixture
def amtool():
    require("alertmanager")
    return lambda *args: run([alertmanager.program("amtool"), *args])


def test_alerts_fire_when_they_should_and_only_then(promtool):
    promtool("test", "rules", CASES)


@pytest.mark.parametrize(
    ("given", "planted"),
    [("ratio_rate1h > 0.72", "ratio_rate1h > 0.99"), ("for: 10m", "for: 9h"), ("_ratio < 0.75", "_ratio < 0.1")],
)
def test_a_wrong_rule_is_noticed(promtool, tmp_path, given, planted):
    made = make_infra.files(Settings())
    assert given in made["rules/alerts.yml"]
    make_infra.write({**made, "rules/alerts.yml": made["rules/alerts.yml"].replace(given, planted)}, tmp_path)
    cases = tmp_path / "alerts.yml"
    cases.write_text(CASES.read_text(encoding="utf-8").replace("../../../infra/", ""), encoding="utf-8")
    with pytest.raises(Exception, match="FAILED"):
        promtool("test", "rules", cases)


def test_prometheus_takes_the_configuration_and_the_rules(promtool):
    assert "2 rule files found" in promtool("check", "config", make_infra.OUT / "prometheus.yml")


def test_alertmanager_takes_its_configuration(amtool):
    assert "3 inhibit rules" in amtool("check-config", make_infra.OUT / "alertmanager.yml")
