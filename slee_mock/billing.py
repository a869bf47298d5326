"""The billing service: what a call cost, and which server carried it for how long.

Pure. Money is counted in whole minor units (10 to the minus `Tariff.digits` of the currency) and never in floats. The
first answer time and the first hang-up time win, so that whatever is repeated or replayed leaves a bill as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

from slee_mock.event import (
    NOTHING,
    CallAnswered,
    CallEnded,
    CallEvent,
    CallGivenUp,
    CallOffered,
    CallRang,
    CallUnpaid,
    Event,
    Outcome,
)
from slee_mock.record import Bill, Carrier, Member, replace
from slee_mock.service import On, the_call
from slee_mock.store import View

UNANSWERED = 200.0  # seconds after which nobody will answer any more; RFC 3261 16.6's Timer C is just above 180
MOST_CARRIERS = 64

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
        """"0.10+0.05/10s". Raises ValueError with a sentence."""
        match = _TARIFF.match(text.replace(" ", ""))
        if not match or int(match["unit"]) == 0:
            raise ValueError(f"'{text}' is not a tariff; write set-up fee + price / seconds, as in 0.10+0.05/10s")
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


class Billing:
    """Writes the facts of every call down. `server` is who writes; `tariff` is fixed into a call when it is offered."""

    name = "billing"
    takes = (On(CallEvent, name=the_call),)

    def __init__(self, server: str, tariff: str, currency: str) -> None:
        self._server, self._tariff, self._currency = server, tariff, currency

    def handle(self, event: Event, entity: str, view: View) -> Outcome:
        known = view.get(Bill, entity)
        if isinstance(event, CallOffered):
            bill = self._opened(event) if known is None or known.answered is None else known
        elif known is not None and isinstance(event, CallEvent):
            bill = noted(known, event)
            if event.passed and known.ended is None:
                bill = self._carried(bill, event.wall, view)
        else:
            return NOTHING
        return NOTHING if bill == known else Outcome(saves=(bill,))

    def _opened(self, event: CallOffered) -> Bill:
        return Bill(
            call_id=event.call_id, caller=event.caller.name, caller_uri=event.caller.uri, callee=event.callee.name,
            callee_uri=event.callee.uri, tariff=self._tariff, currency=self._currency, offered=event.wall,
            carriers=(Carrier(self._server, event.wall),),
        )  # fmt: skip

    def _carried(self, bill: Bill, wall: float, view: View) -> Bill:
        """A dead carrier's share ends at its last sign of life: from then on the call was in the survivor's care."""
        last = bill.carriers[-1]
        if last.server == self._server or len(bill.carriers) >= MOST_CARRIERS:
            return bill
        member = view.get(Member, last.server)
        since = wall if member is None or member.alive(wall) else min(wall, member.last_seen)
        since = max(last.since, since)  # what waited for the store is told late
        return replace(bill, carriers=(*bill.carriers, Carrier(self._server, since)))


def noted(bill: Bill, event: CallEvent) -> Bill:
    """The bill with the event's fact in it, unless that fact was there already, or the call's end was."""
    if isinstance(event, CallUnpaid) and bill.paid_units is None:
        return replace(bill, paid_units=event.units)
    if bill.ended is not None:
        return bill
    if isinstance(event, CallRang) and bill.rang is None:
        return replace(bill, rang=event.wall)
    if isinstance(event, CallAnswered) and bill.answered is None:
        return replace(bill, answered=event.wall)
    if isinstance(event, CallGivenUp) and bill.given_up is None and bill.answered is None:
        return replace(bill, given_up=event.wall, why=event.why)
    if isinstance(event, CallEnded):
        return replace(bill, ended=event.wall, why=event.why)
    return bill


def summed(bill: Bill, wall: float) -> Sum:
    """What the bill says at `wall`. A running call is billed up to now."""
    ended, why = _end(bill, wall)
    state = "ended" if ended is not None else "answered" if bill.answered is not None else "ringing"
    if state == "ringing" and bill.rang is None:
        state = "offered"
    tariff = Tariff.parse(bill.tariff)
    if bill.answered is None:
        return Sum(state, why, ended, 0, (), 0, tariff.money(0), ended is not None)
    until = wall if ended is None else ended
    units = begun = tariff.begun(bill.answered, until)
    if bill.paid_units is not None and begun > bill.paid_units:
        units, why = bill.paid_units, f"{why}; {bill.caller}'s balance ended before"
    total = tariff.money(tariff.setup + units * tariff.price)
    seconds = _milliseconds(bill.answered, until) // 1000
    return Sum(state, why, ended, seconds, _shares(bill, until), units, total, ended is not None, begun > units)


def is_final(bill: Bill, wall: float) -> bool:
    """As `summed` says, at less cost."""
    return _end(bill, wall)[0] is not None


def _end(bill: Bill, wall: float) -> tuple[float | None, str]:
    """When the call ended, and the sentence for the state it is in."""
    if bill.ended is not None:
        return bill.ended, bill.why
    if bill.answered is not None:
        return None, f"{bill.caller} and {bill.callee} are talking"
    if bill.given_up is not None:
        return bill.given_up, bill.why
    if wall - bill.offered > UNANSWERED:
        return bill.offered + UNANSWERED, f"{bill.callee} did not answer"
    if bill.rang is not None:
        return None, f"{bill.callee}'s phone is ringing"
    return None, f"Calling {bill.callee}"


def _shares(bill: Bill, until: float) -> tuple[tuple[str, int], ...]:
    """Whole seconds by server, in the order of their first appearance. Each boundary is rounded down once, so the
    shares add up to the call's seconds."""
    assert bill.answered is not None
    total = _milliseconds(bill.answered, until)
    starts = [min(total, _milliseconds(bill.answered, carrier.since)) // 1000 for carrier in bill.carriers]
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
