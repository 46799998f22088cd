"""Apache Kafka: one broker in KRaft mode, run from its jars. Needs Java 17; Maven fetches the jars."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from tools.services import debian
from tools.services.running import CACHE, HOST, Command, Owner, Running, ServiceError, free_ports, run

NAME = "kafka"
VERSION = "4.3.0"
HOME = "KAFKA_HOME"
"""The environment variable that names a Kafka of the user's: a folder with its `libs`, or with its archive."""

QUICK = ("-XX:TieredStopAtLevel=1",)
"""A JVM that does not optimise starts with 60 % of the work: for tests, and never for a benchmark."""

_SCHEME = "kafka://"
_JRE = ("default-jre-headless", "openjdk@17")  # 17 on Debian 12, newer since
_POM = Path(__file__).with_name("pom.xml")
_JARS = CACHE / "kafka" / VERSION
_JVM = ("-Xms1g", "-Xmx1g", "-Xmn400m", "-XX:+UseSerialGC", "-Djava.awt.headless=true")
"""Kafka's own default heap, of which memory is what was touched. With a young part of 40 MB the broker stands still for
12 ms three times a second; with its default G1, on two cores that others use too, for up to 75 ms."""


def missing() -> str | None:
    """What is missing and how to get it, or None."""
    if flaw := _java_flaw():
        return flaw
    if not _jars_in(_libs()):
        return f"Kafka's jars are missing; fetch them with: scripts/services install {NAME}"
    return None


def install() -> None:
    """Fetch the jars: from the user's archive if there is one, else with Maven."""
    if _java_flaw():
        debian.install(*_JRE, why="Java 17 or newer")
    if _jars_in(_libs()):
        return
    if archive := _archive():
        _unpack(archive)
    else:
        _fetch()


def start(
    folder: Path, *, properties: Mapping[str, str] | None = None, jvm: tuple[str, ...] = (), owner: Owner | None = None
) -> Running:
    """A broker on `folder`, new or as it was left; `properties` are put over ours, `jvm` options behind ours."""
    if flaw := missing():
        raise ServiceError(flaw)
    folder.mkdir(parents=True, exist_ok=True)
    port, controller = free_ports(folder, "broker", "controller")
    told = _properties(folder, port, controller) | dict(properties or {})
    path = folder / "server.properties"
    path.write_text("".join(f"{key}={value}\n" for key, value in told.items()))
    (folder / "log4j2.yaml").write_text(_LOG4J)
    if not (folder / "data" / "meta.properties").exists():
        format_it = ("kafka.tools.StorageTool", "format", "--standalone", "-t", _cluster_id(), "-c", str(path))
        run(_java(folder, *QUICK, *format_it))
    command = Command(argv=_java(folder, *jvm, "kafka.Kafka", str(path)), folder=folder)
    return Running(NAME, port, f"{_SCHEME}{HOST}:{port}", command, serves, owner)


def tool(folder: Path, main: str, *arguments: str) -> tuple[str, ...]:
    """The command line of one of Kafka's own tools, such as `org.apache.kafka.tools.ConsoleConsumer`."""
    return _java(folder, *QUICK, main, *arguments)


def serves(url: str) -> None:
    """A port that answers is not a broker that serves: the transaction coordinator has to, for one."""
    from confluent_kafka import Producer

    told = {
        "bootstrap.servers": url.removeprefix(_SCHEME),
        "transactional.id": "is-it-serving",
        "log_level": 0,
        "reconnect.backoff.max.ms": 100,  # 10 s by default: the probe would see it late
    }
    Producer(told).init_transactions(5.0)


def _properties(folder: Path, port: int, controller: int) -> dict[str, str]:
    listener, quorum = f"PLAINTEXT://{HOST}:{port}", f"{HOST}:{controller}"
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.bootstrap.servers": quorum,
        "listeners": f"{listener},CONTROLLER://{quorum}",
        "advertised.listeners": listener,
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL,"
        "SASL_PLAINTEXT:SASL_PLAINTEXT",
        "log.dirs": str(folder / "data"),
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        # A killed broker's successor is refused for this long, 9 s by default; a JVM takes longer than 2 s to begin.
        "broker.session.timeout.ms": "2000",
        "broker.heartbeat.interval.ms": "500",
        "auto.create.topics.enable": "false",
    }


def _java(folder: Path, *arguments: str) -> tuple[str, ...]:
    log = f"-Dlog4j2.configurationFile={folder / 'log4j2.yaml'}"
    return (_java_path() or "java", *_JVM, log, "-cp", f"{_libs()}/*", *arguments)


def _libs() -> Path:
    home = os.environ.get(HOME)
    return Path(home) / "libs" if home and not _archive() else _JARS


def _jars_in(libs: Path) -> bool:
    return any(libs.glob("kafka_2.13-*.jar"))


def _archive() -> Path | None:
    home = os.environ.get(HOME)
    return max(Path(home).glob("kafka_2.13-*.tgz"), default=None) if home else None


def _unpack(archive: Path) -> None:
    with _new_folder() as part:
        with tarfile.open(archive) as packed:
            packed.extractall(part, filter="data")
        (libs,) = part.glob("*/libs")
        libs.rename(_JARS)


def _fetch() -> None:
    if shutil.which("mvn") is None:
        debian.install("maven", "maven", why="Maven")
    with _new_folder() as part:
        options = (f"-Dkafka.version={VERSION}", f"-DoutputDirectory={part / 'libs'}", "-DincludeScope=runtime")
        run(("mvn", "-q", "-B", "-f", _POM, "dependency:copy-dependencies", *options))
        (part / "libs").rename(_JARS)


@contextmanager
def _new_folder() -> Iterator[Path]:
    """Beside the jars, so that they appear by a rename: all of them or none."""
    _JARS.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_JARS.parent) as name:
        yield Path(name)


def _java_path() -> str | None:
    home = os.environ.get("JAVA_HOME")
    return str(Path(home) / "bin" / "java") if home else shutil.which("java")


def _java_flaw() -> str | None:
    path = _java_path()
    version = _java_version(path) if path else None
    if version is not None and version >= 17:
        return None
    found = f"{path} is version {version}" if version is not None else "there is no Java"
    return f"Java 17 is missing ({found}); install it with: {debian.command(*_JRE)}"


def _java_version(path: str) -> int | None:
    try:
        said = subprocess.run([path, "-version"], capture_output=True, text=True, check=False).stderr
    except OSError:
        return None
    found = re.search(r'version "(?:1\.)?(\d+)', said)
    return int(found[1]) if found else None


def _cluster_id() -> str:
    """One that begins with a letter: a dash would be taken for an option."""
    first, *rest = uuid4().bytes
    return urlsafe_b64encode(bytes([first & 0x7F, *rest])).decode().rstrip("=")


_LOG4J = """\
Configuration:
  Appenders:
    Console:
      name: out
      PatternLayout:
        pattern: "[%d] %p %m (%c)%n"
  Loggers:
    Root:
      level: WARN
      AppenderRef:
        ref: out
"""
