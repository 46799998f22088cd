"""Registries come in, one HTTP port each; a thread answers scrapes on all of them until `close`."""

from __future__ import annotations

import selectors
import socket
import sys
import threading
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, MetricsHandler

_SCRAPE_S = 10.0
"""A client that is silent for longer is cut off."""
_log = structlog.get_logger("metrics")


class _Handler(MetricsHandler):
    timeout = _SCRAPE_S


class _Port(ThreadingMixIn, TCPServer):
    """Not HTTPServer: that one asks the name service for its own name, and on Python 3.13 shares a taken port."""

    allow_reuse_address = True
    daemon_threads = True
    timeout = 0

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        self.address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        super().__init__((host, port), _Handler.factory(registry))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A scraper that hangs up is no matter; anything else is a bug, and not one that stops the pipeline."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            _log.exception("a scrape failed: a bug", client=str(client_address))


class Server:
    """One thread for all ports: it sleeps until somebody connects, and ends at once when told to."""

    def __init__(self) -> None:
        self._ports: list[_Port] = []
        self._thread: threading.Thread | None = None
        self._stop, self._stopped = socket.socketpair()

    def add(self, host: str, port: int, registry: CollectorRegistry) -> None:
        """Take a port; raises OSError if it cannot be had. Before `start`."""
        try:
            self._ports.append(_Port(host, port, registry))
        except UnicodeError as error:
            raise OSError(f"{host!r} is no host name") from error

    def start(self) -> None:
        if self._ports:
            self._thread = threading.Thread(target=self._serve, name="metrics", daemon=True)
            self._thread.start()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._stopped, selectors.EVENT_READ, None)
            for port in self._ports:
                selector.register(port, selectors.EVENT_READ, port)
            while True:
                for key, _ in selector.select():
                    if key.data is None:
                        return
                    key.data.handle_request()

    def close(self) -> None:
        """Let go of all ports; may be called again."""
        self._stop.close()
        if self._thread is not None:
            self._thread.join()
        self._stopped.close()
        for port in self._ports:
            port.server_close()
        self._ports.clear()
