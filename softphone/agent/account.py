"""Who this phone is: the account, and the headers that say so."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import quote, unquote

from sip import VERSION
from sip.errors import RemoteProtocolError
from sip.header import NameAddr
from sip.uri import Uri

Address = tuple[str, int]

USER_AGENT = f"call-failover-softphone/{VERSION}"
METHODS = ("INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "UPDATE")
ALLOW = ("Allow", ", ".join(METHODS))

_USER = "%-_.!~*'()&=+$,;?/"  # unreserved and user-unreserved
_AS_TYPED = re.compile(r"""[^\s:@"<>\\\[\]{}|^`\x00-\x1f\x7f]*""")


class Randomness(Protocol):
    """What of random.Random the agent needs; a shell gives it random.SystemRandom()."""

    def getrandbits(self, k: int, /) -> int: ...
    def uniform(self, a: float, b: float) -> float: ...


@dataclass(frozen=True)
class Account:
    """`domain` is the host part of the address-of-record; `display_name` is what the other side reads."""

    user: str
    domain: str
    password: str = field(default="", repr=False)
    display_name: str = ""

    @property
    def uri(self) -> Uri:
        return Uri.parse(f"sip:{self.user}@{bracketed(self.domain)}")

    @property
    def name_addr(self) -> NameAddr:
        return NameAddr(self.uri, self.display_name)

    def contact(self, address: Address) -> NameAddr:
        return NameAddr(Uri("sip", self.user, *address))

    def target(self, text: str) -> Uri:
        """What a person typed: "bob", "bob@host", "sip:bob@host". RemoteProtocolError if it is no address."""
        text = text.strip()
        if not text:
            raise RemoteProtocolError("nobody is named")
        if not text.lower().startswith(("sip:", "sips:")):
            user, at, host = text.partition("@")
            # RFC 3261 25.1, userinfo: what may not stand there, such as letters beyond ASCII, is escaped.
            text = f"sip:{quote(user, safe=_USER)}@{host if at else bracketed(self.domain)}"
        uri = Uri.parse(text)
        if not _AS_TYPED.fullmatch(unquote(uri.user)):
            raise RemoteProtocolError(f"not a user: {uri.user[:40]!r}")
        return uri


def bracketed(host: str) -> str:
    """IPv6 literals go in brackets in a URI."""
    return f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host
