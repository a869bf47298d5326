"""SIP and SIPS URIs (RFC 3261 19.1)."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import NamedTuple
from urllib.parse import unquote

from sip.errors import RemoteProtocolError
from sip.grammar import (
    NO_PARAMS,
    canonical_host,
    format_params,
    parse_params,
    port_number,
    remembered,
)

DEFAULT_PORT = 5060

_URI = re.compile(
    r"""(?P<scheme>(?a:sips?)):
        (?:(?P<user>[^@:;?\s]*(?:[;?][^@:\s]*)?)(?::(?P<password>[^@\s]*))?@)?
        (?P<host>\[[0-9A-Fa-f:.%]+\]|[^\[\]:;?\s@]+)
        (?::(?P<port>[0-9]{1,5}))?
        (?P<params>(?:;[^?\s]*)?)
        (?:\?(?P<headers>\S*))?$""",
    re.VERBOSE | re.IGNORECASE,
)

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")  # RFC 3986 3.1
_OPAQUE = re.compile(
    r"(?P<user>[^;?\s<>\"]+)(?P<params>(?:;[^?\s<>]*)?)(?:\?(?P<headers>[^\s<>]*))?"
)

# RFC 3261 19.1.4: these parameters matter even when only one of the two URIs has them.
_TELLING = ("user", "ttl", "method", "maddr", "transport")


class Uri(NamedTuple):
    """One SIP URI. `host` has no brackets, `port` is None where none was written, `params` keys are
    lower case.

    One of another scheme (`parse_any`) has no host: `user` is all that stands between the scheme
    and the parameters.
    """

    scheme: str
    user: str
    host: str
    port: int | None = None
    password: str = ""
    params: Mapping[str, str | None] = NO_PARAMS
    headers: str = ""

    @staticmethod
    @remembered
    def parse(text: str) -> Uri:
        """Raises RemoteProtocolError: 416 for a scheme other than sip and sips, else 400."""
        match = _URI.match(text)
        if not match:
            scheme = _SCHEME.match(text)
            if scheme and scheme[1].lower() not in ("sip", "sips"):
                raise RemoteProtocolError(f"unsupported URI scheme: {scheme[1][:20]}", status=416)
            raise RemoteProtocolError(f"not a SIP URI: {text[:80]!r}")
        name, user, password, host, port, params, headers = match.groups()
        return Uri(
            name.lower(),
            user or "",
            host.strip("[]"),
            port_number(port),
            password or "",
            parse_params(params),
            headers or "",
        )

    @staticmethod
    def parse_any(text: str) -> Uri:
        """As `parse`, but a URI of any scheme, such as tel (RFC 3966), is read too: they stand in
        the From, To and Contact of everyday calls (RFC 4475 3.3.4). RemoteProtocolError (400) if it
        is none."""
        scheme = _SCHEME.match(text)
        if not scheme or scheme[1].lower() in ("sip", "sips"):
            return Uri.parse(text)
        whole = _OPAQUE.fullmatch(text, scheme.end())
        if not whole:
            raise RemoteProtocolError(f"not a URI: {text[:80]!r}")
        params = parse_params(whole["params"])
        return Uri(
            scheme[1].lower(), whole["user"], "", params=params, headers=whole["headers"] or ""
        )

    def __hash__(self) -> int:
        return hash((self.scheme, self.user, self.host, self.port))

    def __str__(self) -> str:
        password = f":{self.password}" if self.password else ""
        headers = f"?{self.headers}" if self.headers else ""
        if not self.is_sip:
            return f"{self.scheme}:{self.user}{format_params(self.params)}{headers}"
        user = f"{self.user}{password}@" if self.user else ""
        return f"{self.scheme}:{user}{self.host_port}{format_params(self.params)}{headers}"

    @property
    def is_sip(self) -> bool:
        """SIP or SIPS, and no tel or another scheme that names no host to send to."""
        return self.scheme in ("sip", "sips")

    @property
    def host_port(self) -> str:
        """As written in a URI or a Via: brackets around IPv6, the port only if there is one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    @property
    def username(self) -> str:
        """The user as a password file or Digest writes it: unescaped (RFC 3261 19.1.4)."""
        return unquote(self.user)

    def address(self) -> tuple[str, int]:
        """Where a message to this URI goes, maddr aside: host (a name is not looked up; in the form
        in which hosts are compared) and port."""
        return canonical_host(self.host), self.port or DEFAULT_PORT

    def aor(self) -> str:
        """The canonical address-of-record (RFC 3261 10.3 step 5): no parameters, user unescaped,
        host lower case. Of a URI of another scheme all of it: which parts count, that scheme alone
        knows."""
        if not self.is_sip:
            return str(self)
        host = canonical_host(self.host)
        host = f"[{host}]" if ":" in host else host
        port = "" if self.port in (None, DEFAULT_PORT) else f":{self.port}"
        user = f"{self.username}@" if self.user else ""
        return f"sip:{user}{host}{port}"

    def same_as(self, other: Uri) -> bool:
        """RFC 3261 19.1.4: do the two name the same resource?"""
        if not (self.is_sip and other.is_sip):
            return str(self) == str(other)
        shared = self.params.keys() & other.params.keys()
        return self._compared(shared) == other._compared(shared)

    def _compared(self, shared: Collection[str]) -> tuple[object, ...]:
        """The parts that are equal in two URIs of one resource. `shared`: the parameters that both
        have; of the others only those in _TELLING count."""
        params = {
            name: unquote(value or "").lower()
            for name, value in self.params.items()
            if name in shared or name in _TELLING
        }
        headers = sorted(unquote(part).lower() for part in self.headers.split("&") if part)
        address = canonical_host(self.host), self.port
        return self.scheme, self.username, unquote(self.password), address, params, headers
