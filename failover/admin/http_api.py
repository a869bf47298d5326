"""The forwarder's HTTP server: a page for people at `/`, its data at /status, /failovers, /events
and /metrics, and three commands: POST /servers/NAME/drain, disable and enable."""

from __future__ import annotations

import logging
import pkgutil
import queue

from failover.admin.event_log import Subscriber
from failover.forwarder import Forwarder
from failover.upstream.server_table import AdminState
from plumbing.address import Address
from plumbing.http_request_parser import HttpRequest
from plumbing.http_server import HttpResponse, HttpServer, Routes

log = logging.getLogger("forwarder")
MAX_EVENTS_BEHIND = 5_000  # a reader of /events that is slower loses some
COMMANDS = {
    "enable": AdminState.ENABLED,
    "drain": AdminState.DRAINING,
    "disable": AdminState.DISABLED,
}
PROMETHEUS_TEXT = "text/plain; version=0.0.4"


class Admin:
    """Serves on threads of its own; reads everything through the forwarder's `sip` thread."""

    def __init__(self, address: Address, forwarder: Forwarder) -> None:
        """Raises OSError naming the address."""
        self._forwarder = forwarder
        page = _file("page.html", "text/html")
        style, script = _file("page.css", "text/css"), _file("page.js", "text/javascript")
        routes: Routes = {
            ("GET", "/"): lambda _: page,
            ("GET", "/page.css"): lambda _: style,
            ("GET", "/page.js"): lambda _: script,
            ("GET", "/status"): lambda _: HttpResponse.json(forwarder.status()),
            ("GET", "/failovers"): lambda _: HttpResponse.json(forwarder.failovers()),
            ("GET", "/metrics"): lambda _: HttpResponse.text(forwarder.metrics(), PROMETHEUS_TEXT),
            ("GET", "/events"): self._events,
            ("POST", "/servers/*"): self._command,
        }
        self._server = HttpServer(address, routes, "admin")

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    @property
    def address(self) -> Address:
        return self._server.address

    def _events(self, request: HttpRequest) -> HttpResponse:
        subscriber: Subscriber = queue.Queue(MAX_EVENTS_BEHIND)
        self._forwarder.subscribe(subscriber, request.query.get("text") == "1")
        return HttpResponse.events(subscriber, lambda: self._forwarder.unsubscribe(subscriber))

    def _command(self, request: HttpRequest) -> HttpResponse:
        """POST /servers/NAME/COMMAND. plumbing.http_server has refused the pages of other sites."""
        name, _, command = request.rest.rpartition("/")
        if command not in COMMANDS:
            error = f"'{command}' is none of {', '.join(sorted(COMMANDS))}"
            return HttpResponse.json({"error": error}, 404)
        try:
            self._forwarder.set_admin_state(name, COMMANDS[command])
        except KeyError:
            return HttpResponse.json({"error": f"there is no server '{name}'"}, 404)
        log.warning("asked to %s %s, over HTTP", command, name)
        return HttpResponse.json({"server": name, "wish": COMMANDS[command].value})


def _file(name: str, content_type: str) -> HttpResponse:
    """A file beside this one, which may be inside a zip archive (forwarder.pyz)."""
    data = pkgutil.get_data(__package__, name)
    assert data is not None
    return HttpResponse(200, f"{content_type}; charset=utf-8", data)
