"""Billing: writes down the facts of every call, and which server served it for how long.

An entity is a call's bill. Its facts come as events that call control fires within the transaction
of the message they stand for; what they mean is in bill_record.py. The bill's timer ends it 32 s
after an answer that nobody acknowledges.
"""

from __future__ import annotations

from slee_mock.container.events import (
    NOTHING,
    CallEvent,
    CallOffered,
    CallUnacknowledged,
    Event,
    Outcome,
    TimerEvent,
)
from slee_mock.container.sbb import Entity, InitialEvent, the_call, timer_of
from slee_mock.services.bill_record import (
    Bill,
    ServedBy,
    ended_at,
    never_acknowledged,
    with_event,
)
from slee_mock.services.call_record import Call, key_of
from slee_mock.store.interface import Transaction
from slee_mock.store.purge import DAY_SECONDS, RetentionRule
from slee_mock.store.records import Member, replace

MOST_CARRIERS = 64
MOST_BILLS = 10_000  # kept however old they are
ABANDONED_SECONDS = 30 * DAY_SECONDS  # after these both phones have abandoned an answered call


def _is_old(bill: Bill, now: float) -> bool:
    ended = ended_at(bill, now)
    if ended is None:
        return now - (bill.answered or bill.offered) > ABANDONED_SECONDS
    return now - ended > DAY_SECONDS


class Billing:
    """Writes the facts of every call down. `server` is who writes; `tariff` is fixed into a call
    when it is offered."""

    name = "billing"
    records = (Bill,)
    events = (InitialEvent(CallEvent, name=the_call), timer_of(Bill))
    keeps = (RetentionRule(Bill, MOST_BILLS, _is_old, companion=Call),)

    def __init__(self, server: str, tariff: str, currency: str) -> None:
        self._server, self._tariff, self._currency = server, tariff, currency

    def handle(self, event: Event, entity: Entity) -> Outcome:
        known = entity.get(Bill)
        if isinstance(event, TimerEvent):
            return _unacknowledged(known, event.time)
        earlier: tuple[Bill, ...] = ()
        if isinstance(event, CallOffered):
            bill = self._opened(event)
            if known is not None and (event.is_reuse or known.answered is not None):
                # of another call; a retry after a refusal is the same one, and replaces it
                earlier = (replace(known, call_id=key_of(known.call_id, f"{known.offered:.3f}")),)
        elif known is not None and isinstance(event, CallEvent):
            bill = with_event(known, event)
            if event.by_message and (known.ended is None or bill.ended is None):
                bill = self._carried(bill, event.time, entity.transaction)
        else:
            return NOTHING
        return NOTHING if bill == known else Outcome(writes=(*earlier, bill))

    def _opened(self, event: CallOffered) -> Bill:
        return Bill(
            call_id=event.call_id,
            caller=event.caller.name,
            caller_uri=event.caller.uri,
            callee=event.callee.name,
            callee_uri=event.callee.uri,
            tariff=self._tariff,
            currency=self._currency,
            offered=event.time,
            carriers=(ServedBy(self._server, event.time),),
        )

    def _carried(self, bill: Bill, now: float, transaction: Transaction) -> Bill:
        """A dead carrier's share ends at its last sign of life: from then on the call was in the
        survivor's care."""
        last = bill.carriers[-1]
        if last.server == self._server or len(bill.carriers) >= MOST_CARRIERS:
            return bill
        member = transaction.read_if_intact(Member, last.server)
        since = now if member is None or member.alive(now) else min(now, member.last_seen)
        since = max(last.since, since)  # what waited for the store is told late
        return replace(bill, carriers=(*bill.carriers, ServedBy(self._server, since)))


def _unacknowledged(bill: Bill | None, now: float) -> Outcome:
    """The bill's timer has run out. The raised event comes back here and is noted in the bill."""
    if bill is None or bill.due is None or not bill.is_due(now):
        return NOTHING
    fires = CallUnacknowledged(bill.call_id, bill.due, never_acknowledged(bill))
    return Outcome(fires=(fires,), consumed=True, log_text="timer")
