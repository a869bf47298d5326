"""Small web pages: status, metrics, bills. A thin layer over http.server with the guards a local page needs.

A page on loopback is still reachable from the browser of whoever sits there, so a request that changes something must
be a POST of the same origin, and the Host header must name us (DNS rebinding).
"""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from urllib.parse import parse_qsl, unquote, urlsplit

from plumbing.address import Address, format_address
from plumbing.udp import family_of

log = logging.getLogger(__name__)

MAX_BODY = 65_536
MAX_STREAMS = 16
STREAM = "text/event-stream"
KEEP_ALIVE = 5.0  # seconds between comments on a silent event stream
SILENCE = 10.0  # seconds a client may take for its request

SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'",
}


@dataclass(frozen=True)
class HttpRequest:
    """`rest` is what the `*` of the route matched; `headers` has lower-case names."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    rest: str = ""


@dataclass(frozen=True)
class HttpResponse:
    """A body in pieces goes out piece by piece. If the next one cannot be had, RuntimeError or TimeoutError, the
    connection ends before the body does, so that nobody takes the half for the whole."""

    status: int
    content_type: str
    body: bytes | Iterable[bytes]
    headers: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def json(value: object, status: int = 200) -> HttpResponse:
        return HttpResponse(status, "application/json", (json.dumps(value, ensure_ascii=False) + "\n").encode())

    @staticmethod
    def html(text: str, status: int = 200) -> HttpResponse:
        return HttpResponse(status, "text/html; charset=utf-8", text.encode("utf-8", "replace"))

    @staticmethod
    def text(text: str, content_type: str = "text/plain; charset=utf-8", status: int = 200) -> HttpResponse:
        return HttpResponse(status, content_type, text.encode("utf-8", "replace"))


@dataclass(frozen=True)
class EventStream:
    """Server-sent events: put `(name, value)` pairs into the queue, None ends. `on_close` runs when the reader left."""

    queue: queue.Queue[tuple[str, object] | None]
    on_close: Callable[[], object] = lambda: None


Handler = Callable[[HttpRequest], "HttpResponse | EventStream"]
Routes = Mapping[tuple[str, str], Handler]


class HttpServer:
    """`routes` maps (method, path) to a handler; a path that ends in `/*` matches all below it.

    Handlers run on threads of their own (`NAME-…`) and must `ask` whoever owns what they read. `start()` returns when
    the port is bound and raises OSError naming the address.
    """

    def __init__(self, address: Address, routes: Routes, name: str) -> None:
        self._wanted, self._routes, self._name = address, routes, name
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        try:
            self._server = _Server(self._wanted, self._routes, self._name)
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror or error} ({format_address(self._wanted)})") from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name=self._name, daemon=True
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
    daemon_threads = True
    block_on_close = True
    allow_reuse_address = True

    def __init__(self, address: Address, routes: Routes, name: str) -> None:
        self.routes, self.name = routes, name
        self.address_family = family_of(address[0])
        self.streams: set[EventStream] = set()
        self.connections: set[socket.socket] = set()
        self.lock = threading.Lock()  # guards streams and connections
        super().__init__(address, _Handler)
        self.local_only = ip_address(str(self.server_address[0]).partition("%")[0]).is_loopback

    def server_bind(self) -> None:
        # HTTPServer's own looks up the host's name in DNS, which may hang for seconds.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def end_streams(self) -> None:
        with self.lock:
            for stream in self.streams:
                with contextlib.suppress(queue.Full):
                    stream.queue.put_nowait(None)
            for connection in self.connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """A reader who hangs up is no news; anything else is a defect of ours."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            log.error("%s: a page failed", self.name, exc_info=error)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    server_version = "call-failover"
    sys_version = ""
    timeout = SILENCE

    def setup(self) -> None:
        threading.current_thread().name = f"{self.server.name}-client"
        with self.server.lock:
            self.server.connections.add(self.request)
        super().setup()

    def finish(self) -> None:
        with self.server.lock:
            self.server.connections.discard(self.request)
        with contextlib.suppress(OSError):
            super().finish()

    def do_GET(self) -> None:
        self._serve("GET")

    def do_HEAD(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def _serve(self, method: str) -> None:
        body = self._body()
        if body is None:
            return
        answer = self._answer(method, body)
        if isinstance(answer, EventStream) and self.command == "HEAD":  # of a stream the head alone (RFC 9110 9.3.2)
            answer.on_close()
            self._send(HttpResponse(200, STREAM, b""), length=False)
        elif isinstance(answer, EventStream):
            self._stream(answer)
        else:
            self._send(answer)

    def _body(self) -> bytes | None:
        length = self.headers.get("Content-Length") or "0"
        if "Transfer-Encoding" in self.headers or not (length.isascii() and length.isdigit()) or int(length) > MAX_BODY:
            self.close_connection = True
            self._send(HttpResponse.json({"error": f"the body must have a Content-Length up to {MAX_BODY}"}, 413))
            return None
        return self.rfile.read(int(length))

    def _answer(self, method: str, body: bytes) -> HttpResponse | EventStream:
        refusal = self._refusal(method)
        if refusal:
            return HttpResponse.json({"error": refusal}, 403)
        url = urlsplit(self.path)
        path = unquote(url.path)
        handler, rest = self._find(method, path)
        if not handler:
            known = {route_method for route_method, _ in self.server.routes if self._find(route_method, path)[0]}
            return HttpResponse.json({"error": f"{method} is not for {path}" if known else f"nothing at {path}"},
                                     405 if known else 404)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = HttpRequest(method, path, dict(parse_qsl(url.query)), headers, body, rest)
        try:
            return handler(request)
        except (TimeoutError, RuntimeError) as error:  # the owner of the data is busy, or has stopped
            return HttpResponse.json({"error": str(error)}, 503)
        except Exception:  # a defect of ours, which the reader is not to take for a broken network
            log.exception("%s: %s %r failed", self.server.name, method, path)
            return HttpResponse.json({"error": f"{method} {path} failed; the log says why"}, 500)

    def _refusal(self, method: str) -> str:
        host = self.headers.get("Host", "")
        if self.server.local_only and not _is_local(host):
            return f"this page answers to its own address only, not to {host!r}"
        origin = self.headers.get("Origin")
        if method == "POST" and origin and urlsplit(origin).netloc != host:
            return f"requests from {origin} may not change anything here"
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
        if not isinstance(answer.body, bytes):
            headers["Connection"] = "close"
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
            self._send(HttpResponse.json({"error": f"{MAX_STREAMS} readers are listening already"}, 503))
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


def _is_local(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
