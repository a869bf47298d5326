"""A strict parser of the head of an HTTP request (RFC 9110, RFC 9112).

Rules
  1. Any octets give an HttpRequest or a BadRequest; `parse_head` raises nothing else.
  2. Whatever two programs could read in two ways is refused (RFC 9112 11.2): two lengths, a length
     and a transfer coding, blanks before a colon, a bare carriage return, a folded line.

Traps
  * `str.isdigit` and `\\d` take digits of other scripts: patterns here name [0-9].
  * `int` raises ValueError for 5,000 digits: their number is bounded before it.
  * urllib.parse raises ValueError for `http://[`: addresses are matched by a pattern of our own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote_to_bytes

from plumbing.shorten_text import shortened

MAX_FIELDS = 100  # header fields; pairs of a query
MAX_HEAD = 65_536  # octets of the request line and all header lines
MAX_BODY = 65_536  # octets

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_REQUEST_LINE = re.compile(r"([^ ]+) ([!-~]+) HTTP/([0-9])\.([0-9])")
_NO_TEXT = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # control characters but the tab
_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~-]+)(?::(?P<port>[0-9]{0,5}))?")
_ABSOLUTE = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<rest>.*)")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_LENGTH = re.compile(r"[0-9]{1,18}")


class BadRequest(ValueError):
    """The client broke the protocol. `status` is that of the answer."""

    def __init__(self, sentence: str, status: int = 400) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True)
class Authority:
    """The host and port of a Host header, an Origin or an absolute URL.

    The host is in lower case, without brackets. The port is None where it is left out: browsers
    leave out the scheme's default port, in Host and Origin alike.
    """

    host: str
    port: int | None

    @staticmethod
    def parse(text: str, place: str) -> Authority:
        """RFC 3986 3.2, without user information. `place` is for the sentence of BadRequest."""
        match = _AUTHORITY.fullmatch(text)
        port = int(match["port"]) if match and match["port"] else None
        if not match or port == 0 or (port or 0) > 65_535:
            raise BadRequest(f"{place} is not host or host:port: {shortened(text, 60)!a}")
        return Authority(match["host"].strip("[]").lower(), port)


@dataclass(frozen=True)
class HttpRequest:
    """A request without its body, which no page needs."""

    method: str
    path: str
    query: Mapping[str, str]
    minor: int  # the x of HTTP/1.x
    headers: Mapping[str, str]  # by lower-case name; values of several lines joined by ", "
    host: Authority | None  # None: an HTTP/1.0 client names none; or it is empty
    origin: Authority | None  # None: there is none, or it is "null"
    length: int  # of the body, in octets
    rest: str = ""  # the part of the path that the route's `*` stands for

    @property
    def keeps_connection(self) -> bool:
        """Does the connection stay open (RFC 9112 9.3)? Never for HTTP/1.0."""
        options = {each.strip().lower() for each in self.headers.get("connection", "").split(",")}
        return self.minor > 0 and "close" not in options


def parse_head(lines: Sequence[bytes]) -> HttpRequest:
    """Parses the request line and the header lines, each with its end of line, without the empty
    line. Raises BadRequest."""
    first, *others = [_text(line) for line in lines] or [""]
    method, target, minor = _request_line(first)
    fields = _fields(others)
    headers = {name: ", ".join(values) for name, values in fields.items()}
    path, query, named = _target(target)
    host = _host(fields.get("host", []), minor)
    origins = fields.get("origin", [])
    origin = _origin(", ".join(origins)) if origins else None
    length = _length(fields)
    return HttpRequest(method, path, query, minor, headers, named or host, origin, length)


def _text(line: bytes) -> str:
    """The text of a line without its end. Octets beyond ASCII are taken for ISO 8859-1: they are
    allowed in values, and have no meaning here."""
    text = line.decode("latin-1")
    text = text[:-2] if text.endswith("\r\n") else text[:-1] if text.endswith("\n") else text
    if _NO_TEXT.search(text):
        raise BadRequest(f"a line has a control character: {shortened(text, 60)!a}")
    return text


def _request_line(line: str) -> tuple[str, str, int]:
    match = _REQUEST_LINE.fullmatch(line)
    if not match or not _TOKEN.fullmatch(match[1]):
        raise BadRequest(f"not a request line: {shortened(line, 60)!a}")
    if match[3] != "1":
        raise BadRequest(f"HTTP/{match[3]}.{match[4]} is not spoken here; HTTP/1.1 is", 505)
    return match[1], match[2], int(match[4])


def _fields(lines: Sequence[str]) -> dict[str, list[str]]:
    if len(lines) > MAX_FIELDS:
        raise BadRequest(f"more than {MAX_FIELDS} header fields", 431)
    fields: dict[str, list[str]] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name):
            raise BadRequest(f"not a header line: {shortened(line, 60)!a}")
        fields.setdefault(name.lower(), []).append(value.strip(" \t"))
    return fields


def _target(target: str) -> tuple[str, Mapping[str, str], Authority | None]:
    """(path, query, host of an absolute URL, which replaces that of Host: RFC 9112 3.2.2)."""
    named = None
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute:
        if absolute["scheme"].lower() != "http":
            raise BadRequest(f"only http is served: {shortened(target, 60)!a}")
        named = Authority.parse(absolute["authority"], "the URL's host")
        target = "/" + absolute["rest"].removeprefix("/")
    elif not target.startswith("/"):
        raise BadRequest(f"a URL begins with a slash: {shortened(target, 60)!a}")
    path, _, query = target.partition("#")[0].partition("?")
    return _path(path), _query(query), named


def _path(path: str) -> str:
    try:
        if _BAD_ESCAPE.search(path):
            raise ValueError("a percent sign is followed by two hexadecimal digits")
        decoded = unquote_to_bytes(path).decode()
    except ValueError:
        shown = shortened(path, 60)
        raise BadRequest(f"the path has an escape that is no character: {shown!a}") from None
    if _NO_TEXT.search(decoded) or "\t" in decoded:
        raise BadRequest(f"the path has a control character: {shortened(path, 60)!a}")
    return decoded


def _query(query: str) -> Mapping[str, str]:
    try:
        return dict(parse_qsl(query, max_num_fields=MAX_FIELDS))
    except ValueError:
        raise BadRequest(f"the query has more than {MAX_FIELDS} parts") from None


def _host(values: Sequence[str], minor: int) -> Authority | None:
    """The value of Host: exactly one in HTTP/1.1 (RFC 9112 3.2)."""
    if len(values) > 1 or (not values and minor > 0):
        raise BadRequest(
            "one Host header is needed" if not values else "there is more than one Host header"
        )
    return Authority.parse(values[0], "Host") if values and values[0] else None


def _origin(text: str) -> Authority | None:
    """The host and port of an Origin; None for "null" (RFC 6454 7)."""
    if text == "null":
        return None
    match = _ABSOLUTE.fullmatch(text)
    if not match or match["rest"]:
        raise BadRequest(f"Origin is not scheme://host: {shortened(text, 60)!a}")
    return Authority.parse(match["authority"], "Origin")


def _length(fields: Mapping[str, Sequence[str]]) -> int:
    """The length of the body (RFC 9112 6.1, 6.3). Bodies in chunks are refused: no client of ours
    sends any."""
    lengths, codings = fields.get("content-length", ()), fields.get("transfer-encoding", ())
    if codings and lengths:
        raise BadRequest("Transfer-Encoding and Content-Length exclude each other")
    if codings:
        known = ", ".join(codings).strip().lower() == "chunked"
        raise BadRequest("the body must have a Content-Length", 411 if known else 501)
    if not lengths:
        return 0
    if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
        raise BadRequest(f"Content-Length is not one number: {shortened(', '.join(lengths), 60)!a}")
    if int(lengths[0]) > MAX_BODY:
        raise BadRequest(f"the body must have a Content-Length up to {MAX_BODY}", 413)
    return int(lengths[0])
