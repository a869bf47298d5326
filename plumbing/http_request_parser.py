"""The head of an HTTP request, read strictly: octets in, `Head` or `BadRequest` out (RFC 9110, RFC
9112).

Rules
  1. Any octets give a Head or a BadRequest; no other exception leaves `parse_head`.
  2. Refused is all that two programs could read in two ways (RFC 9112 11.2): two lengths, a length
     beside a transfer coding, blanks before a colon, a bare carriage return, a folded line.
  3. Numbers have ASCII digits, and few of them before `int` sees them: it raises ValueError for
     5,000.
  4. Addresses are matched by one pattern, never by urllib, which raises ValueError for `http://[`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote_to_bytes

from plumbing.shorten_text import shortened

MOST_FIELDS = 100  # header fields, and pairs of a query
MOST_OCTETS = 65_536  # of a request line and all header lines together
MAX_BODY = 65_536  # octets

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_REQUEST_LINE = re.compile(r"([^ ]+) ([!-~]+) HTTP/([0-9])\.([0-9])")
_NO_TEXT = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # control characters but the tab
_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~-]+)(?::(?P<port>[0-9]{0,5}))?")
_ABSOLUTE = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<rest>.*)")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_LENGTH = re.compile(r"[0-9]{1,18}")


class BadRequest(ValueError):
    """The client broke the protocol; `status` is the answer."""

    def __init__(self, sentence: str, status: int = 400) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True)
class Authority:
    """Host in lower case without brackets, and port, None where it is left out: of a Host header,
    an Origin or an absolute URL. Browsers leave out the scheme's own port in Host and Origin
    alike."""

    host: str
    port: int | None

    @staticmethod
    def parse(text: str, place: str) -> Authority:
        """RFC 3986 3.2 without user information. Raises BadRequest that names the `place`."""
        match = _AUTHORITY.fullmatch(text)
        port = int(match["port"]) if match and match["port"] else None
        if not match or port == 0 or (port or 0) > 65_535:
            raise BadRequest(f"{place} is not host or host:port: {shortened(text, 60)!a}")
        return Authority(match["host"].strip("[]").lower(), port)


@dataclass(frozen=True)
class Head:
    """`headers` by lower-case name; `host` is None where an HTTP/1.0 client names none, or an empty
    one. `origin` is None without Origin, and for "null". `length` is the body's, in octets."""

    method: str
    path: str
    query: Mapping[str, str]
    minor: int  # of HTTP/1.x
    headers: Mapping[str, str]
    host: Authority | None
    origin: Authority | None
    length: int

    @property
    def stays(self) -> bool:
        """Is the connection kept for the next request (RFC 9112 9.3)? Never for HTTP/1.0."""
        options = {each.strip().lower() for each in self.headers.get("connection", "").split(",")}
        return self.minor > 0 and "close" not in options


def parse_head(lines: Sequence[bytes]) -> Head:
    """The request line and the header lines, each with its end of line, without the empty line.
    Raises BadRequest."""
    first, *others = [_text(line) for line in lines] or [""]
    method, target, minor = _request_line(first)
    fields = _fields(others)
    headers = {name: ", ".join(values) for name, values in fields.items()}
    path, query, named = _target(target)
    host = _host(fields.get("host", []), minor)
    origins = fields.get("origin", [])
    origin = _origin(", ".join(origins)) if origins else None
    length = _length(fields)
    return Head(method, path, query, minor, headers, named or host, origin, length)


def _text(line: bytes) -> str:
    """Without its end. Octets beyond ASCII stand for themselves: they are allowed in values, and
    mean nothing here."""
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
    if len(lines) > MOST_FIELDS:
        raise BadRequest(f"more than {MOST_FIELDS} header fields", 431)
    fields: dict[str, list[str]] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name):
            raise BadRequest(f"not a header line: {shortened(line, 60)!a}")
        fields.setdefault(name.lower(), []).append(value.strip(" \t"))
    return fields


def _target(target: str) -> tuple[str, Mapping[str, str], Authority | None]:
    """Path, query and, of an absolute URL, its host, which counts instead of Host (RFC 9112
    3.2.2)."""
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
        return dict(parse_qsl(query, max_num_fields=MOST_FIELDS))
    except ValueError:
        raise BadRequest(f"the query has more than {MOST_FIELDS} parts") from None


def _host(values: Sequence[str], minor: int) -> Authority | None:
    """RFC 9112 3.2: exactly one in HTTP/1.1, and one that can be read."""
    if len(values) > 1 or (not values and minor > 0):
        raise BadRequest(
            "one Host header is needed" if not values else "there is more than one Host header"
        )
    return Authority.parse(values[0], "Host") if values and values[0] else None


def _origin(text: str) -> Authority | None:
    """RFC 6454 7: "null", or scheme, host and port."""
    if text == "null":
        return None
    match = _ABSOLUTE.fullmatch(text)
    if not match or match["rest"]:
        raise BadRequest(f"Origin is not scheme://host: {shortened(text, 60)!a}")
    return Authority.parse(match["authority"], "Origin")


def _length(fields: Mapping[str, Sequence[str]]) -> int:
    """RFC 9112 6.1 and 6.3. Nobody has reason to send us a body in pieces."""
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
