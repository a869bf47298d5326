"""The SIP account of a phone, and its From and Contact header fields."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import quote, unquote

from plumbing.address import Address as Address
from sip import VERSION
from sip.errors import RemoteProtocolError
from sip.header import NameAddr
from sip.uri import Uri

USER_AGENT = f"call-failover-softphone/{VERSION}"
METHODS = ("INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "PRACK", "UPDATE")
ALLOW = ("Allow", ", ".join(METHODS))

_USER = "%-_.!~*'()&=+$,;?/"  # unreserved and user-unreserved
_LONE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


class Randomness(Protocol):
    """The part of random.Random that the agent needs; a shell gives it random.SystemRandom()."""

    def getrandbits(self, k: int, /) -> int: ...
    def uniform(self, a: float, b: float) -> float: ...


@dataclass(frozen=True)
class Account:
    """`user` is as a person writes it. `domain` is the host part of the address-of-record;
    `display_name` is what the other side reads; `realms` are more realms whose servers may have the
    password's proof (digest_auth.py), `servers` more addresses that its server speaks from."""

    user: str
    domain: str
    password: str = field(default="", repr=False)
    display_name: str = ""
    realms: tuple[str, ...] = ()
    servers: tuple[Address, ...] = ()

    @property
    def username(self) -> str:
        """Unescaped, as Digest and a file of passwords have it."""
        return normal(self.user)

    @property
    def uri(self) -> Uri:
        return Uri.parse(f"sip:{escaped(self.user)}@{bracketed(ascii_host(self.domain))}")

    @property
    def name_addr(self) -> NameAddr:
        return NameAddr(self.uri, self.display_name)

    def contact(self, address: Address) -> NameAddr:
        return NameAddr(Uri("sip", escaped(self.user), *address))

    def is_called(self, user: str) -> bool:
        """Is the user part of a URI ours? Compared unescaped (RFC 3261 19.1.4); capitals are no
        other person."""
        return normal(user).casefold() == self.username.casefold()


def escaped(user: str) -> str:
    """The user part of a URI (RFC 3261 25.1, userinfo): what may not stand there, such as letters
    beyond ASCII, is escaped; what is escaped already stays."""
    composed = unicodedata.normalize("NFC", user)  # as typed on any keyboard
    return quote(_LONE_PERCENT.sub("%25", composed), safe=_USER, errors="surrogateescape")


def normal(user: str) -> str:
    """A user part as a person reads it: unescaped, and in one of the two ways that Unicode has to
    write an umlaut."""
    return unicodedata.normalize("NFC", unquote(user, errors="surrogateescape"))


def bracketed(host: str) -> str:
    """IPv6 literals go in brackets in a URI."""
    return f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host


def ascii_host(host: str) -> str:
    """A host as it travels: names beyond ASCII as IDNA has them (RFC 5890). RemoteProtocolError if
    that cannot be."""
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        raise RemoteProtocolError(f"not the name of a host: {host[:60]!r}") from None
