"""Events, which go into SBBs, and outcomes, which come out of them.

An SBB reads through a transaction and returns an outcome. What it writes is saved before any of its
datagrams is sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from sip.message import Request, Response
from slee_mock.store.records import Record

Address = tuple[str, int]


@dataclass(frozen=True)
class RequestEvent:
    """A request, where its datagram came from, and when (cluster time). SBBs copy the message
    before they edit it. `kept`: seconds for which a forwarder kept it while no server lived; `time`
    is before them."""

    request: Request
    source: Address
    time: float
    kept: float = 0.0


@dataclass(frozen=True)
class ResponseEvent:
    response: Response
    source: Address
    time: float


@dataclass(frozen=True)
class TimerEvent:
    """A record's timer has run out (Record.due). Several servers may fire the same timer: look at
    the record, whether it is still due."""

    kind: str
    key: str
    time: float


@dataclass(frozen=True)
class Party:
    """A name for people and an address-of-record."""

    name: str
    uri: str


@dataclass(frozen=True)
class CallEvent:
    """An event about a call that SBBs fire for each other. The plain one means that a message of it
    passed. `by_message` is false where a timer is the cause; such an end is presumed, and a message
    may prove it wrong."""

    by_message: ClassVar[bool] = True
    call_id: str
    time: float


@dataclass(frozen=True)
class CallOffered(CallEvent):
    """`is_reuse`: its Call-ID is that of a call that was over long before (Call.is_forgotten)."""

    caller: Party
    callee: Party
    is_reuse: bool = False


@dataclass(frozen=True)
class CallRang(CallEvent):
    pass


@dataclass(frozen=True)
class CallAnswered(CallEvent):
    pass


@dataclass(frozen=True)
class CallAcknowledged(CallEvent):
    """The caller has heard of the answer: its ACK passed, or a BYE or re-INVITE of the same dialog.
    `by_bye`: nothing tells when it has."""

    by_bye: bool = False


@dataclass(frozen=True)
class CallContinued(CallEvent):
    """The end of the call was presumed (CallExpired), and a message proves that it went on."""


@dataclass(frozen=True)
class CallCancelled(CallEvent):
    """CANCEL passed. An answer may still cross it."""

    why: str


@dataclass(frozen=True)
class CallUnanswered(CallCancelled):
    """The call rang for so long that no answer is expected. One that comes all the same counts."""

    by_message: ClassVar[bool] = False


@dataclass(frozen=True)
class CallEnded(CallEvent):
    why: str


@dataclass(frozen=True)
class CallExpired(CallEnded):
    """The session timer ran out: the call ended with the last message that passed, at `time`."""

    by_message: ClassVar[bool] = False


@dataclass(frozen=True)
class CallUnacknowledged(CallEnded):
    """The answer was not acknowledged for so long that the callee gives up (RFC 3261 13.3.1.4)."""

    by_message: ClassVar[bool] = False


@dataclass(frozen=True)
class CreditExhausted(CallEvent):
    """The caller's balance pays no more than these units of it."""

    by_message: ClassVar[bool] = False
    units: int


Arrival = RequestEvent | ResponseEvent  # what the network brings
Event = RequestEvent | ResponseEvent | TimerEvent | CallEvent


class Send(NamedTuple):
    """A datagram to the forwarder, or straight back `to` an address."""

    data: bytes
    to: Address | None = None


class Outcome(NamedTuple):
    """An SBB's decision on an event. `writes` are saved first, all or none, then `sends` are sent.
    `fires`: events for the SBBs that select them, in the same transaction. `consumed` keeps the
    event from SBBs of lower priority. `drop_reason`: the counter of a message that goes nowhere.
    `log_text`: the decision, for the log."""

    writes: tuple[Record, ...] = ()
    sends: tuple[Send, ...] = ()
    fires: tuple[CallEvent, ...] = ()
    consumed: bool = False
    drop_reason: str = ""
    log_text: str = ""


NOTHING = Outcome()
LONGEST_NAME = 120


def legible(text: str) -> str:
    """Cuts a name from the network to a page's width, and replaces bytes that were not UTF-8."""
    return text[:LONGEST_NAME].encode("utf-8", "replace").decode()


def drop(reason: str) -> Outcome:
    """Drops the message. `reason` names the counter: a fixed word, nothing from the network."""
    return Outcome(consumed=True, drop_reason=reason)
