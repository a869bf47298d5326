"""The forwarder's pages: `/` for people, /status, /events and /metrics for programs."""

from __future__ import annotations

import queue

from failover.chronicle import Reader
from failover.page import PAGE, SCRIPT
from failover.service import Forwarder
from plumbing.address import Address
from plumbing.http import EventStream, HttpRequest, HttpResponse, HttpServer, Routes

BACKLOG = 5_000  # events a slow reader may be behind before it loses some


class Admin:
    """Serves on threads of its own; reads everything through the forwarder's `sip` thread."""

    def __init__(self, address: Address, forwarder: Forwarder) -> None:
        self._forwarder = forwarder
        routes: Routes = {
            ("GET", "/"): lambda _: HttpResponse.html(PAGE),
            ("GET", "/page.js"): lambda _: HttpResponse.text(SCRIPT, "text/javascript; charset=utf-8"),
            ("GET", "/status"): lambda _: HttpResponse.json(forwarder.status()),
            ("GET", "/metrics"): lambda _: HttpResponse.text(forwarder.metrics(), "text/plain; version=0.0.4"),
            ("GET", "/events"): self._events,
        }
        self._server = HttpServer(address, routes, "admin")

    def start(self) -> None:
        """Raises OSError naming the address."""
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    @property
    def address(self) -> Address:
        return self._server.address

    def _events(self, request: HttpRequest) -> EventStream:
        reader: Reader = queue.Queue(BACKLOG)
        self._forwarder.subscribe(reader)
        return EventStream(reader, on_close=lambda: self._forwarder.unsubscribe(reader))
