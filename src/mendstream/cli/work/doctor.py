"""Settings in; one row a check out: ok, warn or fail, and the fix."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import resource
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

from mendstream.cli.options import Door
from mendstream.cli.show import document, table
from mendstream.cli.work.findings import Sign
from mendstream.contracts.errors import MendstreamError, NoAnswer
from mendstream.runtime.ground import cluster_of, embedded
from mendstream.settings import Settings, store_url

_PORTS = 7
"""Agents that serve metrics, from metrics.base_port on."""
_ROOM = 1 << 30
_FILES = 256
_ANSWER_S = 5.0


def examine(door: Door, *, as_json: bool) -> int:
    signs = [*_machine(), *_settings(door)]
    if as_json:
        document(signs)
    else:
        table(("check", "state", "what", "fix"), ((s.check, s.state, s.what, s.fix) for s in signs), empty="nothing")
    return 1 if any(sign.state == "fail" for sign in signs) else 0


def _machine() -> Iterator[Sign]:
    version = sys.version_info[:2]
    fine = (3, 11) <= version < (3, 14)
    yield Sign("python", "ok" if fine else "fail", platform.python_version(), "" if fine else "use 3.11, 3.12 or 3.13")
    missing = [
        name
        for requirement in metadata.requires("mendstream") or ()
        if not _there(name := re.split(r"[^\w.-]", requirement, maxsplit=1)[0])
    ]
    yield Sign("packages", "fail" if missing else "ok", f"missing: {', '.join(missing)}" if missing else "all there",
               "make setup" if missing else "")  # fmt: skip
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    few = soft != resource.RLIM_INFINITY and soft < _FILES
    yield Sign("open files", "warn" if few else "ok", f"limit {soft}", f"ulimit -n {_FILES}" if few else "")
    on_linux = sys.platform == "linux"
    fix = "" if on_linux else "after kill -9 of the supervisor itself, look for processes that were stopped then"
    yield Sign("system", "ok" if on_linux else "warn", platform.platform(terse=True), fix)


def _there(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _settings(door: Door) -> Iterator[Sign]:
    try:
        loaded = door.load()
    except MendstreamError as error:
        yield _failed("settings", error)
        return
    given = sum(origin != "default" for origin in loaded.origins.values())
    yield Sign("settings", "ok", f"{given} of {len(loaded.origins)} are set by you")
    yield from _data_dir(loaded.settings)
    yield from _ports(loaded.settings)
    yield from _brokers(loaded.settings)
    yield _schema(loaded.settings)
    yield _asked("models", lambda: _models(loaded.settings))
    if loaded.settings.models.mlflow_uri.startswith("http"):
        yield _registry(loaded.settings.models.mlflow_uri)
    yield _asked("policies", lambda: _policies(loaded.settings))


def _asked(check: str, call: Callable[[], str | None], well: str = "") -> Sign:
    try:
        return Sign(check, "ok", call() or well)
    except MendstreamError as error:
        return _failed(check, error)
    except OSError as error:
        return Sign(check, "fail", str(error), "mend its place or its rights")


def _failed(check: str, error: MendstreamError) -> Sign:
    return Sign(check, "fail", str(error), error.hint)


def _data_dir(settings: Settings) -> Iterator[Sign]:
    folder = Path(settings.run.data_dir).absolute()
    base = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=base) as scratch:
            os.mkfifo(Path(scratch) / "bell")
    except OSError as error:
        yield Sign("data directory", "fail", f"cannot make a FIFO in {base}: {error.strerror}",
                   "choose a writable one on a local disk with --data DIR")  # fmt: skip
        return
    yield Sign("data directory", "ok", str(folder) + ("" if folder.exists() else " (is made by the first run)"))
    free = shutil.disk_usage(base).free
    yield Sign("disk", "ok" if free > _ROOM else "warn", f"{free >> 20} MiB free",
               "" if free > _ROOM else "make room: the log stops when the disk is full")  # fmt: skip
    if embedded(settings) and (folder / "control").exists():
        yield _asked("log", lambda: _log(settings))


def _log(settings: Settings) -> str:
    from mendstream.cli.work.bus import live_config, opened

    with opened(settings) as bus:
        return f"incarnation {bus.incarnation}, config {live_config(bus).version}"


def _ports(settings: Settings) -> Iterator[Sign]:
    wanted = []
    if settings.metrics.enabled:
        wanted += [(settings.metrics.host, settings.metrics.base_port + n) for n in range(_PORTS)]
    if settings.ingestion.source == "http":
        wanted.append((settings.ingestion.http_host, settings.ingestion.http_port))
    taken = [f"{host}:{port}" for host, port in wanted if not _free(host, port)]
    what = f"taken: {', '.join(taken)}" if taken else f"{len(wanted)} are free"
    fix = "fine if the house runs now; else choose others with metrics.base_port, ingestion.http_port"
    yield Sign("ports", "warn" if taken else "ok", what, fix if taken else "")


def _free(host: str, port: int) -> bool:
    with contextlib.closing(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((host, port))
        except OSError:
            return False
    return True


def _brokers(settings: Settings) -> Iterator[Sign]:
    """Whatever of this house is on Kafka: its bus, its source, or both."""
    kind, _, source = settings.ingestion.source.partition(":")
    if embedded(settings) and kind != "kafka":
        return
    from mendstream.cli.work.brokers import bus_signs, source_sign
    from mendstream.cli.work.log import log_aside

    log_aside()
    try:
        if not embedded(settings):
            yield from bus_signs(cluster_of(settings), settings.run.partitions)
        if kind == "kafka":
            yield source_sign(settings, source)
    except NoAnswer as error:
        yield Sign("broker", "fail", str(error),
                   "start it, mend bus.bootstrap_servers, or try one of ours: scripts/services up kafka")  # fmt: skip
    except MendstreamError as error:
        yield _failed("broker", error)


def _schema(settings: Settings) -> Sign:
    from mendstream.adapters.store import schema

    try:
        found = schema.current(store_url(settings))
    except MendstreamError as error:
        return _failed("store", error)
    except OSError as error:
        return Sign("store", "fail", str(error), "mend its place or its rights")
    if found is None:
        return Sign("store", "ok", "no database yet (is made by the first run)")
    if found == schema.HEAD:
        return Sign("store", "ok", f"at {found}")
    return Sign("store", "warn", f"at {found}, and {schema.HEAD} is newest: the next run upgrades it",
                "mendstream db upgrade")  # fmt: skip


def _registry(uri: str) -> Sign:
    from urllib.error import HTTPError, URLError
    from urllib.request import urlopen

    mend = "is it running, and is models.mlflow_uri right? serving goes on without it, training waits"
    try:
        with urlopen(f"{uri.rstrip('/')}/version", timeout=_ANSWER_S) as answer:
            return Sign("registry", "ok", f"MLflow {answer.read(64).decode(errors='replace')}")
    except HTTPError as error:
        return Sign("registry", "fail", f"MLflow answers {error.code} ({error.reason})", "look at its own log")
    except (URLError, OSError) as error:
        return Sign("registry", "fail", f"MLflow does not answer: {getattr(error, 'reason', error)}", mend)


def _models(settings: Settings) -> str:
    from mendstream.cli.work.models import catalogue_of

    catalogue = catalogue_of(settings)
    for version in catalogue.versions():
        catalogue.model(version, catalogue.fetch(version).digest)
    return f"{len(catalogue.versions())} versions, every digest right"


def _policies(settings: Settings) -> str:
    from mendstream.agents.policy import load_policies
    from mendstream.cli.work.policy import texts_of

    texts, schema, where = texts_of(settings, None)
    return f"{len(load_policies(texts, schema).rules)} policies: {where or 'shipped'}"
