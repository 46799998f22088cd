"""`mendstream topics create|check` on a real broker; the commands that it prints are run, and the finding is gone."""

from __future__ import annotations

import itertools
import json
import os
import subprocess

import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from tools.services.kafka import tool
from tools.services.running import ROOT
from tools.services.running import run as ran

from mendstream.cli import main
from mendstream.contracts.topics import TOPICS
from mendstream.runtime.roster import tasks_by_agent

pytestmark = [pytest.mark.services, pytest.mark.timeout(120)]

TOOLS = {
    "kafka-topics.sh": "org.apache.kafka.tools.TopicCommand",
    "kafka-configs.sh": "kafka.admin.ConfigCommand",
}
ALL = {str(spec.topic) for spec in TOPICS} | {f"{agent}-state" for agent in tasks_by_agent(1)}
_numbers = itertools.count()


class Verbs:
    """`mendstream topics ...` in this process, under a prefix of the test's own."""

    def __init__(self, broker, capsys):
        self.broker = broker
        self.prefix = f"topics-{os.getpid()}-{next(_numbers)}"
        self._capsys = capsys

    def __call__(self, verb, *args):
        """(exit code, what it says with --json)"""
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["topics", verb, "--json", "--bus", f"kafka://{self.broker.address}", "--set",
                  f"run.namespace={self.prefix}", *args])  # fmt: skip
        return ended.value.code, json.loads(self._capsys.readouterr().out)

    def wrong(self, *args):
        code, told = self("check", *args)
        assert code == bool(told["wrong"])
        return {w["topic"].removeprefix(f"{self.prefix}."): w for w in told["wrong"]}

    def make(self, topic, partitions, **config):
        admin = AdminClient({"bootstrap.servers": self.broker.address})
        name = f"{self.prefix}.{topic}"
        admin.create_topics([NewTopic(name, partitions, 1, config=config)])[name].result(20)
        return name

    def partitions(self, topic):
        admin = AdminClient({"bootstrap.servers": self.broker.address})
        return len(admin.list_topics(timeout=10).topics[f"{self.prefix}.{topic}"].partitions)

    def mend(self, fix):
        """Run a command of Kafka's distribution that was printed."""
        name, *arguments = fix.partition(", or ")[0].partition(" && ")[0].split()
        ran(tool(self.broker.folder, TOOLS[name], *arguments))


@pytest.fixture
def verbs(kafka, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    return Verbs(kafka, capsys)


def test_every_topic_of_the_table_is_made_once_with_those_that_keep_state(verbs):
    assert set(verbs.wrong()) == ALL
    assert {w["fix"] for w in verbs.wrong().values()} == {"mendstream topics create"}
    code, told = verbs("create", "--partitions", "3")
    assert (code, told["wrong"]) == (0, [])
    assert {name.removeprefix(f"{verbs.prefix}.") for name in told["made"]} == ALL
    assert verbs("create", "--partitions", "3")[1]["made"] == []
    assert (verbs.partitions("decisions"), verbs.partitions("incident-log")) == (3, 1)


def test_too_few_partitions_are_told_with_the_command_that_adds_them(verbs):
    verbs("create")
    wrong = verbs.wrong("--partitions", "2")
    assert {"raw-events", "decisions", "feature-state"} <= set(wrong)
    assert not {"incident-log", "ingestion-state", "judge-state"} & set(wrong)
    assert wrong["decisions"]["problem"] == "has 1 partition, not 2"
    assert wrong["decisions"]["fix"].endswith(", or mendstream run --partitions 1")
    verbs.mend(wrong["decisions"]["fix"])
    assert set(wrong) - set(verbs.wrong("--partitions", "2")) == {"decisions"}


def test_too_many_partitions_cannot_be_taken_away(verbs):
    verbs("create", "--partitions", "2")
    assert verbs.wrong("--partitions", "1")["features"]["fix"] == "mendstream run --partitions 2"
    assert "feature-state" not in verbs.wrong("--partitions", "1")


def test_a_control_topic_with_too_many_partitions_has_to_be_made_anew(verbs):
    name = verbs.make("incident-log", 3)
    code, told = verbs("create")
    assert code == 1
    (fix,) = [w["fix"] for w in told["wrong"] if "partitions" in w["problem"]]
    verbs.mend(fix)
    code, told = verbs("create")
    assert (code, told["made"], told["wrong"]) == (0, [name], [])


def test_settings_of_a_topic_that_differ_are_told_with_the_command_that_sets_them(verbs):
    name = verbs.make("healing-state", 1, **{"cleanup.policy": "delete"})
    code, told = verbs("create")
    (wrong,) = told["wrong"]
    assert (code, wrong["topic"]) == (1, name)
    assert "cleanup.policy is delete, not compact" in wrong["problem"]
    verbs.mend(wrong["fix"])
    assert verbs.wrong() == {}


def test_a_broker_that_is_not_there_is_an_error_and_not_a_finding(verbs, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["topics", "check", "--bus", "kafka://127.0.0.1:1"])
    assert ended.value.code == 3
    assert "does not answer" in capsys.readouterr().err


def test_kafkas_own_script_makes_topics_that_check_finds_well(verbs, tmp_path):
    """The script is for who has a broker and not yet us: it knows of no state topics."""
    script = tmp_path / "kafka-topics.sh"
    command = tool(verbs.broker.folder, TOOLS["kafka-topics.sh"])
    script.write_text("#!/bin/sh\nexec " + " ".join(f"'{word}'" for word in command) + ' "$@"\n')
    script.chmod(0o755)
    env = {**os.environ, "KAFKA_TOPICS": str(script), "BOOTSTRAP": verbs.broker.address, "NAMESPACE": verbs.prefix}
    said = subprocess.run([ROOT / "infra" / "kafka-topics.sh"], env=env, capture_output=True, text=True, timeout=110)
    assert said.returncode == 0, said.stdout + said.stderr
    assert set(verbs.wrong()) == {name for name in ALL if name.endswith("-state")}
