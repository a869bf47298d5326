"""The registrar (RFC 3261 10.3): an entity is an address-of-record, its record the bindings.

A REGISTER takes effect as a whole or not at all.

CSeq orders a phone's REGISTERs per Call-ID. A REGISTER is compared
- with the living bindings that it names, if they have its Call-ID (10.3 step 7), and
- for MEMORY_SECONDS with the last REGISTER of its Call-ID, whatever became of its bindings.
A lower CSeq is refused; an equal one is answered and changes nothing. The second comparison keeps
out what the network or a frozen server delivers late: no phone repeats a REGISTER for longer than
32 s (17.1.2.2), nor does the forwarder, and a server that was frozen for longer drops those in its
socket (receive_queue.py). After that a restarted phone may begin with CSeq 1 and its old Call-ID,
once its bindings were removed or have expired.

A contact that no call could reach is refused: the forwarder looks up no names and speaks UDP.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import formatdate

from plumbing.address import literal
from sip.errors import RemoteProtocolError
from sip.grammar import is_number, quoted
from sip.header import NameAddr
from sip.message import Request
from sip.timing import PATIENCE
from sip.uri import Uri
from slee_mock.container.events import Event, Outcome, RequestEvent, legible
from slee_mock.container.sbb import Entity, InitialEvent
from slee_mock.services.bindings_record import Binding, Bindings, LastRegister, address_of_record
from slee_mock.sip_adaptor import LocalResponses
from slee_mock.store.purge import DAY_SECONDS, RetentionRule

DEFAULT_EXPIRES = 3600  # seconds; also for a malformed `expires` (RFC 3261 10.2.1.1)
MOST_EXPIRES = 3600
LEAST_EXPIRES = 10
MOST_BINDINGS = 10  # alive at once, per address-of-record
MEMORY_SECONDS = PATIENCE  # seconds for which a Call-ID is remembered beyond its bindings
MOST_REMEMBERED = 20  # Call-IDs, per address-of-record
MOST_USERS = 1_000  # whose records are kept however old they are
MOST_SHOWN = 60  # characters of a contact in a Warning

_Q = re.compile(r"(0(\.[0-9]{0,3})?|1(\.0{0,3})?)\Z")


@dataclass(frozen=True)
class Contact:
    """A Contact of a REGISTER; `expires` 0 asks for the removal of its binding."""

    uri: Uri
    expires: int
    q: float


def _is_register(event: RequestEvent) -> bool:
    return event.request.method == "REGISTER"


def _whose(event: RequestEvent) -> str:
    return address_of_record(event.request.to.uri)


def _are_old(bindings: Bindings, now: float) -> bool:
    """Have all expired a day ago? No REGISTER of theirs can be on its way any more."""
    ends = (each.expires_at for each in bindings.bindings)
    last = max((*ends, *(each.wall for each in bindings.heard)), default=0.0)
    return now - last > DAY_SECONDS


class Registrar:
    """Takes REGISTERs. `server`: its name, which it writes into the bindings, for the page."""

    name = "registrar"
    records = (Bindings,)
    events = (InitialEvent(RequestEvent, name=_whose, when=_is_register),)
    keeps = (RetentionRule(Bindings, MOST_USERS, _are_old),)

    def __init__(self, answers: LocalResponses, server: str = "") -> None:
        self._answers = answers
        self._server = server

    def handle(self, event: Event, entity: Entity) -> Outcome:
        assert isinstance(event, RequestEvent)
        Uri.parse(event.request.uri)  # RFC 3261 8.2.2.1: 416 for another scheme
        required = event.request.values("Require")
        if required:
            return self._answers.refuse(event, 420, fields=[("Unsupported", ", ".join(required))])
        known = entity.get(Bindings) or Bindings(entity.name)
        updated = self._updated(known, event)
        if isinstance(updated, Outcome):
            return updated
        answer = self._answers.answer(event, 200, fields=_listing(updated, event.time))
        writes = () if updated == known else (updated,)
        return Outcome(
            writes=writes,
            sends=(answer,),
            consumed=True,
            log_text=f"{entity.name} {len(updated.live(event.time))} bound",
        )

    def _updated(self, known: Bindings, event: RequestEvent) -> Bindings | Outcome:
        """Applies the REGISTER to the bindings: all of it, or none where it returns a refusal (RFC
        3261 10.3 step 7)."""
        request = event.request
        values = request.values("Contact")
        if not values:
            return known
        contacts = self._contacts(known, values, event)
        if isinstance(contacts, Outcome):
            return contacts
        bindings = known.live(event.time)
        last = _last_cseq(known.heard, bindings, contacts, event)
        if request.cseq.number < last:
            return self._answers.refuse(event, 500, "CSeq Out Of Order")
        if request.cseq.number == last:
            return known  # a retransmission: what came since then stays
        for contact in contacts:
            bindings = self._apply(bindings, contact, event)
        if len(bindings) > MOST_BINDINGS:
            return self._answers.refuse(event, 403, f"More Than {MOST_BINDINGS} Bindings")
        display = request.to.display or request.from_.display or known.display
        return Bindings(known.aor, legible(display), tuple(bindings), _heard(known, event))

    def _contacts(
        self, known: Bindings, values: list[str], event: RequestEvent
    ) -> list[Contact] | Outcome:
        if "*" in values:
            if len(values) > 1 or _expires_of(event.request) != 0:
                return self._answers.refuse(
                    event, 400, "Wildcard Needs Expires Zero And No Other Contact"
                )
            return [Contact(Uri.parse(each.contact), 0, each.q) for each in known.live(event.time)]
        expires = _expires_of(event.request)
        contacts = [_read_contact(NameAddr.parse_any(value), expires) for value in values]
        for contact in contacts:
            why = _unreachable(contact.uri) if contact.expires else ""
            if why:
                warning = ("Warning", f"399 registrar {quoted(why)}")  # RFC 3261 20.43
                return self._answers.refuse(event, 400, "Contact Cannot Be Reached", [warning])
        if any(0 < contact.expires < LEAST_EXPIRES for contact in contacts):
            return self._answers.refuse(event, 423, fields=[("Min-Expires", str(LEAST_EXPIRES))])
        return contacts

    def _apply(
        self, bindings: list[Binding], contact: Contact, event: RequestEvent
    ) -> list[Binding]:
        others = [each for each in bindings if not Uri.parse(each.contact).same_as(contact.uri)]
        if contact.expires == 0:
            return others
        made = Binding(
            contact=str(contact.uri),
            call_id=event.request.call_id,
            cseq=event.request.cseq.number,
            expires_at=event.time + contact.expires,
            refreshed_at=event.time,
            q=contact.q,
            server=self._server,
        )
        return [made, *others]


def _expires_of(request: Request) -> int:
    """Reads the Expires header field. A malformed one counts as none (RFC 3261 10.2.1.1)."""
    try:
        expires = request.expires
    except RemoteProtocolError:
        expires = None
    return DEFAULT_EXPIRES if expires is None else expires


def _read_contact(contact: NameAddr, expires: int) -> Contact:
    text = contact.params.get("expires")
    if text is not None:
        expires = int(text) if is_number(text, 10) else DEFAULT_EXPIRES
    q = contact.params.get("q") or "1"
    if not _Q.match(q):
        raise RemoteProtocolError(f"not a q value: {q[:20]!r}")
    # RFC 3261 19.1.1: a Request-URI, which this will become, has no headers.
    uri = contact.uri._replace(headers="")
    if not str(uri).isprintable():
        raise RemoteProtocolError("a contact has bytes that cannot stand in one")
    return Contact(uri, min(expires, MOST_EXPIRES), float(q))


def _unreachable(uri: Uri) -> str:
    """Says in a sentence why no call could reach this contact; "" if one could."""
    shown = str(uri)[:MOST_SHOWN]
    if uri.scheme != "sip":
        return f"{shown} is not a sip: URI; register one with an IP address"
    if literal(uri.address()):
        return ""
    host = uri.host[:MOST_SHOWN]
    why = "is not the IP address of one computer, and names are not looked up"
    return f"{host} {why}; register an IP address"


def _last_cseq(
    heard: Sequence[LastRegister],
    bindings: Sequence[Binding],
    contacts: Sequence[Contact],
    event: RequestEvent,
) -> int:
    """Finds the highest CSeq that the request has to exceed; -1 if there is none."""
    call_id = event.request.call_id
    lately = [each for each in heard if event.time - each.wall < MEMORY_SECONDS]
    named = [
        each
        for each in bindings
        if any(contact.uri.same_as(Uri.parse(each.contact)) for contact in contacts)
    ]
    known: list[LastRegister | Binding] = [*lately, *named]
    return max((each.cseq for each in known if each.call_id == call_id), default=-1)


def _heard(known: Bindings, event: RequestEvent) -> tuple[LastRegister, ...]:
    last = LastRegister(event.request.call_id, event.request.cseq.number, event.time)
    before = (
        each
        for each in known.heard
        if each.call_id != last.call_id and event.time - each.wall < MEMORY_SECONDS
    )
    return (last, *before)[:MOST_REMEMBERED]


def _listing(bindings: Bindings, now: float) -> list[tuple[str, str]]:
    contacts = [
        ("Contact", f"<{each.contact}>;expires={math.ceil(each.expires_at - now)};q={each.q:g}")
        for each in bindings.live(now)
    ]
    return [*contacts, ("Date", formatdate(now, usegmt=True))]
