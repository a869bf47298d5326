"""What comes into the services and what comes out of them: events and Outcome.

Pure. A service reads through a Transaction and returns an Outcome; what it must keep is saved
before anything it says is sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from sip.message import Request, Response
from slee_mock.store.records import Record

Address = tuple[str, int]


@dataclass(frozen=True)
class RequestEvent:
    """A request, where its datagram came from, and when. Services copy the message before they edit
    it. `kept`: seconds for which a forwarder kept it as no server lived; `wall` is before them."""

    request: Request
    source: Address
    wall: float
    kept: float = 0.0


@dataclass(frozen=True)
class ResponseEvent:
    response: Response
    source: Address
    wall: float


@dataclass(frozen=True)
class TimerEvent:
    """A record's timer has run out (Record.due). Another member may say so at the same time, and
    what was due when the store was asked may not be any more: look at the record."""

    kind: str
    key: str
    wall: float


@dataclass(frozen=True)
class Party:
    """A name for people and an address-of-record."""

    name: str
    uri: str


@dataclass(frozen=True)
class CallEvent:
    """What the services tell each other about a call. The plain one means: a message of it passed
    here. `passed` is false of those that no message caused; an end among them is presumed, and may
    be proven wrong."""

    passed: ClassVar[bool] = True
    call_id: str
    wall: float


@dataclass(frozen=True)
class CallOffered(CallEvent):
    caller: Party
    callee: Party


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
    """The end of the call was presumed (CallVanished), and a message proves that it went on."""


@dataclass(frozen=True)
class CallCancelled(CallEvent):
    """CANCEL passed. An answer may still cross it."""

    why: str


@dataclass(frozen=True)
class CallUnanswered(CallCancelled):
    """Nobody has answered for so long that nobody will. Should an answer come all the same, it
    counts."""

    passed: ClassVar[bool] = False


@dataclass(frozen=True)
class CallEnded(CallEvent):
    why: str


@dataclass(frozen=True)
class CallExpired(CallEnded):
    """Nobody refreshed its session: it ended with the last message that passed, which is its
    `wall`."""

    passed: ClassVar[bool] = False


@dataclass(frozen=True)
class CallUnacknowledged(CallEnded):
    """The answer was not acknowledged for so long that the callee gives up (RFC 3261 13.3.1.4)."""

    passed: ClassVar[bool] = False


@dataclass(frozen=True)
class CreditExhausted(CallEvent):
    """The caller's balance pays no more than these units of it."""

    passed: ClassVar[bool] = False
    units: int


Arrival = RequestEvent | ResponseEvent  # what the network brings
Event = RequestEvent | ResponseEvent | TimerEvent | CallEvent


class Send(NamedTuple):
    """A datagram to the forwarder, or straight back `to` an address."""

    data: bytes
    to: Address | None = None


class Outcome(NamedTuple):
    """First the saves, all or none, then the sends. `raised` events go to the services that select
    them, in the same transaction; `done` keeps the event from services of lower priority; `note` is
    the decision, for the log."""

    writes: tuple[Record, ...] = ()
    sends: tuple[Send, ...] = ()
    fires: tuple[CallEvent, ...] = ()
    consumed: bool = False
    drop_reason: str = ""
    log_text: str = ""


NOTHING = Outcome()
LONGEST_NAME = 120


def legible(text: str) -> str:
    """A name from the network, short enough for a page and without the bytes that were not
    UTF-8."""
    return text[:LONGEST_NAME].encode("utf-8", "replace").decode()


def drop(reason: str) -> Outcome:
    """`reason` becomes the name of a counter: a few fixed words, nothing from the network."""
    return Outcome(consumed=True, drop_reason=reason)
