"""A process's agents come in; each one's metrics are served on its own port. What cannot be served costs no event."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from typing import Protocol

import structlog

from mendstream.adapters.metrics.panel import Panel
from mendstream.adapters.metrics.server import Server
from mendstream.contracts.agent import Outputs
from mendstream.contracts.records import Record
from mendstream.settings.groups import Metrics

_LABELS = {"judge": "monitoring"}
"""The agents whose metrics bear another name than they do."""
_log = structlog.get_logger("metrics")


class Role(Protocol):
    """A row of the roster."""

    @property
    def name(self) -> str: ...
    @property
    def agents(self) -> tuple[str, ...]:
        """The agents that the process can run, in the order of their ports."""

    @property
    def port(self) -> int | None:
        """Offset of the first agent's port from the base port; None: the role serves no metrics."""


class Meter:
    """The metrics of one process. `turn` is told of each committed turn; `close` frees the ports."""

    def __init__(self, settings: Metrics, role: Role, partitions: int, replica: int) -> None:
        self._server = Server()
        self._panels: dict[str, Panel] = {}
        self._ports: dict[str, int] = {}
        for agent, port in _places(settings, role, partitions).items():
            self._panels[agent] = Panel(_LABELS.get(agent, agent))
            self._listen(agent, settings.host, port, replica)
        self._server.start()

    @property
    def ports(self) -> Mapping[str, int]:
        """agent -> port, of those that are served."""
        return self._ports

    def turn(self, agent: str, rows: int, seconds: float, outputs: Outputs) -> None:
        """One committed turn: how many rows came in, how long the step took, what it put out."""
        self._panels[agent].turn(rows, seconds, outputs)

    def recall(self, agent: str, records: Iterable[Record]) -> None:
        """What an earlier process of this agent put out, oldest first, before the first turn of this one."""
        self._panels[agent].recall(records)

    def lost_spans(self, spans: int) -> None:
        """So many did not reach the collector of traces; told by any thread."""
        next(iter(self._panels.values())).lost_spans(spans)

    def close(self) -> None:
        self._server.close()
        self._ports.clear()

    def _listen(self, agent: str, host: str, port: int, replica: int) -> None:
        try:
            self._server.add(host, port, self._panels[agent].registry)
        except OSError as error:
            _log.warning(
                f"the metrics of {agent} are not served: cannot listen on {host}:{port}",
                agent=agent, host=host, port=port, replica=replica, cause=str(error), hint=_hint(error, replica),
            )  # fmt: skip
        else:
            self._ports[agent] = port


def _places(settings: Metrics, role: Role, partitions: int) -> dict[str, int]:
    """agent -> port. With several partitions ingestion is not fused: its port is left to its own process."""
    if role.port is None:
        return {}
    first = settings.base_port + role.port
    ports = {agent: first + n for n, agent in enumerate(role.agents)}
    if len(ports) > 1 and partitions > 1:
        ports.pop("ingestion", None)
    return ports


def _hint(error: OSError, replica: int) -> str:
    if error.errno == errno.EACCES:
        return "the port needs privileges: set metrics.base_port to 1024 or above"
    if error.errno != errno.EADDRINUSE:
        return "set metrics.host to an address of this machine"
    if replica:
        return "replicas on one machine share a port, and the first one has it: events are processed all the same"
    return "another program has the port: stop it, or set metrics.base_port (or metrics.enabled = false)"
