"""The Via header: the path of a request, which its responses take back (RFC 3261 20.42, 18.2.2;
RFC 3581)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from sip.errors import RemoteProtocolError
from sip.grammar import (
    HOST_PORT,
    NO_PARAMS,
    SPACE,
    canonical_host,
    format_params,
    is_number,
    parse_params,
    port_number,
    remembered,
)
from sip.uri import DEFAULT_PORT

MAGIC_COOKIE = "z9hG4bK"

# sent-protocol, sent-by, and the parameters (RFC 3261 25.1)
_VIA = re.compile(
    rf"(?ai:SIP){SPACE}*/{SPACE}*([0-9]\.[0-9]){SPACE}*/{SPACE}*([A-Za-z0-9\-.!%*_+`'~]+){SPACE}+"
    + HOST_PORT
    + rf"{SPACE}*(;.*)?\Z",
    re.DOTALL,
)


class Via(NamedTuple):
    """One Via value. `port` is None where none was written; `params` keys are lower case, in their
    order. A `version` other than 2.0 is kept, for the 505 that answers it has to come back with
    it."""

    transport: str
    host: str
    port: int | None = None
    params: Mapping[str, str | None] = NO_PARAMS
    version: str = "2.0"

    @staticmethod
    @remembered
    def parse(value: str) -> Via:
        """Raises RemoteProtocolError (400)."""
        match = _VIA.match(value)
        if not match:
            raise RemoteProtocolError(f"not a Via: {value[:60]!r}")
        version, transport, host, port, params = match.groups()
        return Via(
            transport.upper(),
            host.strip("[]"),
            port_number(port),
            parse_params(params or ""),
            version,
        )

    def __hash__(self) -> int:
        return hash((self.host, self.port, self.branch))

    def __str__(self) -> str:
        return f"SIP/{self.version}/{self.transport} {self.sent_by}{format_params(self.params)}"

    @property
    def sent_by(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    @property
    def branch(self) -> str:
        return self.params.get("branch") or ""

    @property
    def received(self) -> str:
        return (self.params.get("received") or "").strip("[]")

    @property
    def rport(self) -> int | None:
        """The port filled in by the receiver; None if absent, empty (a wish) or not a port."""
        text = self.params.get("rport") or ""
        return int(text) if is_number(text, 5) and 0 < int(text) < 65536 else None

    def with_source(self, host: str, port: int) -> Via:
        """The Via as the receiver completes it: `received` where it says something new, `rport`
        where it was asked for (RFC 3261 18.2.1, RFC 3581 4)."""
        wishes_rport = "rport" in self.params
        params = {k: v for k, v in self.params.items() if k != "received"}
        if wishes_rport:
            params["rport"] = str(port)
        if wishes_rport or canonical_host(self.host) != canonical_host(host):
            params["received"] = host
        return Via(self.transport, self.host, self.port, params, self.version)

    def reply_address(self) -> tuple[str, int]:
        """Where a response goes over UDP: maddr, else received and rport, else sent-by (18.2.2, RFC
        3581 4)."""
        maddr = self.params.get("maddr")
        if maddr:
            return maddr.strip("[]"), self.port or DEFAULT_PORT
        return canonical_host(self.received or self.host), self.rport or self.port or DEFAULT_PORT
