"""Real services as fixtures: started on first use, one a session, gone with the session however that ends.

Where a service cannot be started its tests are skipped, and the summary says what is missing and how to get it; with
CI=true in the environment they fail. A test that takes one of these fixtures is marked `services` by itself.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from tools.services.kafka import QUICK
from tools.services.running import Owner
from tools.services.table import SERVICES

FIXTURES = {"kafka", "postgres", "mlflow_server", "prometheus", "alertmanager"}

_NOT_RUN = "not run: "
_OPEN_TO_OTHERS = 0o755


@pytest.fixture(scope="session")
def kafka():
    """A broker. It is everybody's: a test prefixes its topics and groups with a name of its own."""
    with service("kafka", jvm=QUICK) as running:
        yield running


@pytest.fixture(scope="session")
def postgres():
    """A server; its `url` has the superuser. It is everybody's: a test creates a database of its own."""
    with service("postgres") as running:
        yield running


@pytest.fixture(scope="session")
def mlflow_server():
    """A server on SQLite. It is everybody's: a test names its experiments and models."""
    with service("mlflow") as running:
        yield running


@pytest.fixture(scope="session")
def prometheus():
    """A server that watches itself; for another configuration: `with service("prometheus", config=...)`."""
    with service("prometheus") as running:
        yield running


@pytest.fixture(scope="session")
def alertmanager():
    """A server that tells nobody; for another configuration: `with service("alertmanager", config=...)`."""
    with service("alertmanager") as running:
        yield running


@contextlib.contextmanager
def service(name, **options):
    """A service of one's own, for a test that hurts it or wants it otherwise: `with service("kafka") as broker:`."""
    require(name)
    with temporary_folder(name) as folder:
        running = SERVICES[name].start(folder, owner=Owner.me(temporary=folder), **options)
        try:
            yield running
        finally:
            running.stop()


def require(name):
    """End the test if the service is missing: as a failure in CI, which has them all, else as a skip."""
    flaw = SERVICES[name].missing()
    if flaw and os.environ.get("CI") == "true":
        pytest.fail(f"{_NOT_RUN}{name}, because {flaw}", pytrace=False)
    if flaw:
        pytest.skip(f"{_NOT_RUN}{name}, because {flaw}")


@contextlib.contextmanager
def temporary_folder(name):
    """Directly under the system's folder: pytest's own lets no other user in, and PostgreSQL does not run as root."""
    folder = Path(tempfile.mkdtemp(prefix=f"mendstream-{name}-"))
    folder.chmod(_OPEN_TO_OTHERS)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses by the marks
def pytest_collection_modifyitems(items):
    for item in items:
        if FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.services)


def pytest_terminal_summary(terminalreporter):
    """What was not run for want of a service, whatever the options say about skips."""
    reasons = [
        str(report.longrepr[2]).partition(_NOT_RUN)
        for report in terminalreporter.stats.get("skipped", ())
        if isinstance(report.longrepr, tuple)
    ]
    counts = Counter(reason for _, found, reason in reasons if found)
    if counts:
        terminalreporter.section("not run", yellow=True, bold=True)
        for reason, count in counts.items():
            tests = "1 test" if count == 1 else f"{count} tests"
            terminalreporter.line(f"{_NOT_RUN}{reason} ({tests})", yellow=True)
