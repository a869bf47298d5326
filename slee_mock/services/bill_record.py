"""The records of billing: the facts of a call, and its total. Other services read them.

- The first answer time and the first hang-up time win, so a message that is repeated or replayed
  leaves a bill as it is. An end that a timer presumed (`Bill.presumed`) gives way to a hang-up, and
  to a message that proves it wrong.
- A call is billed once its caller is known to have heard of the answer, which its ACK tells. It
  costs nothing if nobody acknowledges the answer, or if somebody had hung up before it was
  acknowledged: so it may be where servers died between the two, or where a CANCEL crosses the
  answer (RFC 3261 9.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sip.timing import PATIENCE
from slee_mock.container.events import (
    CallAcknowledged,
    CallAnswered,
    CallCancelled,
    CallContinued,
    CallEnded,
    CallEvent,
    CallRang,
    CreditExhausted,
)
from slee_mock.services.call_record import TIMER_C_SECONDS
from slee_mock.services.tariff import Tariff, milliseconds
from slee_mock.store.records import Record, replace

UNACKNOWLEDGED = PATIENCE  # seconds that a callee waits for the ACK to its 2xx (RFC 3261 13.3.1.4)
MILLISECOND = 0.001  # the finest that bills tell times apart
# Seconds within which a phone says BYE to an answer that its CANCEL crossed, though two are lost.
CROSSING_SECONDS = 2.0


@dataclass(frozen=True)
class ServedBy:
    """`server` handled the call's messages from `since` on, until the next carrier's `since`."""

    server: str
    since: float


@dataclass(frozen=True)
class Bill(Record):
    """The facts a bill is made from; `total_at` adds them up."""

    KIND: ClassVar[str] = "bill"
    call_id: str
    caller: str
    caller_uri: str
    callee: str
    callee_uri: str
    tariff: str
    currency: str
    offered: float
    rang: float | None = None
    answered: float | None = None
    given_up: float | None = None  # CANCEL passed; void if the answer crossed it
    ended: float | None = None
    why: str = ""
    # at most so many are billed: the caller's balance ended with them
    paid_units: int | None = None
    carriers: tuple[ServedBy, ...] = ()
    acknowledged: float | None = 0.0  # seconds from the answer to the caller's ACK; None: none yet
    presumed: bool = False  # `ended` is a timer's; a message of the call may prove it wrong

    @property
    def due(self) -> float | None:
        """When the callee gives up, as nobody acknowledges the answer."""
        if self.answered is None or self.acknowledged is not None or self.ended is not None:
            return None
        return self.answered + UNACKNOWLEDGED


@dataclass(frozen=True)
class BillTotal:
    """A bill added up at one moment."""

    state: str  # offered, ringing, answered, ended
    why: str
    ended: float | None
    total: str
    seconds: int = 0
    carried: tuple[tuple[str, int], ...] = ()  # (server, seconds); they add up to `seconds`
    units: int = 0
    unpaid: bool = False  # it went on beyond the end of the caller's balance
    acknowledged: bool = True  # false: nothing tells that the caller has heard of the answer
    presumed: bool = False  # a timer ended it; a later message of the call may prove that wrong

    @property
    def final(self) -> bool:
        return self.ended is not None


def with_event(bill: Bill, event: CallEvent) -> Bill:
    """Puts the event's fact into the bill, unless it has that fact, or the call's end, already."""
    if isinstance(event, CreditExhausted):
        return replace(bill, paid_units=event.units)
    if isinstance(event, CallEnded):
        return _ended(bill, event)
    if isinstance(event, CallAcknowledged):
        return _acknowledged(bill, event)
    if isinstance(event, CallContinued):
        is_open = bill.ended is None or not bill.presumed or bill.acknowledged is None
        return bill if is_open else _reopened(bill)
    if isinstance(event, CallCancelled):
        return _given_up(bill, event)
    if bill.ended is not None:
        return bill
    if isinstance(event, CallRang) and bill.rang is None:
        return replace(bill, rang=event.time)
    if isinstance(event, CallAnswered) and bill.answered is None:
        return replace(bill, answered=event.time, acknowledged=None)
    return bill


def _given_up(bill: Bill, event: CallCancelled) -> Bill:
    """Applies a CANCEL, unless the caller had heard of the answer. One that was kept while no
    server lived may pass later than the ACK, and the BYE, that came after it."""
    now = max(event.time, bill.offered)
    heard = _heard(bill)
    is_heard = heard is not None and now >= heard
    if is_heard or (bill.given_up is not None and now >= bill.given_up):
        return bill
    given_up = replace(bill, given_up=now, why=event.why)
    if bill.ended is None:
        return given_up
    is_crossing = (
        event.by_message and bill.answered is not None and _is_crossing(given_up, bill.ended)
    )
    return replace(given_up, ended=now, presumed=False) if is_crossing else bill


def _ended(bill: Bill, event: CallEnded) -> Bill:
    """Applies an end. The earliest hang-up wins over other hang-ups and over presumed ends."""
    if bill.ended is not None and not event.by_message:
        return bill
    if bill.ended is not None and not bill.presumed and event.time >= bill.ended:
        return bill
    ended, why = max(event.time, bill.offered), event.why
    if not event.by_message:
        ended = max(ended, bill.answered or 0.0)
        if bill.given_up is not None and bill.answered is not None and _is_crossing(bill, ended):
            ended, why = bill.given_up, bill.why
    elif bill.given_up is not None and bill.answered is None:
        ended = min(ended, bill.given_up)  # a CANCEL may have been kept, its 487 comes after that
    elif bill.given_up is not None and _is_crossing(bill, ended):
        ended, why = bill.given_up, bill.why
    return replace(bill, ended=ended, why=why, presumed=not event.by_message)


def _is_crossing(bill: Bill, ended: float) -> bool:
    """Does the caller's phone only put an end to an answer that its CANCEL crossed?"""
    assert bill.answered is not None and bill.given_up is not None
    if bill.given_up == bill.offered + TIMER_C_SECONDS:  # nobody gave up: it was presumed
        return False
    heard = _heard(bill)
    return ended - (bill.answered if heard is None else heard) < CROSSING_SECONDS


def _heard(bill: Bill) -> float | None:
    """When the caller's phone told that it has the answer; None: not yet, or there is none."""
    if bill.answered is None or bill.acknowledged is None:
        return None
    return bill.answered + bill.acknowledged


def _acknowledged(bill: Bill, event: CallAcknowledged) -> Bill:
    if bill.answered is None or bill.acknowledged is not None:
        return bill
    later = 0.0 if event.by_bye else max(0.0, event.time - bill.answered)
    bill = replace(bill, acknowledged=later)
    return _reopened(bill) if bill.ended is not None and bill.presumed else bill


def _reopened(bill: Bill) -> Bill:
    """Removes a presumed end. `paid_units` is counted anew: other calls may have used the
    balance."""
    return replace(bill, ended=None, why="", presumed=False, paid_units=None)


def is_billed(bill: Bill) -> bool:
    """Have the two talked, as far as anybody knows?"""
    heard = _heard(bill)
    if heard is None:
        return False
    if bill.ended is not None and bill.ended == bill.given_up:  # the CANCEL was the end
        return False
    return bill.ended is None or bill.ended > heard - MILLISECOND  # they were added up


def total_at(bill: Bill, now: float) -> BillTotal:
    """Adds the bill up at `now`. A running call is billed up to now."""
    ended, why = _end(bill, now)
    tariff = Tariff.parse(bill.tariff)
    if bill.answered is None:
        open_state = "offered" if bill.rang is None else "ringing"
        return BillTotal(open_state if ended is None else "ended", why, ended, tariff.money(0))
    state = "answered" if ended is None else "ended"
    if not is_billed(bill):
        is_heard, shares = bill.acknowledged is not None, _shares(bill, bill.answered)
        if is_heard:
            why = f"{why}; {bill.caller}'s phone heard of the answer only after that"
        unbilled = BillTotal(state, why, ended, tariff.money(0), carried=shares)
        return replace(unbilled, acknowledged=is_heard, presumed=bill.presumed)
    until = now if ended is None else ended
    units = begun = tariff.started_units(bill.answered, until)
    if bill.paid_units is not None and begun > bill.paid_units:
        units, why = bill.paid_units, f"{why}; {bill.caller}'s balance ended before"
    total = tariff.money(tariff.setup + units * tariff.price)
    seconds, shares = milliseconds(bill.answered, until) // 1000, _shares(bill, until)
    billed = BillTotal(state, why, ended, total, seconds, shares, units)
    return replace(billed, unpaid=begun > units, presumed=bill.presumed)


def ended_at(bill: Bill, now: float) -> float | None:
    """When the call ended, whatever its tariff is."""
    return _end(bill, now)[0]


def _end(bill: Bill, now: float) -> tuple[float | None, str]:
    """When the call ended, and the sentence for the state it is in."""
    if bill.ended is not None:
        is_told = bill.acknowledged is not None or bill.presumed
        return bill.ended, bill.why if is_told else f"{bill.why}; {never_acknowledged(bill)}"
    if bill.due is not None:
        if now > bill.due:
            return bill.due, never_acknowledged(bill)
        return None, f"{bill.callee} answered, {bill.caller}'s phone has not acknowledged it yet"
    if bill.answered is not None:
        return None, f"{bill.caller} and {bill.callee} are talking"
    if bill.given_up is not None:
        return bill.given_up, bill.why
    if now - bill.offered > TIMER_C_SECONDS:
        return bill.offered + TIMER_C_SECONDS, f"{bill.callee} did not answer"
    if bill.rang is not None:
        return None, f"{bill.callee}'s phone is ringing"
    return None, f"Calling {bill.callee}"


def never_acknowledged(bill: Bill) -> str:
    return f"{bill.caller}'s phone never acknowledged {bill.callee}'s answer"


def _shares(bill: Bill, until: float) -> tuple[tuple[str, int], ...]:
    """Splits the call into whole seconds by server, in their order. Each boundary is rounded
    down once, so the shares add up to the call's seconds."""
    assert bill.answered is not None
    total = milliseconds(bill.answered, until)
    starts = [
        min(total, milliseconds(bill.answered, carrier.since)) // 1000 for carrier in bill.carriers
    ]
    ends = [*starts[1:], total // 1000]
    starts[0] = 0
    shares: dict[str, int] = {}
    for carrier, start, end in zip(bill.carriers, starts, ends, strict=True):
        if bill.carriers[-1] is carrier or end > start:
            shares[carrier.server] = shares.get(carrier.server, 0) + max(0, end - start)
    return tuple(shares.items())
