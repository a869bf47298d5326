"""Turns the events of phones and of the forwarders' event streams into observations."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from sip.reasons import REASONS
from softphone.gui import formatting
from softphone.ua.events import CallChanged, ProbeAnswered, RegistrationChanged, RegistrationState
from stage.gui.message_animation import MessageAnimation
from stage.observation.observations import (
    Bill,
    CallStateChanged,
    LadderRow,
    MessageForwarded,
    ProbeAnswer,
    Registration,
    ServerFailover,
)


def from_phone_event(
    phone: str, event: object
) -> Registration | CallStateChanged | ProbeAnswer | None:
    """None if it is nothing that the use case needs to know."""
    if isinstance(event, RegistrationChanged):
        return Registration(event.at, phone, event.state is RegistrationState.REGISTERED)
    if isinstance(event, CallChanged):
        call = event.call
        return CallStateChanged(
            event.at,
            phone,
            call.state.value,
            call.id,
            call.answered_at,
            call.ended_at,
            call.held_here or call.held_there,
            person(call.peer_uri or call.peer_name),
        )
    if isinstance(event, ProbeAnswered):
        return ProbeAnswer(event.at, event.sent_at, event.status)
    return None


class ForwardedMessage(NamedTuple):
    """A message that crossed a forwarder, ready to be shown; those of one `lane` travel one after
    the other, not on top of each other."""

    lane: str
    travel: MessageAnimation
    row: LadderRow
    seen: MessageForwarded


def from_forwarder_message(
    told: dict[str, Any], name_of: Callable[[str, str], str | None], inwards: tuple[str, ...]
) -> ForwardedMessage | None:
    """None if an end is none of ours. `name_of(leg, address)` is the figure's name for an end;
    `inwards` are the nodes between a phone and a server."""
    source, target = name_of(told["from"], told["source"]), name_of(told["to"], told["target"])
    if not source or not target:
        return None
    at, method, call = float(told["at"]), str(told["method"]), str(told["call_id"])
    status, text = told.get("status"), str(told.get("text") or "")
    label, kind = label_of(method, status), kind_of(status, bool(told.get("replayed")))
    way = inwards if told["from"] == "phones" else tuple(reversed(inwards))
    route, begin = (source, *way, target), source
    if kind == "replay":  # sent once by the phone, and again by the forwarder
        label, route, begin = f"{label} again", (inwards[-1], target), inwards[-1]
    addresses = str(told["source"]), str(told["target"])
    return ForwardedMessage(
        call if method != "REGISTER" else method,
        MessageAnimation(route, label, kind),
        LadderRow(at, begin, target, label, kind, method, call, *addresses, inwards[-1], text),
        MessageForwarded(at, source, target, method, status, call, told["forwarder"]),
    )


ANSWERS = ("last_answer", "first_answer")  # of the two servers, seconds since the epoch


def failover_from_json(told: dict[str, Any]) -> ServerFailover | None:
    """A record of /failovers or of the event stream; None if nobody was left to take over."""
    if not told.get("to"):
        return None
    at = float(told["monotonic"])
    offset = at - float(told["at"])
    return ServerFailover(
        at,
        str(told["from"]),
        str(told["to"]),
        int(told.get("replayed") or 0),
        int(told.get("in_flight") or 0),
        str(told.get("noticed") or ""),
        *(None if told.get(key) is None else float(told[key]) + offset for key in ANSWERS),
    )


TARIFF = re.compile(r"([\d.]+)\s*\+\s*([\d.]+)\s*/\s*(\d+)\s*s", re.ASCII)


def bill_from_json(call: dict[str, Any], server: str, page: str) -> Bill:
    """From one entry of the `/calls` of `server`, whose pages are at `page`."""
    carried = call.get("carried") or ()
    return Bill(
        time.monotonic(),
        server,
        str(call["call_id"]),
        int(call["seconds"]),
        str(call["total"]),
        str(call["currency"]),
        bool(call["final"]),
        tuple((str(part["server"]), float(part["seconds"] or 0)) for part in carried),
        person(str(call.get("caller", ""))),
        person(str(call.get("callee", ""))),
        str(call.get("why") or ""),
        terms_of(str(call.get("tariff") or ""), call.get("units")),
        page,
        float(call.get("answered") or 0),
    )


def terms_of(tariff: str, units: object) -> str:
    """ "0.10+0.05/10s" and 2 units read "0.10 set-up + 2 \u00d7 0.05 per started 10 s"."""
    match = TARIFF.fullmatch(tariff)
    if not match or not isinstance(units, int):
        return ""
    fee, price, seconds = match.groups()
    return f"{fee} set-up + {units} \u00d7 {price} per started {seconds} s"


def person(uri: str) -> str:
    """The name in an address-of-record: "sip:alice@failover.test" is Alice to everybody here."""
    user = formatting.one_line(uri.removeprefix("sip:").partition("@")[0])
    return user[:1].upper() + user[1:]


def label_of(method: str, status: int | None) -> str:
    """The label of a message on its way: INVITE, 180 Ringing, 200 OK."""
    if status is None:
        return method
    return f"{status} {SHORT_REASONS.get(status) or REASONS.get(status, '')}".rstrip()


def kind_of(status: int | None, replayed: bool) -> str:
    if replayed:
        return "replay"
    if status is None:
        return "request"
    return "answer" if status < 300 else "refusal"


# shorter than RFC 3261's own
SHORT_REASONS = {
    401: "Who?",
    402: "Payment",
    404: "Unknown",
    407: "Who?",
    408: "Timeout",
    480: "Absent",
    481: "No call",
    486: "Busy",
    487: "Cancelled",
    503: "No server",
    603: "Declined",
}
