"""Turns the events of phones and of the forwarders' event streams into observations."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from softphone.gui import formatting
from softphone.ua.events import CallChanged, RegistrationChanged, RegistrationState
from stage.observation.observations import (
    Bill,
    CallStateChanged,
    MessageForwarded,
    Registration,
    ServerFailover,
)


def from_phone_event(phone: str, event: object) -> Registration | CallStateChanged | None:
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
    return None


def from_forwarder_message(
    told: dict[str, Any], name_of: Callable[[str, str], str | None]
) -> MessageForwarded | None:
    """None if an end is none of ours. `name_of(leg, address)` is the figure's name for an end."""
    source, target = name_of(told["from"], told["source"]), name_of(told["to"], told["target"])
    if not source or not target:
        return None
    return MessageForwarded(
        float(told["at"]),
        source,
        target,
        str(told["method"]),
        told.get("status"),
        str(told["call_id"]),
        str(told["forwarder"]),
        bool(told.get("replayed")),
        str(told["source"]),
        str(told["target"]),
        str(told.get("text") or ""),
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
