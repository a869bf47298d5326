"""What stands in a header line: its name, name-addr, CSeq (RFC 3261 7.3, 20)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from sip.errors import RemoteProtocolError
from sip.grammar import format_params, is_token, parse_params, quoted, quoted_prefix, split_list
from sip.uri import Uri

# RFC 3261 7.3.3 and the compact forms that later RFCs registered.
COMPACT = {
    "a": "Accept-Contact", "b": "Referred-By", "c": "Content-Type", "e": "Content-Encoding", "f": "From",
    "i": "Call-ID", "j": "Reject-Contact", "k": "Supported", "l": "Content-Length", "m": "Contact",
    "o": "Event", "r": "Refer-To", "s": "Subject", "t": "To", "u": "Allow-Events", "v": "Via", "x": "Session-Expires",
}  # fmt: skip
_SPELLED = {
    "call-id": "Call-ID", "cseq": "CSeq", "www-authenticate": "WWW-Authenticate", "mime-version": "MIME-Version",
}  # fmt: skip


@lru_cache(maxsize=512)
def canonical(name: str) -> str:
    """The field name as RFC 3261 spells it: canonical("i") == canonical("CALL-ID") == "Call-ID"."""
    low = name.lower()
    return COMPACT.get(low) or _SPELLED.get(low) or "-".join(part.capitalize() for part in low.split("-"))


@dataclass(frozen=True)
class NameAddr:
    """From, To, Contact, Route: an optional display name, a URI, header parameters (RFC 3261 20.10)."""

    uri: Uri
    display: str = ""
    params: Mapping[str, str | None] = field(default_factory=dict)

    @staticmethod
    def parse(value: str) -> NameAddr:
        display, uri, params = name_addr_parts(value)
        return NameAddr(Uri.parse(uri), display, params)

    def __str__(self) -> str:
        display = f"{quoted(self.display)} " if self.display else ""
        return f"{display}<{self.uri}>{format_params(self.params)}"

    @property
    def tag(self) -> str:
        return self.params.get("tag") or ""

    def with_tag(self, tag: str) -> NameAddr:
        return NameAddr(self.uri, self.display, {**self.params, "tag": tag})


def name_addr_parts(value: str) -> tuple[str, str, dict[str, str | None]]:
    """Display name, URI and parameters of a From, To, Contact or Route, its URI unread: it may be of any scheme."""
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


def tag_of(value: str) -> str:
    """The tag of a From or To; "" if there is none."""
    return name_addr_parts(value)[2].get("tag") or ""


@dataclass(frozen=True)
class CSeq:
    """RFC 3261 20.16: a number of 32 bits and the method."""

    number: int
    method: str

    @staticmethod
    def parse(value: str) -> CSeq:
        number, _, method = value.strip().partition(" ")
        method = method.strip()
        is_number = number.isascii() and number.isdigit() and len(number) <= 10
        if not is_number or int(number) >= 2**32 or not is_token(method):
            raise RemoteProtocolError(f"not a CSeq: {value[:40]!r}")
        return CSeq(int(number), method)

    def __str__(self) -> str:
        return f"{self.number} {self.method}"


__all__ = ["COMPACT", "CSeq", "NameAddr", "canonical", "format_params", "parse_params", "split_list", "tag_of"]
