"""A SIP message: start line, header fields in their order, body (RFC 3261 7).

A message is parsed once and keeps the bytes of every line, so that one which is only passed on leaves as it came:
`parse(data).to_bytes() == data`, and an edit changes its own lines alone. Text is UTF-8; bytes that are not survive
as surrogate escapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from sip.errors import LocalProtocolError, RemoteProtocolError
from sip.grammar import is_token, split_list
from sip.header import CSeq, NameAddr, canonical
from sip.uri import Uri
from sip.via import Via

MAX_SIZE = 65_507  # the largest UDP payload over IPv4
MAX_FIELDS = 256
_BLANK = re.compile(rb"(\r?\n)(\r?\n)")
SINGLE = ("From", "To", "Call-ID", "CSeq")
DIALOG_CREATING = ("INVITE", "SUBSCRIBE", "REFER", "NOTIFY")

REASONS = {
    100: "Trying", 180: "Ringing", 181: "Call Is Being Forwarded", 182: "Queued", 183: "Session Progress",
    200: "OK", 202: "Accepted", 300: "Multiple Choices", 301: "Moved Permanently", 302: "Moved Temporarily",
    305: "Use Proxy", 400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden",
    404: "Not Found", 405: "Method Not Allowed", 406: "Not Acceptable", 407: "Proxy Authentication Required",
    408: "Request Timeout", 410: "Gone", 413: "Request Entity Too Large", 414: "Request-URI Too Long",
    415: "Unsupported Media Type", 416: "Unsupported URI Scheme", 420: "Bad Extension", 421: "Extension Required",
    422: "Session Interval Too Small", 423: "Interval Too Brief", 480: "Temporarily Unavailable",
    481: "Call/Transaction Does Not Exist", 482: "Loop Detected", 483: "Too Many Hops", 484: "Address Incomplete",
    485: "Ambiguous", 486: "Busy Here", 487: "Request Terminated", 488: "Not Acceptable Here", 491: "Request Pending",
    493: "Undecipherable", 500: "Server Internal Error", 501: "Not Implemented", 502: "Bad Gateway",
    503: "Service Unavailable", 504: "Server Time-out", 505: "Version Not Supported", 513: "Message Too Large",
    600: "Busy Everywhere", 603: "Decline", 604: "Does Not Exist Anywhere", 606: "Not Acceptable",
}  # fmt: skip


@dataclass(frozen=True)
class Field:
    """One header field: canonical name, unfolded value, and its line or lines as they travel, CRLF included."""

    name: str
    value: str
    raw: bytes


def make_field(name: str, value: str) -> Field:
    """Raises LocalProtocolError where a line break would smuggle in another header."""
    if "\r" in value or "\n" in value or not is_token(name):
        raise LocalProtocolError(f"not a header field: {name}: {value[:60]!r}")
    return Field(canonical(name), value, f"{name}: {value}\r\n".encode("utf-8", "surrogateescape"))


class Message:
    """What requests and responses share. `fields` may be edited through the methods below."""

    def __init__(self, start: bytes, fields: list[Field], body: bytes, made_here: bool) -> None:
        self._start = start
        self._blank = b"\r\n"
        self.fields = fields
        self.body = body
        self._made_here = made_here

    def to_bytes(self) -> bytes:
        """Messages made here get their Content-Length now; received ones keep theirs, or the lack of it."""
        if self._made_here:
            self.set("Content-Length", str(len(self.body)))
        return b"".join([self._start, *(field.raw for field in self.fields), self._blank, self.body])

    # -- fields by name ---------------------------------------------------------------------------------------------

    def get(self, name: str) -> str | None:
        """The value of the first line of that name."""
        name = canonical(name)
        return next((field.value for field in self.fields if field.name == name), None)

    def all(self, name: str) -> list[str]:
        """The values of all lines of that name, one a line."""
        name = canonical(name)
        return [field.value for field in self.fields if field.name == name]

    def values(self, name: str) -> list[str]:
        """The values over all lines of that name, comma-separated lists taken apart (RFC 3261 7.3.1)."""
        return [value for line in self.all(name) for value in split_list(line)]

    def add(self, name: str, value: str) -> None:
        """As the last field."""
        self.fields.append(make_field(name, value))

    def set(self, name: str, value: str) -> None:
        """In the place of the first of that name, the others removed; last if there was none."""
        at = self._index(name)
        if at is None:
            self.add(name, value)
            return
        self.fields[at] = make_field(name, value)
        name = canonical(name)
        self.fields[at + 1 :] = [field for field in self.fields[at + 1 :] if field.name != name]

    def push(self, name: str, value: str) -> None:
        """As the new topmost value: a line of its own above the first of that name, else above all fields."""
        self.fields.insert(self._index(name) or 0, make_field(name, value))

    def pop(self, name: str) -> str:
        """Takes the topmost single value away and returns it; of a list only its first element."""
        at, first, rest = self._topmost(name)
        if rest:
            self.fields[at] = make_field(self._spelling(at), ", ".join(rest))
        else:
            del self.fields[at]
        return first

    def replace_top(self, name: str, value: str) -> None:
        """Puts `value` in the place of the topmost single value."""
        at, _, rest = self._topmost(name)
        self.fields[at] = make_field(self._spelling(at), ", ".join([value, *rest]))

    def remove(self, name: str) -> None:
        name = canonical(name)
        self.fields = [field for field in self.fields if field.name != name]

    def _index(self, name: str) -> int | None:
        name = canonical(name)
        return next((i for i, field in enumerate(self.fields) if field.name == name), None)

    def _topmost(self, name: str) -> tuple[int, str, list[str]]:
        at = self._index(name)
        parts = split_list(self.fields[at].value) if at is not None else []
        if at is None or not parts:
            raise RemoteProtocolError(f"{canonical(name)} is missing")
        return at, parts[0], parts[1:]

    def _spelling(self, at: int) -> str:
        """The name as the sender wrote it, compact or not."""
        return self.fields[at].raw.partition(b":")[0].decode("ascii").strip()

    # -- fields with a meaning; absent or broken ones raise RemoteProtocolError ------------------------------------

    def _need(self, name: str) -> str:
        value = self.get(name)
        if not value:
            raise RemoteProtocolError(f"{name} is missing")
        return value

    def _number(self, name: str) -> int | None:
        value = self.get(name)
        if value is None:
            return None
        if not (value.isascii() and value.isdigit()) or len(value) > 10:
            raise RemoteProtocolError(f"not a number in {name}: {value[:40]!r}")
        return int(value)

    @property
    def via(self) -> Via:
        return Via.parse(self._topmost("Via")[1])

    @property
    def vias(self) -> list[Via]:
        return [Via.parse(value) for value in self.values("Via")]

    @property
    def from_(self) -> NameAddr:
        return NameAddr.parse(self._need("From"))

    @property
    def to(self) -> NameAddr:
        return NameAddr.parse(self._need("To"))

    @property
    def call_id(self) -> str:
        return self._need("Call-ID")

    @property
    def cseq(self) -> CSeq:
        return CSeq.parse(self._need("CSeq"))

    @property
    def contacts(self) -> list[NameAddr]:
        """Without the wildcard `*`, which only REGISTER may carry."""
        return [NameAddr.parse(value) for value in self.values("Contact") if value != "*"]

    @property
    def routes(self) -> list[NameAddr]:
        return [NameAddr.parse(value) for value in self.values("Route")]

    @property
    def record_routes(self) -> list[NameAddr]:
        return [NameAddr.parse(value) for value in self.values("Record-Route")]

    @property
    def max_forwards(self) -> int | None:
        return self._number("Max-Forwards")

    @property
    def expires(self) -> int | None:
        return self._number("Expires")

    @property
    def content_type(self) -> str:
        """Lower case, without parameters; "" if there is none."""
        return (self.get("Content-Type") or "").partition(";")[0].strip().lower()

    def check(self) -> None:
        """The fields that every message must have are there, once each, and readable (RFC 3261 8.1.1)."""
        for name in SINGLE:
            if len(self.all(name)) != 1:
                raise RemoteProtocolError(f"{name} must be there once, and is there {len(self.all(name))} times")
        _ = self.via, self.from_, self.to, self.cseq, self.max_forwards


class Request(Message):
    """A request. `uri` is the Request-URI as text: it may be of any scheme."""

    def __init__(self, method: str, uri: str, fields: Iterable[tuple[str, str]] = (), body: bytes = b"") -> None:
        if not is_token(method) or not uri or any(char.isspace() for char in uri):
            raise LocalProtocolError(f"not a request line: {method[:20]!r} {uri[:60]!r}")
        super().__init__(_request_line(method, uri), [make_field(*pair) for pair in fields], body, made_here=True)
        self._method, self._uri = method, uri

    @property
    def method(self) -> str:
        return self._method

    @property
    def uri(self) -> str:
        return self._uri

    @uri.setter
    def uri(self, uri: str) -> None:
        self._uri, self._start = uri, _request_line(self._method, uri)

    def check(self) -> None:
        super().check()
        if self.cseq.method != self.method:
            raise RemoteProtocolError(f"CSeq says {self.cseq.method}, the request line {self.method}")

    def __repr__(self) -> str:
        return f"<{self.method} {self.uri}>"


class Response(Message):
    def __init__(
        self, status: int, reason: str = "", fields: Iterable[tuple[str, str]] = (), body: bytes = b""
    ) -> None:
        reason = reason or REASONS.get(status, REASONS.get(status // 100 * 100, "Unknown"))
        if not 100 <= status <= 699 or "\r" in reason or "\n" in reason:
            raise LocalProtocolError(f"not a status line: {status} {reason[:60]!r}")
        start = f"SIP/2.0 {status} {reason}\r\n".encode("utf-8", "surrogateescape")
        super().__init__(start, [make_field(*pair) for pair in fields], body, made_here=True)
        self.status, self.reason = status, reason

    def __repr__(self) -> str:
        return f"<{self.status} {self.reason}>"


def _request_line(method: str, uri: str) -> bytes:
    return f"{method} {uri} SIP/2.0\r\n".encode("utf-8", "surrogateescape")


def reply(
    request: Request,
    status: int,
    reason: str = "",
    to_tag: str = "",
    fields: Iterable[tuple[str, str]] = (),
    body: bytes = b"",
) -> Response:
    """The response to a request, with what RFC 3261 8.2.6.2 and 12.1.1 have it copy. `to_tag` is set where the
    request's To has none and the status is above 100."""
    copied = [(name, value) for name in ("Via", "From") for value in request.all(name)]
    to = request._need("To")
    if to_tag and status > 100 and not request.to.tag:
        to = f"{to};tag={to_tag}"
    copied += [("To", to), ("Call-ID", request.call_id), ("CSeq", request._need("CSeq"))]
    if 100 < status < 300 and request.method in DIALOG_CREATING:
        copied += [("Record-Route", value) for value in request.all("Record-Route")]
    if status == 100:
        copied += [("Timestamp", value) for value in request.all("Timestamp")]
    return Response(status, reason, [*copied, *fields], body)


def parse(data: bytes) -> Request | Response:
    """One datagram -> one message. Raises RemoteProtocolError for anything that is not one.

    RFC 3261 18.3: over UDP bytes beyond Content-Length are cut off, fewer than it says are an error, without it the
    body reaches to the datagram's end. Lone line feeds are taken for line ends, as real phones send them.
    """
    if len(data) > MAX_SIZE:
        raise RemoteProtocolError("the message is larger than a datagram", status=513)
    data = data.lstrip(b"\r\n")  # RFC 3261 7.5: empty lines before the start line are ignored
    blank = _BLANK.search(data)
    if not blank:
        raise RemoteProtocolError("no empty line ends the header")
    lines = data[: blank.start() + len(blank[1])].split(b"\n")[:-1]
    message = _start_line(lines[0] + b"\n")
    message._blank = blank[2]
    message.fields = _fields(lines[1:])
    message.body = _cut(message, data[blank.end() :])
    return message


def _start_line(raw: bytes) -> Request | Response:
    line = raw.decode("utf-8", "surrogateescape").rstrip("\r\n")
    if "\r" in line:
        raise RemoteProtocolError("a carriage return inside the start line")
    first, _, rest = line.partition(" ")
    message: Request | Response
    if first.upper() == "SIP/2.0":
        code, _, reason = rest.partition(" ")
        if not (code.isascii() and code.isdigit() and len(code) == 3 and 100 <= int(code) <= 699):
            raise RemoteProtocolError(f"not a status line: {line[:60]!r}")
        message = Response(int(code), reason)
        message.reason = reason
    else:
        uri, _, version = rest.rpartition(" ")
        if not is_token(first) or not version.upper().startswith("SIP/"):
            raise RemoteProtocolError(f"not a SIP message: {line[:60]!r}")
        if version.upper() != "SIP/2.0":
            raise RemoteProtocolError(f"not SIP/2.0: {version[:20]!r}", status=505)
        if not uri or uri.startswith("<") or any(char.isspace() for char in uri):
            raise RemoteProtocolError(f"not a Request-URI: {uri[:60]!r}")
        message = Request(first, uri)
    message._start, message._made_here = raw, False
    return message


def _fields(lines: list[bytes]) -> list[Field]:
    fields: list[Field] = []
    for line in lines:
        line += b"\n"
        if b"\r" in line[:-2]:
            raise RemoteProtocolError("a carriage return inside a header line")
        if line[:1] in (b" ", b"\t"):  # RFC 3261 7.3.1: folding, the line goes on
            if not fields:
                raise RemoteProtocolError("the first header line is a continuation")
            last = fields[-1]
            more = line.decode("utf-8", "surrogateescape").strip()
            fields[-1] = Field(last.name, f"{last.value} {more}".strip(), last.raw + line)
            continue
        name, colon, value = line.decode("utf-8", "surrogateescape").partition(":")
        name = name.rstrip(" \t")
        if not colon or not is_token(name):
            raise RemoteProtocolError(f"not a header line: {line[:60]!r}")
        fields.append(Field(canonical(name), value.strip(), line))
    if len(fields) > MAX_FIELDS:
        raise RemoteProtocolError(f"more than {MAX_FIELDS} header fields", status=513)
    return fields


def _cut(message: Message, body: bytes) -> bytes:
    lengths = message.all("Content-Length")
    if not lengths:
        return body
    length = lengths[0]
    if len(set(lengths)) > 1 or not (length.isascii() and length.isdigit()) or len(length) > 6:
        raise RemoteProtocolError(f"not a Content-Length: {length[:40]!r}")
    if int(length) > len(body):
        raise RemoteProtocolError(f"Content-Length says {length}, and {len(body)} bytes came")
    return body[: int(length)]


def request_uri(request: Request) -> Uri:
    """The Request-URI of a request that must be for SIP; raises RemoteProtocolError(416) for other schemes."""
    return Uri.parse(request.uri)
