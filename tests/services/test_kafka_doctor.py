"""`mendstream doctor` on Kafka: what is wrong is told with the command that mends it, and the command is run."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shlex
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from tests.support.services import require, temporary_folder
from tools.services import kafka as kafka_service
from tools.services.kafka import QUICK, tool
from tools.services.running import Owner, free_ports
from tools.services.running import run as ran

from mendstream.cli import main
from mendstream.cli.work.findings import Sign

pytestmark = [pytest.mark.services, pytest.mark.timeout(180)]

TOOLS = {"kafka-acls.sh": "org.apache.kafka.tools.AclCommand", "kafka-topics.sh": "org.apache.kafka.tools.TopicCommand"}
_numbers = itertools.count()


class Doctor:
    """`mendstream doctor --json` and other verbs, in this process."""

    def __init__(self, capsys):
        self.prefix = f"doctor-{os.getpid()}-{next(_numbers)}"
        self._capsys = capsys

    def say(self, *args):
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([*args, "--json", "--set", f"run.namespace={self.prefix}", "--set", "metrics.enabled=false"])
        return ended.value.code, self._capsys.readouterr().out

    def examine(self, address, *args):
        """(exit code, check -> signs)"""
        code, out = self.say("doctor", "--bus", f"kafka://{address}", *args)
        signs = [Sign(**sign) for sign in json.loads(out)]
        return code, {sign.check: [s for s in signs if s.check == sign.check] for sign in signs}

    def create(self, address):
        assert self.say("topics", "create", "--bus", f"kafka://{address}")[0] == 0


@pytest.fixture
def doctor(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "MLFLOW_TRACKING_URI", "DB_HOST"):
        monkeypatch.delenv(name, raising=False)
    return Doctor(capsys)


def test_a_broker_that_has_everything_is_well(doctor, kafka):
    doctor.create(kafka.address)
    code, signs = doctor.examine(kafka.address)
    assert code == 0
    assert {check: [s.state for s in signs[check]] for check in ("broker", "topics", "rights", "clock")} == {
        "broker": ["ok"], "topics": ["ok"], "rights": ["ok"], "clock": ["ok"],
    }  # fmt: skip
    assert "consumer" in signs["broker"][0].what


def test_the_topic_for_comparing_clocks_is_gone_afterwards(doctor, kafka):
    doctor.examine(kafka.address)
    listed = ran(tool(kafka.folder, TOOLS["kafka-topics.sh"], "--bootstrap-server", kafka.address, "--list"))
    assert not [name for name in listed.split() if name.startswith(f"{doctor.prefix}.doctor")]


def test_missing_topics_are_no_failure_and_have_their_command(doctor, kafka):
    code, signs = doctor.examine(kafka.address)
    (sign,) = signs["topics"]
    assert (code, sign.state, sign.fix) == (0, "warn", "mendstream topics create")
    assert sign.what.startswith("23 of 23 are missing")


def test_a_wrong_number_of_partitions_is_a_failure(doctor, kafka):
    doctor.create(kafka.address)
    code, signs = doctor.examine(kafka.address, "--set", "run.partitions=2")
    assert code == 1
    assert {s.state for s in signs["topics"]} == {"fail"}
    assert any(s.fix.endswith("mendstream run --partitions 1") for s in signs["topics"])


def test_more_copies_than_brokers_are_a_failure(doctor, kafka):
    code, signs = doctor.examine(kafka.address, "--set", "bus.replication=3")
    assert code == 1
    assert (signs["broker"][0].state, signs["broker"][0].fix) == ("fail", "--set bus.replication=1")


def test_a_broker_that_is_not_there_ends_the_questions_to_it(doctor):
    code, signs = doctor.examine("127.0.0.1:1")
    assert code == 1
    assert signs["broker"][0].state == "fail"
    assert "scripts/services up kafka" in signs["broker"][0].fix
    assert not {"topics", "rights", "clock"} & signs.keys()
    assert "store" in signs


def test_a_topic_of_the_source_that_is_missing_is_told(doctor, kafka):
    name = f"{doctor.prefix}-in"
    source = ("--set", f"ingestion.source=kafka:{name}")
    code, signs = doctor.examine(kafka.address, *source)
    (sign,) = signs["source"]
    assert (code, sign.state) == (1, "fail")
    words = shlex.split(sign.fix)
    ran(tool(kafka.folder, TOOLS[words[0]], *words[1:]))
    assert doctor.examine(kafka.address, *source)[1]["source"][0].state == "ok"


# --- rights ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded():
    """(broker, the address where users show their password): there, who is not named by an ACL may do nothing."""
    require("kafka")
    with temporary_folder("kafka") as folder:
        port, controller, sasl = free_ports(folder, "broker", "controller", "sasl")
        open_, closed = f"PLAINTEXT://127.0.0.1:{port}", f"SASL_PLAINTEXT://127.0.0.1:{sasl}"
        properties = {
            "listeners": f"{open_},{closed},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"{open_},{closed}",
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl_plaintext.plain.sasl.jaas.config":
                'org.apache.kafka.common.security.plain.PlainLoginModule required user_ada="swordfish";',
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        }  # fmt: skip
        broker = kafka_service.start(folder, properties=properties, jvm=QUICK, owner=Owner.me(temporary=folder))
        try:
            yield broker, f"127.0.0.1:{sasl}"
        finally:
            broker.stop()


@pytest.fixture
def ada(tmp_path, monkeypatch):
    """Her credentials, by reference."""
    (tmp_path / "mendstream.toml").write_text(
        '[bus.client]\n"security.protocol" = "SASL_PLAINTEXT"\n"sasl.mechanism" = "PLAIN"\n'
        '"sasl.username" = "ada"\n"sasl.password" = "env:KAFKA_PASSWORD"\n'
    )
    monkeypatch.setenv("KAFKA_PASSWORD", "swordfish")


def test_rights_that_are_lacking_are_told_with_the_commands_that_give_them(doctor, guarded, ada, tmp_path):
    broker, address = guarded
    settings = tmp_path / "mendstream.toml"
    hers = settings.read_text()
    settings.write_text("")
    doctor.create(broker.address)
    settings.write_text(hers)

    code, signs = doctor.examine(address)
    lacking = signs["rights"]
    assert code == 1
    assert {s.state for s in lacking} == {"fail"}
    assert [word for s in lacking for word in ("--topic", "--group", "--transactional-id") if word in s.fix] == [
        "--topic", "--group", "--transactional-id",
    ]  # fmt: skip
    for sign in lacking:
        words = shlex.split(sign.fix.replace(address, broker.address))
        ran(tool(broker.folder, TOOLS[words[0]], *words[1:]))

    code, signs = doctor.examine(address)
    assert "rights" in signs, signs["broker"]
    assert (code, [s.state for s in signs["rights"]], signs["topics"][0].state) == (0, ["ok"], "ok")
    assert (signs["clock"][0].state, signs["clock"][0].what[:12]) == ("warn", "not compared")


def test_a_wrong_password_is_told_as_such(doctor, guarded, ada, monkeypatch):
    monkeypatch.setenv("KAFKA_PASSWORD", "sordfish")
    code, signs = doctor.examine(guarded[1])
    assert code == 1
    assert "credentials" in signs["broker"][0].what
    assert "sordfish" not in str(signs)


# --- registry --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def answering(status, body):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            """No line per request."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "state", "what"), [(200, "ok", "MLflow 3.5.0"), (500, "fail", "MLflow answers 500")]
)
def test_the_registry_says_its_version_or_what_is_wrong(doctor, kafka, status, state, what):
    with answering(status, b"3.5.0") as url:
        _, signs = doctor.examine(kafka.address, "--set", f"models.mlflow_uri={url}")
    assert (signs["registry"][0].state, signs["registry"][0].what[: len(what)]) == (state, what)


def test_a_registry_that_is_away_is_told(doctor, kafka):
    code, signs = doctor.examine(kafka.address, "--set", "models.mlflow_uri=http://127.0.0.1:1")
    assert (code, signs["registry"][0].state) == (1, "fail")
    assert "models.mlflow_uri" in signs["registry"][0].fix
