"""The records of call control: calls with their legs and dialogs, and the searches for a phone that
answers. Other services read calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sip.errors import RemoteProtocolError
from sip.message import Message, Request
from sip.timing import PATIENCE
from slee_mock.store.interface import Transaction
from slee_mock.store.records import Record

# RFC 3261 16.6: Timer C, more than 180 s. After it nobody will answer an INVITE any more.
TIMER_C_SECONDS = 200.0
# Seconds for which copies of an INVITE come: a phone repeats it for 32 s, and the network may hold
# it as long; a frozen server drops old copies (receive_queue.py). The forwarder sends a ringing
# INVITE to the next server for longer, until its final answer has passed (pending_messages.py): if
# a server dies as it has saved that answer, the copy comes after the call's end. Our forwarder says
# how old the copy is (Failover-Kept); other proxies do not.
COPIES_SECONDS = 2 * PATIENCE


@dataclass(frozen=True)
class Dialog:
    """A dialog that the call's INVITE made. There are several where it was forked behind a binding
    (RFC 3261 13.2.2.4)."""

    tag: str  # the callee's
    contacts: tuple[str, ...] = ()  # the callee's, the latest first
    routes: tuple[str, ...] = ()  # addresses of the Record-Routes on the callee's side
    confirmed: bool = False  # a 2xx to the caller has passed
    heard: bool = False  # it was confirmed first, or its caller has acknowledged it
    over: bool = False
    aside: bool = False  # made on a further leg alone: it is not the caller's


@dataclass(frozen=True)
class Leg:
    """A way of the call's INVITE to one user. There are several where a phone or PBX sends it on to
    another user of ours (a spiral, RFC 3261 16.3)."""

    request_uri: str  # as it came here
    target: str  # the contact chosen
    branch: str  # of the Via it came with: tells a retransmission from a merged request
    way: str  # the branch that this cluster's Via has for it
    routes: tuple[str, ...] = ()  # addresses of the Record-Routes it came with, the nearest first
    attempt: int = 0  # bindings that did not answer before `target` was tried
    searched: bool = False  # other bindings are tried after `target`: there is a Search


@dataclass(frozen=True)
class Call(Record):
    """A call: all that the proxy must know to pass any message of it on as the first server did."""

    KIND: ClassVar[str] = "call"
    call_id: str
    caller_tag: str
    cseq: int  # the INVITE's number
    offered: float
    legs: tuple[Leg, ...]  # the caller's own first
    caller: str = ""  # names for sentences
    callee: str = ""
    caller_contacts: tuple[str, ...] = ()
    dialogs: tuple[Dialog, ...] = ()
    confirmed: bool = False  # a 2xx has passed
    given_up: bool = False  # CANCEL has passed
    over: bool = False  # a final failure or a BYE has passed, or its session has expired
    seen: float = 0.0  # a message of it passed last; to the second, but for the one that ended it
    # nobody will answer it any more; or its session is over unless it is refreshed
    expires: float | None = None
    interval: int = 0  # seconds; the session interval that was asked for last
    caller_timed: bool = False  # this one's phone knows session timers (RFC 4028)
    callee_timed: bool = False
    untimed: bool = False  # no phone refreshes the session: every message of it puts `expires` off
    lapsed: float | None = None  # `expires` when it ran out: the call's end is presumed

    @property
    def due(self) -> float | None:
        return self.expires

    def began_with(self, from_tag: str, number: int) -> bool:
        """Is it the INVITE with this CSeq number that began the call?"""
        return (from_tag, number) == (self.caller_tag, self.cseq)

    def is_forgotten(self, now: float) -> bool:
        """Is it over for so long that an INVITE with its identity begins another call? Simple
        phones make the same Call-IDs and tags in the same order after each start."""
        is_past_copies = now - self.offered > COPIES_SECONDS and now - self.seen > PATIENCE
        return self.over and is_past_copies

    def leg(self, way: str) -> Leg:
        """The leg with this way, or else the caller's own."""
        return next((leg for leg in self.legs if leg.way == way), self.legs[0])

    def is_own(self, leg: Leg) -> bool:
        """Is it the caller's own leg?"""
        return leg.way == self.legs[0].way


@dataclass(frozen=True)
class Search(Record):
    """An INVITE to a user with several bindings, which are tried one after the other."""

    KIND: ClassVar[str] = "search"
    way: str  # as in Leg
    call_id: str  # of the Call
    began: float
    request: str  # as it came here, one character an octet
    tried: tuple[str, ...]  # contacts, in their order
    by: tuple[str, ...]  # the addresses of the servers that sent the INVITE there
    heard: int = -1  # which of `tried` was the first that answered anything
    next_at: float | None = None  # if nobody has answered by then, the next is tried
    failed: tuple[int, ...] = ()  # which of `tried` nobody is at

    @property
    def due(self) -> float | None:
        return self.next_at


# -- which call a message belongs to --------------------------------------------------------------


def find_call(transaction: Transaction, message: Message) -> Call | None:
    """Finds the call that a message belongs to, or else the one that has its Call-ID. A call
    whose Call-ID another caller had before has another key: a B2BUA may keep the Call-ID where it
    calls another user, and two phones may make the same one. The earlier one may be purged by then.
    """
    first = transaction.read(Call, message.call_id)
    if first and first.caller_tag == message.from_tag:
        return first
    tags = message.from_tag, _tag(message)
    if first and first.caller_tag in tags:
        return first
    if first is None and not tags[1]:
        return None  # it is no message of a dialog, or nobody has answered: spare the reads
    others = (
        transaction.read(Call, key_of(message.call_id, tag)) for tag in tags if tag.isprintable()
    )
    return next((call for call in others if call), first)


def is_again(transaction: Transaction, request: Request, now: float) -> bool:
    """Is it an INVITE that has begun a call already, said again, or sent on in a spiral?"""
    call = find_call(transaction, request) if request.method == "INVITE" else None
    if call is None or call.is_forgotten(now):
        return False
    return call.began_with(request.from_.tag, request.cseq.number)


def key_of(call_id: str, tag: str) -> str:
    """Makes the key of a further call with this Call-ID, whose caller has this tag."""
    return f"{call_id} {tag}"


def _tag(message: Message) -> str:
    try:
        return message.to_tag
    except RemoteProtocolError:
        return ""  # of an answer, whose unreadable parts are the caller's business
