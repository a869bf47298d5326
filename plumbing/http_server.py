"""Small web pages: status, metrics, bills. A thin layer over http.server with the guards a local
page needs.

A page on loopback is still reachable from the browser of whoever sits there, so a request that
changes something must be a POST of the same origin, and the Host header must name us (DNS
rebinding).
"""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import socket
import sys
import threading
import time
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import Any

from plumbing.address import Address, format_address
from plumbing.http_connections import Connections
from plumbing.http_messages import EventStream as EventStream
from plumbing.http_messages import Handler as Handler
from plumbing.http_messages import HttpRequest as HttpRequest
from plumbing.http_messages import HttpResponse as HttpResponse
from plumbing.http_messages import Routes as Routes
from plumbing.http_request_parser import MOST_FIELDS, MOST_OCTETS, BadRequest, Head, parse_head
from plumbing.throttled_log import ThrottledLog
from plumbing.udp_socket import family_of

log = logging.getLogger(__name__)

MAX_STREAMS = 16
STREAM = "text/event-stream"
MAX_CONNECTIONS = 64  # the threads of a page; a silent one gives way to the next that comes
KEEP_ALIVE = 5.0  # seconds between comments on a silent event stream
SILENCE = 10.0  # seconds a client may take for its whole request, or a piece of the answer
LINGER = 1.0  # seconds for which a refused client is read on, and not heard
NO_DESCRIPTORS = 0.2  # seconds until a connection is tried again that the system did not give us
EMPTY = (b"\r\n", b"\n")
CROWDED = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n"
    b"Retry-After: 1\r\nContent-Length: 0\r\n\r\n"
)

SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; style-src 'self' 'unsafe-inline'; "
    "script-src 'self'; connect-src 'self'; img-src 'self' data:; form-action 'self'; "
    "base-uri 'none'",
}


class HttpServer:
    """`routes` maps (method, path) to a handler; a path that ends in `/*` matches all below it.

    Handlers run on threads of their own (`NAME-…`) and must `ask` whoever owns what they read.
    `start()` returns when the port is bound and raises OSError naming the address.
    """

    def __init__(self, address: Address, routes: Routes, name: str) -> None:
        self._wanted, self._routes, self._name = address, routes, name
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        try:
            self._server = _Server(self._wanted, self._routes, self._name)
        except OSError as error:
            raise OSError(
                error.errno, f"{error.strerror or error} ({format_address(self._wanted)})"
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.1},
            name=self._name,
            daemon=True,
        )
        self._thread.start()

    def stop(self) -> None:
        """Ends open streams too; twice is fine."""
        if self._server and self._thread:
            self._server.end_streams()
            self._server.shutdown()
            self._thread.join()
            self._server.end_streams()  # of those who came meanwhile
            self._server.server_close()
            self._server = self._thread = None

    @property
    def address(self) -> Address:
        """Where it listens, with the port that a wish for port 0 was given."""
        if not self._server:
            return self._wanted
        host, port = self._server.server_address[:2]
        return str(host), int(port)


class _Server(ThreadingHTTPServer):
    """One thread accepts; each connection has one of its own, of which there are MAX_CONNECTIONS at
    most."""

    daemon_threads = True
    block_on_close = False  # it has no effect on daemon threads
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, address: Address, routes: Routes, name: str) -> None:
        self.routes, self.name = routes, name
        self.address_family = family_of(address[0])
        self.streams: set[EventStream] = set()
        self.connections = Connections()
        self.lock = threading.Lock()  # guards streams
        self.rare = ThrottledLog(log)
        super().__init__(address, _Handler)
        self.local_only = ip_address(str(self.server_address[0]).partition("%")[0]).is_loopback

    def server_bind(self) -> None:
        # HTTPServer's own looks up the host's name in DNS, which may hang for seconds.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = (
            str(self.server_address[0]),
            int(self.server_address[1]),
        )

    # -- the accepting thread ----------------------------------------------------------------------

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError as error:  # no descriptors, above all: the client waits in the queue
            cannot = f"{self.name}: cannot take a connection: {error.strerror}"
            self.rare.say("accept", logging.WARNING, cannot)
            time.sleep(NO_DESCRIPTORS)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self.connections.admit(request, MAX_CONNECTIONS, time.monotonic()):
            busy = f"{self.name}: {MAX_CONNECTIONS} connections are busy, one more is refused"
            self.rare.say("full", logging.WARNING, busy)
            with contextlib.suppress(OSError):
                request.setblocking(False)
                request.send(CROWDED)
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError as error:  # the system has no more threads
            self.connections.leave(request)
            cannot = f"{self.name}: cannot serve a connection: {error}"
            self.rare.say("thread", logging.WARNING, cannot)
            self.shutdown_request(request)

    def service_actions(self) -> None:
        """Ends, ten times a second, connections whose request is not here after SILENCE seconds, be
        it that they say nothing or an octet at a time."""
        self.connections.end_overdue(time.monotonic() - SILENCE)

    # -- any thread --------------------------------------------------------------------------------

    def end_streams(self) -> None:
        with self.lock:
            for stream in self.streams:
                with contextlib.suppress(queue.Full):
                    stream.queue.put_nowait(None)
        self.connections.end_all()

    def handle_error(self, request: object, client_address: object) -> None:
        """A reader who hangs up is no news; anything else is a defect of ours."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            self.rare.say("defect", logging.ERROR, f"{self.name}: a page failed", error)


class _Handler(BaseHTTPRequestHandler):
    """The base class reads the request line, calls `parse_request` and then the method's `do_`
    function."""

    server: _Server
    protocol_version = "HTTP/1.1"
    server_version = "call-failover"
    sys_version = ""
    timeout = SILENCE
    head: Head
    raw_requestline: bytes  # the base class': what it has read

    def setup(self) -> None:
        threading.current_thread().name = f"{self.server.name}-client"
        self._refused = False
        super().setup()

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            if self._refused:
                self.server.connections.waits(self.request, time.monotonic())
                self._read_on()
        self.server.connections.leave(self.request)
        with contextlib.suppress(OSError):
            super().finish()

    def _read_on(self) -> None:
        """A socket closed with octets unread resets the connection, and the client may lose the
        answer (RFC 9112 9.6). For a second at most."""
        self.request.shutdown(socket.SHUT_WR)
        until = time.monotonic() + LINGER
        while (left := until - time.monotonic()) > 0:
            self.request.settimeout(left)
            if not self.request.recv(65_536):
                return

    # -- the request -------------------------------------------------------------------------------

    def parse_request(self) -> bool:
        """The head that begins with `raw_requestline`, with our own parser: the base class' takes
        an e-mail's, which stops without a word at a line that is no header."""
        self.command, self.requestline, self.request_version = "", "", "HTTP/1.1"
        self.close_connection = True
        try:
            lines = self._head_lines()
            if lines is None:
                return False
            self.head = parse_head(lines)
        except BadRequest as error:
            self._refuse(error)
            return False
        self.command, self.request_version = self.head.method, f"HTTP/1.{min(self.head.minor, 1)}"
        self.close_connection = not self.head.stays
        return True

    def _head_lines(self) -> list[bytes] | None:
        """None if the client left before the empty line. Before the request line some send one (RFC
        9112 2.2)."""
        line, octets = self.raw_requestline, 0
        lines: list[bytes] = []
        while line.endswith(b"\n") and (line not in EMPTY or not lines):
            octets += len(line)
            if line not in EMPTY:
                lines.append(line)
            if octets > MOST_OCTETS or len(lines) > MOST_FIELDS + 1:
                break
            line = self.rfile.readline(MOST_OCTETS + 1)
        if line in EMPTY and lines:
            return lines
        if octets + len(line) > MOST_OCTETS or len(lines) > MOST_FIELDS:
            raise BadRequest(f"more than {MOST_OCTETS} octets or {MOST_FIELDS} header fields", 431)
        return None

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class refuses: a request line beyond its bound, a method that is not
        known."""
        self.request_version = self.request_version or "HTTP/1.1"
        self._refuse(BadRequest(message or "the request line is too long", code))

    def _refuse(self, error: BadRequest) -> None:
        self.server.connections.waits(self.request, None)
        self._refused = self.close_connection = True
        refused = f"refused a request of {format_address(self.client_address[:2])}: {error}"
        self.server.rare.say("refused", logging.WARNING, f"{self.server.name}: {refused}")
        self._send(HttpResponse.json({"error": str(error)}, error.status))

    def do_GET(self) -> None:
        self._serve("GET")

    def do_HEAD(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def _serve(self, method: str) -> None:
        if self.head.headers.get("expect", "").lower() == "100-continue" and self.head.minor:
            self.send_response_only(100)
            self.end_headers()
        body = self.rfile.read(self.head.length)
        if len(body) < self.head.length:
            self.close_connection = True  # the client left in the middle of it
            return
        self.server.connections.waits(self.request, None)
        answer = self._answer(method, body)
        if isinstance(answer, HttpResponse):
            self._send(answer)
        elif self.command == "HEAD":
            answer.on_close()
            self._send(HttpResponse(200, STREAM, b""), length=False)
        else:
            self._stream(answer)
        self.server.connections.waits(self.request, time.monotonic())

    def _answer(self, method: str, body: bytes) -> HttpResponse | EventStream:
        head = self.head
        refusal = self._refusal(method)
        if refusal:
            return HttpResponse.json({"error": refusal}, 403)
        handler, rest = self._find(method, head.path)
        if not handler:
            known = any(self._find(each, head.path)[0] for each, _ in self.server.routes)
            error = f"{method} is not for {head.path}" if known else f"nothing at {head.path}"
            return HttpResponse.json({"error": error}, 405 if known else 404)
        request = HttpRequest(method, head.path, head.query, head.headers, body, rest)
        try:
            return handler(request)
        # the owner of the data is busy, or has stopped
        except (TimeoutError, RuntimeError) as error:
            return HttpResponse.json({"error": str(error)}, 503)
        except Exception as error:  # a defect of ours, and no broken network
            failed = f"{self.server.name}: {method} {head.path!a} failed"
            self.server.rare.say("defect", logging.ERROR, failed, error)
            told = f"{method} {head.path} failed; the log says why"
            return HttpResponse.json({"error": told}, 500)

    def _refusal(self, method: str) -> str:
        head = self.head
        named = head.host.host if head.host else ""
        if self.server.local_only and not _is_local(named):
            return f"this page answers to its own address only, not to {named!r}"
        if method == "POST" and "origin" in head.headers and head.origin != head.host:
            return f"requests from {head.headers['origin']} may not change anything here"
        return ""

    def _find(self, method: str, path: str) -> tuple[Handler | None, str]:
        exact = self.server.routes.get((method, path))
        if exact:
            return exact, ""
        for (route_method, route), handler in self.server.routes.items():
            if route_method == method and route.endswith("/*") and path.startswith(route[:-1]):
                return handler, path[len(route) - 1 :]
        return None, ""

    def _send(self, answer: HttpResponse, length: bool = True) -> None:
        self.send_response(answer.status)
        headers = {**SECURITY_HEADERS, "Content-Type": answer.content_type, **answer.headers}
        if self.close_connection or not isinstance(answer.body, bytes):
            headers["Connection"] = "close"
        if not isinstance(answer.body, bytes):
            if self.request_version != "HTTP/1.0":
                headers["Transfer-Encoding"] = "chunked"
        elif length:
            headers["Content-Length"] = str(len(answer.body))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if isinstance(answer.body, bytes):
            self.wfile.write(answer.body)
        else:
            self._send_pieces(answer.body)

    def _send_pieces(self, pieces: Iterable[bytes]) -> None:
        """In chunks (RFC 9112 7.1), for whoever knows them."""
        whole = self.request_version == "HTTP/1.0"
        with contextlib.suppress(TimeoutError, RuntimeError):
            for piece in filter(None, pieces):
                self.wfile.write(piece if whole else b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"" if whole else b"0\r\n\r\n")

    def _stream(self, stream: EventStream) -> None:
        with self.server.lock:
            crowded = len(self.server.streams) >= MAX_STREAMS
            if not crowded:
                self.server.streams.add(stream)
        if crowded:
            stream.on_close()
            self._send(
                HttpResponse.json({"error": f"{MAX_STREAMS} readers are listening already"}, 503)
            )
            return
        self.close_connection = True
        try:
            self._send(HttpResponse(200, STREAM, b"", {"Connection": "close"}), length=False)
            self._pass_on(stream)
        except OSError:
            return
        finally:
            with self.server.lock:
                self.server.streams.discard(stream)
            stream.on_close()

    def _pass_on(self, stream: EventStream) -> None:
        while True:
            try:
                item = stream.queue.get(timeout=KEEP_ALIVE)
            except queue.Empty:
                self.wfile.write(b":\n\n")  # finds out whether somebody still reads
                continue
            if item is None:
                return
            name, value = item
            self.wfile.write(f"event: {name}\ndata: {json.dumps(value)}\n\n".encode())

    def log_message(self, format: str, *args: object) -> None:
        """Who reads a page is not worth a line."""


def _is_local(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
