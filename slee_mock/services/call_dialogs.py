"""The dialogs and legs of a call: to which a message belongs, and where it may go.

A call is what one INVITE of a caller began. Its record has
- legs: the ways of the INVITE to users of ours. The first is the caller's own; a phone or PBX that
  sends the INVITE on to another user (a spiral) makes further ones, which are no calls of their
  own.
- dialogs: one for each To tag of a response. A request belongs to the dialog whose tags it has, in
  either direction, whatever else it says.

A request within a dialog goes to an address that the dialog knows: a Contact that the other side
has told, by way of Record-Routes on that side of the cluster. So a phone behind an outbound proxy
of its own is reached through it, and nobody can name a stranger.

Traps
- A dialog is `aside` if it was made on a further leg alone: the caller does not have it (yet), so a
  BYE in it ends no bill.
- 5060 and no port are the same address here, though RFC 3261 19.1.4 tells them apart.
"""

from __future__ import annotations

from collections.abc import Iterable

from sip.errors import RemoteProtocolError
from sip.grammar import canonical_host
from sip.header import NameAddr
from sip.message import Message, Request, Response
from sip.uri import Uri
from slee_mock.services.call_record import Call, Dialog, Leg
from slee_mock.store.records import replace

MOST_CONTACTS = 4  # remembered per side and dialog: phones change theirs by re-INVITE
MOST_DIALOGS = 16  # remembered per call; of more, those that are over or ring go first
MOST_LEGS = 8  # ways of one INVITE to users of ours
MOST_ROUTES = 16  # Record-Routes remembered per side
# To go where the dialog is, whatever they name: a call ends, and is billed, all the same.
ALWAYS_DELIVERED = ("ACK", "BYE")


# -- legs -------------------------------------------------------------------------------------


def with_leg(call: Call, leg: Leg) -> Call:
    """Puts this leg, as it is now, into the call."""
    if all(each.way != leg.way for each in call.legs):
        return replace(call, legs=(*call.legs, leg))
    return replace(call, legs=tuple(leg if each.way == leg.way else each for each in call.legs))


def followed_leg(call: Call, request: Request, way: str) -> Leg | None:
    """Finds the leg whose INVITE this CANCEL, or ACK to a failure, is about: its Request-URI and
    branch are the INVITE's (RFC 3261 9.1, 17.1.1.3), and a proxy between makes them anew. The ACK
    to a 2xx is about none: it has a contact as its Request-URI (12.2.1.1)."""
    if not call.began_with(request.from_tag, request.cseq.number):
        return None
    branch = request.vias[-1].branch
    for leg in call.legs:
        if leg.request_uri == request.uri and (leg.way == way or leg.branch == branch):
            return leg
    return None


# -- dialogs ----------------------------------------------------------------------------------


def find_dialog(call: Call | None, message: Message) -> tuple[Dialog, bool] | None:
    """Finds the dialog with the message's tags, and says whether the caller sent the message."""
    if call is None:
        return None
    tags = message.from_tag, message.to_tag
    for dialog in call.dialogs:
        if tags == (call.caller_tag, dialog.tag):
            return dialog, True
        if tags == (dialog.tag, call.caller_tag):
            return dialog, False
    return None


def with_dialog(call: Call, dialog: Dialog) -> Call:
    """Puts this dialog, as it is now, into the call."""
    known = call.dialogs
    if any(each.tag == dialog.tag for each in known):
        changed = (dialog if each.tag == dialog.tag else each for each in known)
        return replace(call, dialogs=tuple(changed))
    if len(known) >= MOST_DIALOGS:
        living = [each for each in known if each.confirmed and not each.over]
        known = tuple(living[-MOST_DIALOGS + 1 :])
    return replace(call, dialogs=(*known, dialog))


def dialog_after(call: Call, leg: Leg, response: Response) -> Dialog:
    """Finds or makes the dialog of a response to the INVITE, and notes the callee's contact."""
    tag = response.to_tag
    aside = not call.is_own(leg)
    known = next((each for each in call.dialogs if each.tag == tag), None)
    dialog = known or Dialog(tag, (leg.target,), aside=aside)
    contact = contact_of(response)
    contacts = _put_first(contact, dialog.contacts) if contact else dialog.contacts
    routes = _behind(leg, recorded(response))
    routes = (*routes, *(each for each in dialog.routes if each not in routes))[:MOST_ROUTES]
    return replace(dialog, contacts=contacts, routes=routes, aside=dialog.aside and aside)


def hung_up(call: Call, dialog: Dialog, now: float) -> Call:
    """Applies a BYE. While the caller has another dialog, the call goes on (RFC 3261
    13.2.2.4)."""
    call = with_dialog(call, replace(dialog, over=True))
    others = len(call.dialogs) > 1 and any(_lives(each, call.confirmed) for each in call.dialogs)
    if dialog.aside or others:
        return call
    return ended(call, now)


def ended(call: Call, now: float) -> Call:
    """The call after the message that ends it; a copy of that changes nothing."""
    seen = call.seen if call.over else max(call.seen, now)
    return replace(call, over=True, expires=None, seen=seen)


def _lives(dialog: Dialog, confirmed: bool) -> bool:
    if dialog.over or dialog.aside:
        return False
    return dialog.heard if confirmed else True


def acknowledged(call: Call, dialog: Dialog) -> Call:
    """Notes that the caller has acknowledged this dialog's 2xx."""
    if dialog.heard or not dialog.confirmed:
        return call
    return with_dialog(call, replace(dialog, heard=True))


# -- where a request goes ---------------------------------------------------------------------


def target_of(call: Call, dialog: Dialog, request: Request, by_caller: bool) -> str | None:
    """Chooses the Request-URI with which a request of the dialog goes on; None: it names a
    stranger.

    As it was written, if it has the address of a contact that the other side has told. The contact
    told last takes the place of one that cannot be read, and of the address-of-record, which phones
    keep using that heard of no Contact.
    """
    contacts = dialog.contacts if by_caller else call.caller_contacts
    if request.uri in contacts:  # as phones write it
        return request.uri
    uri = read_uri(request.uri)
    told = (read_uri(contact) for contact in contacts)
    if uri and any(each and _is_same_place(uri, each) for each in told):
        return request.uri
    is_unreadable = uri is None or (by_caller and request.uri == call.legs[0].request_uri)
    return contacts[0] if is_unreadable or request.method in ALWAYS_DELIVERED else None


def _is_same_place(one: Uri, other: Uri) -> bool:
    """RFC 3261 19.1.4, but where it would tell apart what is sent to the same address: 5060 is the
    port of a URI that has none."""
    return _place(one) == _place(other)


def _place(uri: Uri) -> tuple[str, str, tuple[str, int], str | None]:
    return uri.scheme, uri.username, uri.address(), uri.params.get("maddr")


def known_routes(call: Call, dialog: Dialog, request: Request, by_caller: bool) -> list[str]:
    """Picks the request's Routes that stood in the Record-Routes of the other side.
    What a caller writes into its own INVITE is on its own side."""
    routes = _values(request, "Route")
    if not routes:
        return []
    if by_caller:
        allowed = set(dialog.routes)
    else:
        allowed = {route for leg in call.legs for route in leg.routes}
    return [value for value in routes if _address(value) in allowed]


def recorded(message: Message) -> tuple[str, ...]:
    """Reads the addresses of its Record-Routes, the topmost first; skips unreadable ones."""
    addresses = (_address(value) for value in _values(message, "Record-Route"))
    return tuple(each for each in addresses if each)[:MOST_ROUTES]


def _behind(leg: Leg, routes: tuple[str, ...]) -> tuple[str, ...]:
    """Picks from a response's Record-Routes those that the INVITE did not have when it came."""
    own = len(leg.routes)
    if own and routes[-own:] == leg.routes:
        return routes[:-own]
    return tuple(each for each in routes if each not in leg.routes)


def _address(value: str) -> str:
    """Reads HOST:PORT of a Route, as the forwarder takes it; "" if it cannot be read."""
    try:
        uri = NameAddr.parse(value).uri
    except RemoteProtocolError:
        return ""
    host, port = uri.address()
    return f"{canonical_host(host)}:{port}"


# -- contacts ---------------------------------------------------------------------------------


def contact_of(message: Message) -> str:
    """Reads the URI of its first Contact; "" if there is none that can be read."""
    for value in _values(message, "Contact")[:1]:
        try:
            return str(NameAddr.parse(value).uri)
        except RemoteProtocolError:
            break
    return ""


def with_contact(call: Call, dialog: Dialog, of_caller: bool, contact: str) -> Call:
    """Applies a target refresh (RFC 3261 12.2)."""
    if of_caller:
        return replace(call, caller_contacts=_put_first(contact, call.caller_contacts))
    return with_dialog(call, replace(dialog, contacts=_put_first(contact, dialog.contacts)))


def added_contact(contacts: tuple[str, ...], contact: str) -> tuple[str, ...]:
    """Adds the contact of a further leg, which is not the first to be tried."""
    return contacts if not contact or contact in contacts else (*contacts, contact)[:MOST_CONTACTS]


def _put_first(contact: str, known: Iterable[str]) -> tuple[str, ...]:
    return (contact, *(each for each in known if each != contact))[:MOST_CONTACTS]


def read_uri(text: str) -> Uri | None:
    try:
        return Uri.parse(text)
    except RemoteProtocolError:
        return None


def _values(message: Message, name: str) -> list[str]:
    try:
        return message.values(name)
    except RemoteProtocolError:
        return []  # an open quotation mark: nobody can tell where one ends
