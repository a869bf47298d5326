"""What a phone tells and what a forwarder's event stream tells, made into what the stage has seen.
Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from softphone.ua.events import CallChanged, ProbeAnswered, RegistrationChanged, RegistrationState
from stage.gui.message_animation import MessageAnimation, kind_of, label_of
from stage.gui.message_ladder import LadderRow
from stage.observation.observations import (
    CallStateChanged,
    MessageForwarded,
    ProbeAnswer,
    Registration,
)


def heard(phone: str, event: object) -> Registration | CallStateChanged | ProbeAnswer | None:
    """None if it is nothing that the script needs to know."""
    if isinstance(event, RegistrationChanged):
        return Registration(event.at, phone, event.state is RegistrationState.REGISTERED)
    if isinstance(event, CallChanged):
        call = event.call
        return CallStateChanged(
            event.at, phone, call.state.value, call.id, call.answered_at, call.ended_at
        )
    if isinstance(event, ProbeAnswered):
        return ProbeAnswer(event.at, event.sent_at, event.status)
    return None


class ForwardedMessage(NamedTuple):
    """A message that crossed a forwarder, ready to be shown; those of one `lane` travel one after
    the other, not on top of each other."""

    lane: str
    travel: MessageAnimation
    rung: LadderRow
    seen: MessageForwarded


def from_forwarder_message(
    told: dict[str, Any], name_of: Callable[[str, str], str | None], inwards: tuple[str, ...]
) -> ForwardedMessage | None:
    """None if an end is none of ours. `name_of(leg, address)` is the figure's name for an end;
    `inwards` are the nodes between a phone and a server."""
    source, target = name_of(told["from"], told["source"]), name_of(told["to"], told["target"])
    if not source or not target:
        return None
    at, method, status, call = (
        float(told["at"]),
        str(told["method"]),
        told.get("status"),
        str(told["call_id"]),
    )
    label, kind = label_of(method, status), kind_of(status, bool(told.get("replayed")))
    route, begin = (
        (source, *(inwards if told["from"] == "phones" else reversed(inwards)), target),
        source,
    )
    if kind == "replay":  # sent once by the phone, and again by the forwarder
        label, route, begin = f"{label} again", (inwards[-1], target), "forwarder"
    return ForwardedMessage(
        call if method != "REGISTER" else method,
        MessageAnimation(route, label, kind),
        LadderRow(at, begin, target, label, kind),
        MessageForwarded(at, source, target, method, status, call, told["forwarder"]),
    )
