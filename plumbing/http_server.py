"""A small HTTP/1.1 server for status pages, on threads, over the standard library's http.server.

Rules
  1. One thread accepts. Each connection has a thread of its own, at most MAX_CONNECTIONS of them.
  2. A connection either waits for its client (to send a request, or to leave) or is busy with an
     answer. At the limit the one that has waited longest is closed for a new one; if all are busy,
     the new one hears 503.
  3. A client has CLIENT_SECONDS for its whole request, be it silent or an octet at a time, and for
     each piece of the answer.
  4. A handler runs on the connection's thread and must ask the thread that owns the data.
     TimeoutError and RuntimeError are answered 503; any other exception is a defect: 500, and a
     traceback in the log.
  5. A browser on this computer lends its hands to every web site that it has open. So a page on
     loopback answers to local names only (else DNS rebinding would read it), and a POST must come
     from the page's own origin.
  6. Strangers cause one log line a second at most.

http_request_parser.py reads requests; the base class only reads the first line and calls us.
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
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from socketserver import TCPServer
from typing import Any

from plumbing.address import Address, format_address
from plumbing.http_request_parser import MAX_FIELDS, MAX_HEAD, BadRequest, HttpRequest, parse_head
from plumbing.throttled_log import ThrottledLog
from plumbing.udp_socket import family_of

log = logging.getLogger(__name__)

MAX_STREAMS = 16
MAX_CONNECTIONS = 64
KEEP_ALIVE_SECONDS = 5.0  # between comments on a silent event stream
CLIENT_SECONDS = 10.0  # see rule 3
LINGER_SECONDS = 1.0  # for which a refused client's octets are read and dropped
ACCEPT_RETRY_SECONDS = 0.2  # after the system had no descriptor for a connection
EMPTY_LINES = (b"\r\n", b"\n")
TOO_MANY_CONNECTIONS = (
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

Events = queue.Queue["tuple[str, object] | None"]  # name and JSON object; None is the end

# -- what handlers give ----------------------------------------------------------------------------


@dataclass(frozen=True)
class HttpResponse:
    """An answer. A body that is an iterable is sent piece by piece; if it raises TimeoutError or
    RuntimeError the connection is closed before the end of the body, so that no client takes the
    part for the whole."""

    status: int
    content_type: str
    body: bytes | Iterable[bytes]
    headers: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def json(value: object, status: int = 200) -> HttpResponse:
        text = json.dumps(value, ensure_ascii=False) + "\n"
        return HttpResponse(status, "application/json", _utf8(text))

    @staticmethod
    def text(text: str, content_type: str = "text/plain; charset=utf-8") -> HttpResponse:
        return HttpResponse(200, content_type, _utf8(text))

    @staticmethod
    def events(events: Events, on_close: Callable[[], object] = lambda: None) -> HttpResponse:
        """Server-sent events. `on_close` is called when the client has left."""
        return HttpResponse(200, "text/event-stream", EventStream(events, on_close))


class EventStream:
    """The body of an answer of server-sent events. At most MAX_STREAMS are sent at a time."""

    def __init__(self, events: Events, on_close: Callable[[], object]) -> None:
        self._events, self.close = events, on_close

    def __iter__(self) -> Iterator[bytes]:
        while True:
            try:
                event = self._events.get(timeout=KEEP_ALIVE_SECONDS)
            except queue.Empty:
                yield b":\n\n"  # sending it fails if the client has left
                continue
            if event is None:
                return
            name, value = event
            yield f"event: {name}\ndata: {json.dumps(value)}\n\n".encode()

    def end(self) -> None:
        with contextlib.suppress(queue.Full):
            self._events.put_nowait(None)


def _utf8(text: str) -> bytes:
    """Surrogates, which stand for octets of the network that are no text, become "?"."""
    return text.encode("utf-8", "replace")


Handler = Callable[[HttpRequest], HttpResponse]
Routes = Mapping[tuple[str, str], Handler]


# -- the server ------------------------------------------------------------------------------------


class HttpServer(ThreadingHTTPServer):
    """Serves `routes`: (method, path) to handler. A path that ends in `/*` matches all below it.

    Binds the port at once, or raises OSError naming the address; `stop()` may be called twice. The
    accepting thread is called `name`, the connections' threads `name`-client.
    """

    daemon_threads = True
    block_on_close = False  # has no effect on daemon threads
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, address: Address, routes: Routes, name: str) -> None:
        self.routes, self.name = routes, name
        self.address_family = family_of(address[0])
        self.lock = threading.Lock()  # guards the two below
        self.streams: set[EventStream] = set()
        # open connections; since when one waits for its client (monotonic), None: it is busy
        self.waiting_since: dict[socket.socket, float | None] = {}
        self.log = ThrottledLog(log)
        self._thread: threading.Thread | None = None
        try:
            super().__init__(address, _Handler)
        except OSError as error:
            text = f"{error.strerror or error} ({format_address(address)})"
            raise OSError(error.errno, text) from error
        self.local_only = ip_address(self.address[0].partition("%")[0]).is_loopback

    def start(self) -> None:
        self._thread = threading.Thread(
            target=self.serve_forever, args=(0.1,), name=self.name, daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Closes the open connections too."""
        if self._thread:
            self.close_connections()
            self.shutdown()
            self._thread.join()
            self.close_connections()  # those accepted meanwhile
            self._thread = None
        self.server_close()

    @property
    def address(self) -> Address:
        """The address that it listens on, with the port that the system chose for port 0."""
        host, port = self.server_address[:2]
        return str(host), int(port)

    def server_bind(self) -> None:
        # HTTPServer's own looks up the host's name in DNS, which may hang for seconds.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.address

    # -- the accepting thread ----------------------------------------------------------------------

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError as error:  # mostly no descriptors: the client waits in the system's queue
            text = f"{self.name}: cannot take a connection: {error.strerror}"
            self.log.say("accept", logging.WARNING, text)
            time.sleep(ACCEPT_RETRY_SECONDS)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._admit(request):
            text = f"{self.name}: {MAX_CONNECTIONS} connections are busy, one more is refused"
            self.log.say("full", logging.WARNING, text)
            with contextlib.suppress(OSError):
                request.setblocking(False)
                request.send(TOO_MANY_CONNECTIONS)
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError as error:  # the system has no more threads
            self.forget(request)
            text = f"{self.name}: cannot serve a connection: {error}"
            self.log.say("thread", logging.WARNING, text)
            self.shutdown_request(request)

    def _admit(self, connection: socket.socket) -> bool:
        """Adds a connection, at the limit in place of the one that has waited longest."""
        with self.lock:
            if len(self.waiting_since) >= MAX_CONNECTIONS:
                waiting = [(at, each) for each, at in self.waiting_since.items() if at is not None]
                if not waiting:
                    return False
                self._close(min(waiting, key=lambda pair: pair[0])[1])
            self.waiting_since[connection] = time.monotonic()
            return True

    def service_actions(self) -> None:
        """Called ten times a second: closes the connections that wait for too long (rule 3)."""
        before = time.monotonic() - CLIENT_SECONDS
        with self.lock:
            for each, since in list(self.waiting_since.items()):
                if since is not None and since < before:
                    self._close(each)

    # -- any thread --------------------------------------------------------------------------------

    def add_stream(self, stream: EventStream) -> bool:
        """Returns False at the limit."""
        with self.lock:
            if len(self.streams) < MAX_STREAMS:
                self.streams.add(stream)
            return stream in self.streams

    def remove_stream(self, stream: EventStream) -> None:
        with self.lock:
            self.streams.discard(stream)
        stream.close()

    def set_busy(self, connection: socket.socket, busy: bool) -> None:
        with self.lock:
            if connection in self.waiting_since:
                self.waiting_since[connection] = None if busy else time.monotonic()

    def forget(self, connection: socket.socket) -> None:
        """To be called before the socket is closed."""
        with self.lock:
            self.waiting_since.pop(connection, None)

    def close_connections(self) -> None:
        with self.lock:
            for stream in self.streams:
                stream.end()
            for each in list(self.waiting_since):
                self._close(each)

    def _close(self, connection: socket.socket) -> None:
        """Shuts it down: its own thread then reads the end of the stream, and closes it."""
        del self.waiting_since[connection]
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """Called for what a handler thread raises. OSError: the client hung up."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            self.log.say("defect", logging.ERROR, f"{self.name}: a page failed", error)


class _Handler(BaseHTTPRequestHandler):
    """One connection. The base class reads the request line, calls `parse_request` and then the
    method's `do_` function, and so on until `close_connection`."""

    server: HttpServer
    protocol_version = "HTTP/1.1"
    server_version = "call-failover"
    sys_version = ""
    timeout = CLIENT_SECONDS  # of each read and write
    head: HttpRequest
    raw_requestline: bytes  # of the base class: the first line

    def setup(self) -> None:
        threading.current_thread().name = f"{self.server.name}-client"
        self._refused = False
        super().setup()

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            if self._refused:
                self.server.set_busy(self.request, False)
                self._read_on()
        self.server.forget(self.request)
        with contextlib.suppress(OSError):
            super().finish()

    def _read_on(self) -> None:
        """Reads and drops the rest of a refused request: closing a socket with unread octets resets
        the connection, and the client may lose the answer (RFC 9112 9.6)."""
        self.request.shutdown(socket.SHUT_WR)
        until = time.monotonic() + LINGER_SECONDS
        while (left := until - time.monotonic()) > 0:
            self.request.settimeout(left)
            if not self.request.recv(65_536):
                return

    # -- the request -------------------------------------------------------------------------------

    def parse_request(self) -> bool:
        """Reads the head with our own parser; the base class uses an e-mail's, which ends silently
        at a line that is no header."""
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
        self.close_connection = not self.head.keeps_connection
        return True

    def _head_lines(self) -> list[bytes] | None:
        """The lines of the head; None if the client left before the empty line that ends it. Some
        send an empty line before the request line (RFC 9112 2.2)."""
        line, octets = self.raw_requestline, 0
        lines: list[bytes] = []
        while line.endswith(b"\n") and (line not in EMPTY_LINES or not lines):
            octets += len(line)
            if line not in EMPTY_LINES:
                lines.append(line)
            if octets > MAX_HEAD or len(lines) > MAX_FIELDS + 1:
                break
            line = self.rfile.readline(MAX_HEAD + 1)
        if line in EMPTY_LINES and lines:
            return lines
        if octets + len(line) > MAX_HEAD or len(lines) > MAX_FIELDS:
            raise BadRequest(f"more than {MAX_HEAD} octets or {MAX_FIELDS} header fields", 431)
        return None

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Called by the base class for a request line that is too long and an unknown method."""
        self.request_version = self.request_version or "HTTP/1.1"
        self._refuse(BadRequest(message or "the request line is too long", code))

    def _refuse(self, error: BadRequest) -> None:
        self.server.set_busy(self.request, True)
        self._refused = self.close_connection = True
        refused = f"refused a request of {format_address(self.client_address[:2])}: {error}"
        self.server.log.say("refused", logging.WARNING, f"{self.server.name}: {refused}")
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
        self.server.set_busy(self.request, True)
        self._send(self._answer(method))
        self.server.set_busy(self.request, False)

    def _answer(self, method: str) -> HttpResponse:
        head = self.head
        refusal = self._refusal(method)
        if refusal:
            return HttpResponse.json({"error": refusal}, 403)
        handler, rest = self._find(method, head.path)
        if not handler:
            methods = {each for each, _ in self.server.routes if self._find(each, head.path)[0]}
            if not methods:
                return HttpResponse.json({"error": f"nothing at {head.path}"}, 404)
            methods |= {"HEAD"} if "GET" in methods else set()
            refused = HttpResponse.json({"error": f"{method} is not for {head.path}"}, 405)
            # RFC 9110 15.5.6: Allow must be there
            return replace(refused, headers={"Allow": ", ".join(sorted(methods))})
        try:
            return handler(replace(head, rest=rest))
        except (TimeoutError, RuntimeError) as error:  # the data's owner is busy, or has stopped
            return HttpResponse.json({"error": str(error)}, 503)
        except Exception as error:  # a defect
            failed = f"{self.server.name}: {method} {head.path!a} failed"
            self.server.log.say("defect", logging.ERROR, failed, error)
            text = f"{method} {head.path} failed; the log says why"
            return HttpResponse.json({"error": text}, 500)

    def _refusal(self, method: str) -> str:
        """The reason why a request is not answered (rule 5); "" if it is."""
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

    def _send(self, answer: HttpResponse) -> None:
        body = answer.body
        try:
            if isinstance(body, EventStream) and not self.server.add_stream(body):
                text = f"{MAX_STREAMS} readers are listening already"
                self._send(HttpResponse.json({"error": text}, 503))
                return
            self._send_head(answer)
            if self.command == "HEAD":
                return
            if isinstance(body, bytes):
                self.wfile.write(body)
            else:
                self._send_pieces(body, self._is_chunked(answer))
        finally:
            if isinstance(body, EventStream):
                self.server.remove_stream(body)

    def _send_head(self, answer: HttpResponse) -> None:
        self.send_response(answer.status)
        headers = {**SECURITY_HEADERS, "Content-Type": answer.content_type, **answer.headers}
        if isinstance(answer.body, bytes):
            headers["Content-Length"] = str(len(answer.body))
        else:
            self.close_connection = True
        if self._is_chunked(answer):
            headers["Transfer-Encoding"] = "chunked"
        if self.close_connection:
            headers["Connection"] = "close"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _is_chunked(self, answer: HttpResponse) -> bool:
        """Is the body sent in chunks (RFC 9112 7.1)? Other pieces, for HTTP/1.0 has no chunks, end
        with the connection."""
        whole = isinstance(answer.body, bytes | EventStream)
        return not whole and self.request_version != "HTTP/1.0"

    def _send_pieces(self, pieces: Iterable[bytes], chunked: bool) -> None:
        with contextlib.suppress(TimeoutError, RuntimeError):
            for piece in filter(None, pieces):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            self.wfile.write(b"0\r\n\r\n" if chunked else b"")

    def log_message(self, format: str, *args: object) -> None:
        """Of the base class: a line for each request. Logs nothing."""


def _is_local(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
