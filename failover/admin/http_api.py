"""The forwarder's pages: `/` for people, /status, /failovers, /events and /metrics for programs,
and three requests."""

from __future__ import annotations

import logging
import queue

from failover.admin.event_log import Reader
from failover.admin.page import PAGE, SCRIPT
from failover.forwarder import Forwarder
from failover.upstream.server_table import AdminState
from plumbing.address import Address
from plumbing.http_server import EventStream, HttpRequest, HttpResponse, HttpServer, Routes

log = logging.getLogger("forwarder")
BACKLOG = 5_000  # events a slow reader may be behind before it loses some
WISHES = {
    "enable": AdminState.ENABLED,
    "drain": AdminState.DRAINING,
    "disable": AdminState.DISABLED,
}


class Admin:
    """Serves on threads of its own; reads everything through the forwarder's `sip` thread."""

    def __init__(self, address: Address, forwarder: Forwarder) -> None:
        self._forwarder = forwarder
        routes: Routes = {
            ("GET", "/"): lambda _: HttpResponse.html(PAGE),
            ("GET", "/page.js"): lambda _: HttpResponse.text(
                SCRIPT, "text/javascript; charset=utf-8"
            ),
            ("GET", "/status"): lambda _: HttpResponse.json(forwarder.status()),
            ("GET", "/failovers"): lambda _: HttpResponse.json(forwarder.failovers()),
            ("GET", "/metrics"): lambda _: HttpResponse.text(
                forwarder.metrics(), "text/plain; version=0.0.4"
            ),
            ("GET", "/events"): self._events,
            ("POST", "/servers/*"): self._wish,
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

    def _wish(self, request: HttpRequest) -> HttpResponse:
        """POST /servers/NAME/drain, enable or disable. (plumbing.http_server has refused other
        sites' pages.)"""
        name, _, verb = request.rest.rpartition("/")
        if verb not in WISHES:
            return HttpResponse.json(
                {"error": f"'{verb}' is none of {', '.join(sorted(WISHES))}"}, 404
            )
        try:
            self._forwarder.wish(name, WISHES[verb])
        except KeyError:
            return HttpResponse.json({"error": f"there is no server '{name}'"}, 404)
        log.warning("asked to %s %s, over HTTP", verb, name)
        return HttpResponse.json({"server": name, "wish": WISHES[verb].value})
