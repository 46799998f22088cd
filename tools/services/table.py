"""Every service by its name, in the order in which they are started."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from tools.services import alertmanager, kafka, mlflow, postgres, prometheus
from tools.services.running import Owner, Running


class Service(Protocol):
    """What each module of a service has."""

    @property
    def NAME(self) -> str: ...  # noqa: N802  a constant of the module

    def missing(self) -> str | None: ...

    def install(self) -> None: ...

    def serves(self, url: str) -> None: ...

    def start(self, folder: Path, *, owner: Owner | None = None) -> Running: ...


SERVICES: Mapping[str, Service] = {
    service.NAME: service for service in (kafka, postgres, mlflow, prometheus, alertmanager)
}
