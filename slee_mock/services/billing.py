"""The billing service: what a call cost, and which server carried it for how long.

Pure. Money is counted in whole minor units (10 to the minus `Tariff.digits` of the currency) and
never in floats. The first answer time and the first hang-up time win, so that a message that is
repeated or replayed leaves a bill as it is. An end that a timer presumed (`Bill.presumed`) gives
way to a hang-up, and to a message that proves it wrong.

A call is billed once its caller is known to have heard of the answer, which its ACK tells. It costs
nothing if nobody acknowledges the answer, or if somebody had hung up before it was acknowledged: so
it may be where servers died between the two, or where a CANCEL crosses the answer (RFC 3261 9.1).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

from slee_mock.container.events import (
    NOTHING,
    CallAcknowledged,
    CallAnswered,
    CallContinued,
    CallEnded,
    CallEvent,
    CallGivenUp,
    CallOffered,
    CallRang,
    CallUnacknowledged,
    CallUnpaid,
    Event,
    Outcome,
    TimerEvent,
)
from slee_mock.container.sbb import On, the_call, timer_of
from slee_mock.store.interface import Transaction
from slee_mock.store.records import Bill, Carrier, Member, replace

# seconds after which nobody will answer any more; RFC 3261 16.6's Timer C is just above 180
UNANSWERED = 200.0
MOST_CARRIERS = 64
MILLISECOND = 0.001  # the finest that bills tell times apart
# Seconds within which a phone says BYE to an answer that its CANCEL crossed, though two are lost.
CROSSING = 2.0

_MONEY = r"[0-9]{1,9}(\.[0-9]{1,6})?"
_TARIFF = re.compile(rf"(?P<setup>{_MONEY})\+(?P<price>{_MONEY})/(?P<unit>[0-9]{{1,6}})s\Z")


@dataclass(frozen=True)
class Tariff:
    """Set-up fee plus a price for every started unit of time, in minor units."""

    setup: int
    price: int
    unit: int  # seconds
    digits: int = 2

    @staticmethod
    @lru_cache(maxsize=64)  # a page adds up hundreds of bills of one tariff
    def parse(text: str) -> Tariff:
        """ "0.10+0.05/10s". Raises ValueError with a sentence."""
        match = _TARIFF.match(text.replace(" ", ""))
        if not match or int(match["unit"]) == 0:
            raise ValueError(
                f"'{text}' is not a tariff; write set-up fee + price / seconds, as in 0.10+0.05/10s"
            )
        digits = max(2, *(len(match[name].partition(".")[2]) for name in ("setup", "price")))
        setup, price = (int(Decimal(match[name]).scaleb(digits)) for name in ("setup", "price"))
        return Tariff(setup, price, int(match["unit"]), digits)

    def money(self, minor: int) -> str:
        return str(Decimal(minor).scaleb(-self.digits))

    def begun(self, answered: float, until: float) -> int:
        """Units that have begun before `until`; answering begins the first."""
        return max(1, -(-_milliseconds(answered, until) // (self.unit * 1000)))


@dataclass(frozen=True)
class Sum:
    """A bill added up at one moment."""

    state: str  # offered, ringing, answered, ended
    why: str
    ended: float | None
    seconds: int
    carried: tuple[tuple[str, int], ...]  # (server, seconds); they add up to `seconds`
    units: int
    total: str
    final: bool
    unpaid: bool = False  # it went on beyond the end of the caller's balance
    acknowledged: bool = True  # false: nothing tells that the caller has heard of the answer
    presumed: bool = False  # a timer ended it; a later message of the call may prove that wrong


class Billing:
    """Writes the facts of every call down. `server` is who writes; `tariff` is fixed into a call
    when it is offered."""

    name = "billing"
    takes = (On(CallEvent, name=the_call), timer_of(Bill))

    def __init__(self, server: str, tariff: str, currency: str) -> None:
        self._server, self._tariff, self._currency = server, tariff, currency

    def handle(self, event: Event, entity: str, transaction: Transaction) -> Outcome:
        known = transaction.read(Bill, entity)
        if isinstance(event, TimerEvent):
            return _unacknowledged(known, event.wall)
        if isinstance(event, CallOffered):
            bill = self._opened(event) if known is None or known.answered is None else known
        elif known is not None and isinstance(event, CallEvent):
            bill = noted(known, event)
            if event.passed and (known.ended is None or bill.ended is None):
                bill = self._carried(bill, event.wall, transaction)
        else:
            return NOTHING
        return NOTHING if bill == known else Outcome(saves=(bill,))

    def _opened(self, event: CallOffered) -> Bill:
        return Bill(
            call_id=event.call_id,
            caller=event.caller.name,
            caller_uri=event.caller.uri,
            callee=event.callee.name,
            callee_uri=event.callee.uri,
            tariff=self._tariff,
            currency=self._currency,
            offered=event.wall,
            carriers=(Carrier(self._server, event.wall),),
        )

    def _carried(self, bill: Bill, wall: float, transaction: Transaction) -> Bill:
        """A dead carrier's share ends at its last sign of life: from then on the call was in the
        survivor's care."""
        last = bill.carriers[-1]
        if last.server == self._server or len(bill.carriers) >= MOST_CARRIERS:
            return bill
        member = transaction.read_if_intact(Member, last.server)
        since = wall if member is None or member.alive(wall) else min(wall, member.last_seen)
        since = max(last.since, since)  # what waited for the store is told late
        return replace(bill, carriers=(*bill.carriers, Carrier(self._server, since)))


def _unacknowledged(bill: Bill | None, wall: float) -> Outcome:
    """The bill's timer has run out. The raised event comes back here and is noted in the bill."""
    if bill is None or bill.due is None or not bill.is_due(wall):
        return NOTHING
    raised = CallUnacknowledged(bill.call_id, bill.due, _never_acknowledged(bill))
    return Outcome(raised=(raised,), done=True, note="timer")


def noted(bill: Bill, event: CallEvent) -> Bill:
    """The bill with the event's fact in it, unless that fact was there already, or the call's end
    was."""
    if isinstance(event, CallUnpaid):
        return replace(bill, paid_units=event.units)
    if isinstance(event, CallEnded):
        return _ended(bill, event)
    if isinstance(event, CallAcknowledged):
        return _acknowledged(bill, event)
    if isinstance(event, CallContinued):
        is_open = bill.ended is None or not bill.presumed or bill.acknowledged is None
        return bill if is_open else _reopened(bill)
    if isinstance(event, CallGivenUp):
        return _given_up(bill, event)
    if bill.ended is not None:
        return bill
    if isinstance(event, CallRang) and bill.rang is None:
        return replace(bill, rang=event.wall)
    if isinstance(event, CallAnswered) and bill.answered is None:
        return replace(bill, answered=event.wall, acknowledged=None)
    return bill


def _given_up(bill: Bill, event: CallGivenUp) -> Bill:
    """CANCEL means nothing if its caller had heard of the answer. One that was kept while no server
    lived may pass later than the ACK, and the BYE, that came after it."""
    wall = max(event.wall, bill.offered)
    heard = _heard(bill)
    is_heard = heard is not None and wall >= heard
    if is_heard or (bill.given_up is not None and wall >= bill.given_up):
        return bill
    given_up = replace(bill, given_up=wall, why=event.why)
    if bill.ended is None:
        return given_up
    is_crossing = event.passed and bill.answered is not None and _is_crossing(given_up, bill.ended)
    return replace(given_up, ended=wall, presumed=False) if is_crossing else bill


def _ended(bill: Bill, event: CallEnded) -> Bill:
    """The earliest hang-up wins, over other hang-ups and over every end that was presumed."""
    if bill.ended is not None and not event.passed:
        return bill
    if bill.ended is not None and not bill.presumed and event.wall >= bill.ended:
        return bill
    ended, why = max(event.wall, bill.offered), event.why
    if not event.passed:
        ended = max(ended, bill.answered or 0.0)
        if bill.given_up is not None and bill.answered is not None and _is_crossing(bill, ended):
            ended, why = bill.given_up, bill.why
    elif bill.given_up is not None and bill.answered is None:
        ended = min(ended, bill.given_up)  # a CANCEL may have been kept, its 487 comes after that
    elif bill.given_up is not None and _is_crossing(bill, ended):
        ended, why = bill.given_up, bill.why
    return replace(bill, ended=ended, why=why, presumed=not event.passed)


def _is_crossing(bill: Bill, ended: float) -> bool:
    """Does the caller's phone only put an end to an answer that its CANCEL crossed?"""
    assert bill.answered is not None and bill.given_up is not None
    if bill.given_up == bill.offered + UNANSWERED:  # nobody gave up: it was presumed
        return False
    heard = _heard(bill)
    return ended - (bill.answered if heard is None else heard) < CROSSING


def _heard(bill: Bill) -> float | None:
    """When the caller's phone told that it has the answer; None: not yet, or there is none."""
    if bill.answered is None or bill.acknowledged is None:
        return None
    return bill.answered + bill.acknowledged


def _acknowledged(bill: Bill, event: CallAcknowledged) -> Bill:
    if bill.answered is None or bill.acknowledged is not None:
        return bill
    later = 0.0 if event.by_bye else max(0.0, event.wall - bill.answered)
    bill = replace(bill, acknowledged=later)
    return _reopened(bill) if bill.ended is not None and bill.presumed else bill


def _reopened(bill: Bill) -> Bill:
    """`paid_units` is counted anew: other calls may have used the balance meanwhile."""
    return replace(bill, ended=None, why="", presumed=False, paid_units=None)


def is_billed(bill: Bill) -> bool:
    """Have the two talked, as far as anybody knows?"""
    heard = _heard(bill)
    if heard is None:
        return False
    if bill.ended is not None and bill.ended == bill.given_up:  # the CANCEL was the end
        return False
    return bill.ended is None or bill.ended > heard - MILLISECOND  # they were added up


def summed(bill: Bill, wall: float) -> Sum:
    """What the bill says at `wall`. A running call is billed up to now."""
    ended, why = _end(bill, wall)
    state = "ended" if ended is not None else "answered" if bill.answered is not None else "ringing"
    if state == "ringing" and bill.rang is None:
        state = "offered"
    tariff = Tariff.parse(bill.tariff)
    if bill.answered is None:
        return Sum(state, why, ended, 0, (), 0, tariff.money(0), ended is not None)
    if not is_billed(bill):
        shares, is_heard = _shares(bill, bill.answered), bill.acknowledged is not None
        if is_heard:
            why = f"{why}; {bill.caller}'s phone heard of the answer only after that"
        return Sum(
            state,
            why,
            ended,
            0,
            shares,
            0,
            tariff.money(0),
            ended is not None,
            acknowledged=is_heard,
            presumed=bill.presumed,
        )
    until = wall if ended is None else ended
    units = begun = tariff.begun(bill.answered, until)
    if bill.paid_units is not None and begun > bill.paid_units:
        units, why = bill.paid_units, f"{why}; {bill.caller}'s balance ended before"
    total = tariff.money(tariff.setup + units * tariff.price)
    seconds = _milliseconds(bill.answered, until) // 1000
    is_final, shares = ended is not None, _shares(bill, until)
    return Sum(
        state,
        why,
        ended,
        seconds,
        shares,
        units,
        total,
        is_final,
        begun > units,
        presumed=bill.presumed,
    )


def is_final(bill: Bill, wall: float) -> bool:
    """As `summed` says, at less cost."""
    return ended_at(bill, wall) is not None


def ended_at(bill: Bill, wall: float) -> float | None:
    """When the call ended, whatever its tariff is."""
    return _end(bill, wall)[0]


def _end(bill: Bill, wall: float) -> tuple[float | None, str]:
    """When the call ended, and the sentence for the state it is in."""
    if bill.ended is not None:
        is_told = bill.acknowledged is not None or bill.presumed
        return bill.ended, bill.why if is_told else f"{bill.why}; {_never_acknowledged(bill)}"
    if bill.due is not None:
        if wall > bill.due:
            return bill.due, _never_acknowledged(bill)
        return None, f"{bill.callee} answered, {bill.caller}'s phone has not acknowledged it yet"
    if bill.answered is not None:
        return None, f"{bill.caller} and {bill.callee} are talking"
    if bill.given_up is not None:
        return bill.given_up, bill.why
    if wall - bill.offered > UNANSWERED:
        return bill.offered + UNANSWERED, f"{bill.callee} did not answer"
    if bill.rang is not None:
        return None, f"{bill.callee}'s phone is ringing"
    return None, f"Calling {bill.callee}"


def _never_acknowledged(bill: Bill) -> str:
    return f"{bill.caller}'s phone never acknowledged {bill.callee}'s answer"


def _shares(bill: Bill, until: float) -> tuple[tuple[str, int], ...]:
    """Whole seconds by server, in the order of their first appearance. Each boundary is rounded
    down once, so the shares add up to the call's seconds."""
    assert bill.answered is not None
    total = _milliseconds(bill.answered, until)
    starts = [
        min(total, _milliseconds(bill.answered, carrier.since)) // 1000 for carrier in bill.carriers
    ]
    ends = [*starts[1:], total // 1000]
    starts[0] = 0
    shares: dict[str, int] = {}
    for carrier, start, end in zip(bill.carriers, starts, ends, strict=True):
        if bill.carriers[-1] is carrier or end > start:
            shares[carrier.server] = shares.get(carrier.server, 0) + max(0, end - start)
    return tuple(shares.items())


def _milliseconds(start: float, end: float) -> int:
    """Never negative, whatever the clocks did."""
    return max(0, round((end - start) * 1000))
