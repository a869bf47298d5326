"""The records of the registrar: the bindings of an address-of-record (RFC 3261 10). Other services
read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sip.errors import RemoteProtocolError
from sip.uri import Uri
from slee_mock.store.records import Record


@dataclass(frozen=True)
class Binding:
    """One contact of an address-of-record (RFC 3261 10), and the REGISTER that brought it."""

    contact: str
    call_id: str
    cseq: int
    expires_at: float
    refreshed_at: float
    q: float = 1.0
    server: str = ""

    def alive(self, now: float) -> bool:
        return self.expires_at > now


@dataclass(frozen=True)
class LastRegister:
    """The last REGISTER with this Call-ID that was carried out, and when."""

    call_id: str
    cseq: int
    wall: float


@dataclass(frozen=True)
class Bindings(Record):
    """All bindings of one address-of-record. `heard`, the latest first, outlives them for a while:
    a stale REGISTER, of a phone that has started anew or gone since then, cannot bring back what is
    over."""

    KIND: ClassVar[str] = "bindings"
    aor: str
    display: str = ""
    bindings: tuple[Binding, ...] = ()
    heard: tuple[LastRegister, ...] = ()

    def live(self, now: float) -> list[Binding]:
        """Best first: highest q, then freshest."""
        alive = (binding for binding in self.bindings if binding.alive(now))
        return sorted(alive, key=lambda binding: (-binding.q, -binding.refreshed_at))


def address_of_record(uri: Uri) -> str:
    """The key of a user's bindings. Raises RemoteProtocolError for another scheme (RFC 3261 10.2:
    To must be a SIP URI), or if the URI names no user."""
    if not uri.is_sip:
        raise RemoteProtocolError("an address-of-record is a SIP URI")
    if not uri.user:
        raise RemoteProtocolError("an address-of-record needs a user", status=404)
    aor = uri.aor()
    if not aor.isprintable():
        raise RemoteProtocolError("an address-of-record has bytes that cannot stand in one")
    return aor
