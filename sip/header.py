"""Header lines and their values: field names, name-addr, CSeq (RFC 3261 7.3, 20)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from sip.errors import LocalProtocolError, RemoteProtocolError
from sip.grammar import (
    MAX_REMEMBERED,
    NO_PARAMS,
    format_params,
    is_token,
    parse_params,
    quoted,
    quoted_prefix,
    remembered,
)
from sip.uri import Uri

_CSEQ = re.compile(r"\s*([0-9]{1,10})\s+([A-Za-z0-9\-.!%*_+`'~]+)\s*\Z")
# A From or To as nearly all are written, with no parameter but the tag.
_TAGGED = re.compile(r"""(?:"[^"\\]*"\s*|[^"<>,;]*)<[^<>]*>(?:;tag=([^\s"<>,;=]+))?\Z""")
MAX_NAMES = 512  # in FIELD_NAMES

# RFC 3261 7.3.3 and the compact forms that later RFCs registered.
COMPACT = {
    "a": "Accept-Contact",
    "b": "Referred-By",
    "c": "Content-Type",
    "e": "Content-Encoding",
    "f": "From",
    "i": "Call-ID",
    "j": "Reject-Contact",
    "k": "Supported",
    "l": "Content-Length",
    "m": "Contact",
    "o": "Event",
    "r": "Refer-To",
    "s": "Subject",
    "t": "To",
    "u": "Allow-Events",
    "v": "Via",
    "x": "Session-Expires",
}
_SPELLED = {
    "call-id": "Call-ID",
    "cseq": "CSeq",
    "www-authenticate": "WWW-Authenticate",
    "mime-version": "MIME-Version",
}


def canonical(name: str) -> str:
    """The field name as RFC 3261 spells it: canonical("i") == canonical("CALL-ID") == "Call-ID"."""
    low = name.lower()
    return (
        COMPACT.get(low)
        or _SPELLED.get(low)
        or "-".join(part.capitalize() for part in low.split("-"))
    )


class FieldNames(dict[str, str]):
    """The canonical name for what stands before a line's colon; "" if that is no name."""

    def __missing__(self, text: str) -> str:
        name = text.rstrip(" \t")
        known = name if is_token(name) else ""
        if len(text) <= MAX_REMEMBERED:
            known = canonical(known)
            if len(self) >= MAX_NAMES:
                self.clear()
            self[text] = known
        return known


FIELD_NAMES = FieldNames()


class Field(NamedTuple):
    """One header field: canonical name, unfolded value, and its line or lines as they travel, CRLF
    included."""

    name: str
    value: str
    raw: bytes


def make_line(name: str, value: str) -> str:
    """A header line without its line feed. Raises LocalProtocolError where a line break would
    smuggle in another header."""
    if "\r" in value or "\n" in value or not FIELD_NAMES[name] or name[-1] in " \t":
        raise LocalProtocolError(f"not a header field: {name}: {value[:60]!r}")
    return f"{name}: {value}\r"


class NameAddr(NamedTuple):
    """From, To, Contact, Route: an optional display name, a URI, header parameters (RFC 3261
    20.10)."""

    uri: Uri
    display: str = ""
    params: Mapping[str, str | None] = NO_PARAMS

    @staticmethod
    def parse(value: str) -> NameAddr:
        """One with a SIP URI. Raises RemoteProtocolError (400), for another scheme too: 416 speaks
        of the Request-URI alone (RFC 3261 21.4.14)."""
        known = NameAddr.parse_any(value)
        if not known.uri.is_sip:
            raise RemoteProtocolError(f"not a SIP URI: {value[:60]!r}")
        return known

    @staticmethod
    @remembered
    def parse_any(value: str) -> NameAddr:
        """As `parse`, with a URI of any scheme (Uri.parse_any), as From and To may have."""
        display, uri, params = name_addr_parts(value)
        return NameAddr(Uri.parse_any(uri), display, params)

    def __str__(self) -> str:
        display = f"{quoted(self.display)} " if self.display else ""
        return f"{display}<{self.uri}>{format_params(self.params)}"

    @property
    def tag(self) -> str:
        return self.params.get("tag") or ""

    def with_tag(self, tag: str) -> NameAddr:
        return NameAddr(self.uri, self.display, {**self.params, "tag": tag})


def name_addr_parts(value: str) -> tuple[str, str, dict[str, str | None]]:
    """Display name, URI and parameters of a From, To, Contact or Route, its URI unread: it may be
    of any scheme."""
    value = value.strip()
    display, rest = "", value
    if value.startswith('"'):
        display, rest = quoted_prefix(value)
        if not rest.startswith("<"):
            raise RemoteProtocolError(f"a display name without <address>: {value[:60]!r}")
    elif "<" in value:
        display, _, rest = value.partition("<")
        display, rest = " ".join(display.split()), "<" + rest
    if rest.startswith("<"):
        uri, bracket, tail = rest[1:].partition(">")
        if not bracket or (tail.strip() and not tail.lstrip().startswith(";")):
            raise RemoteProtocolError(f"not an address: {value[:60]!r}")
        return display, uri.strip(), parse_params(tail)
    # RFC 3261 20.10: without <>, parameters after the URI are header parameters.
    uri, semicolon, tail = rest.partition(";")
    return display, uri.strip(), parse_params(semicolon + tail)


@remembered
def tag_of(value: str) -> str:
    """The tag of a From or To; "" if there is none."""
    usual = _TAGGED.match(value)
    if usual:
        return usual[1] or ""
    return name_addr_parts(value)[2].get("tag") or ""


class CSeq(NamedTuple):
    """RFC 3261 20.16: a number of 32 bits and the method."""

    number: int
    method: str

    @staticmethod
    @remembered
    def parse(value: str) -> CSeq:
        """Raises RemoteProtocolError (400)."""
        match = _CSEQ.match(value)  # LWS is any white space (RFC 3261 25.1)
        number = int(match[1]) if match else 2**32
        if not match or number >= 2**32:
            raise RemoteProtocolError(f"not a CSeq: {value[:40]!r}")
        return CSeq(number, match[2])

    def __str__(self) -> str:
        return f"{self.number} {self.method}"
