"""A prepaid limit per caller: a service of one file, to read as a tutorial.

    python3 demo.py --deploy prepaid:balances.txt

Lines `user:money` of FILE say what each user has paid in; users who are not in it call without
limit. To top up, write a larger sum, for all servers, and start them again.

What it shows
- Three kinds of events: a request of the network (INVITE), events that call control fires, and a
  timer of its own record. The user is the convergence name of the first and the last.
- Its record, Account, which it alone writes. A CallEvent's convergence name is the Call-ID, so it
  finds the account by way of the call's Bill, a record of billing that it reads explicitly.
- An outcome that refuses a request (402), and one that fires an event for billing
  (CreditExhausted), saved in one transaction with the call and its bill: nothing is paid twice or
  not at all, wherever a server dies.

The rules
- An INVITE needs a balance for the set-up fee and the first unit; both are reserved while it rings,
  and given back if nobody acknowledges the answer.
- The balance's end is the account's timer. A proxy may not hang up for its phones (RFC 3261 16), so
  then the bill stops growing and says so.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import islice
from typing import Any, ClassVar

from slee_mock.container.deployment import Context
from slee_mock.container.events import (
    NOTHING,
    CallAcknowledged,
    CallAnswered,
    CallCancelled,
    CallContinued,
    CallEnded,
    CallEvent,
    CallOffered,
    CallUnanswered,
    CreditExhausted,
    Event,
    Outcome,
    RequestEvent,
    TimerEvent,
    legible,
)
from slee_mock.container.sbb import Entity, InitialEvent, the_call, timer_of
from slee_mock.services.bill_record import MILLISECOND, Bill, is_billed, with_event
from slee_mock.services.call_record import is_again
from slee_mock.services.tariff import Tariff
from slee_mock.sip_adaptor import LocalResponses
from slee_mock.store.interface import Transaction
from slee_mock.store.purge import RetentionRule
from slee_mock.store.records import Record
from slee_mock.user_files import read_user_lines

DIGITS = 6  # accounts count in millionths, the finest that a tariff may have
MOST_CALLS = 8  # at once, per caller
MOST_SHOWN = 500  # accounts
MOST_CLOSED_ACCOUNTS = 1_000  # kept although FILE does not name their users any more
FOR_EVER = 1e12

_LINE = re.compile(r"(?P<user>[^:]*[^:\s])\s*:\s*(?P<money>[0-9]{1,9}(\.[0-9]{1,6})?)\s*")


@dataclass(frozen=True)
class Reservation:
    """A call that is not settled yet."""

    call_id: str
    tariff: str
    answered: float | None = None
    paid_units: int | None = None  # the balance ended with these

    def units(self, until: float) -> int:
        """Of a call that rings, the first is kept for it."""
        begun = (
            1
            if self.answered is None
            else Tariff.parse(self.tariff).started_units(self.answered, until)
        )
        return begun if self.paid_units is None else min(begun, self.paid_units)

    def cost(self, until: float) -> int:
        tariff = Tariff.parse(self.tariff)
        return _millionths(tariff, tariff.setup + self.units(until) * tariff.price)

    @property
    def grows(self) -> bool:
        return (
            self.answered is not None
            and self.paid_units is None
            and Tariff.parse(self.tariff).price > 0
        )


@dataclass(frozen=True)
class Account(Record):
    """The account of a caller: how much was spent. `ends`: when the calls that run now will have
    used the rest up."""

    KIND: ClassVar[str] = "account"
    user: str
    spent: int = 0  # by settled calls
    calls: tuple[Reservation, ...] = ()
    ends: float | None = None

    @property
    def due(self) -> float | None:
        return self.ends

    def used(self, now: float) -> int:
        return self.spent + sum(call.cost(now) for call in self.calls)


def balance_end(account: Account, paid_in: int) -> float | None:
    """When the first unit would begin that cannot be paid; None: never. All running calls pay from
    one balance, so it ends for all of them at once, and each keeps the units that it has begun."""
    growing = [call for call in account.calls if call.grows]
    rest = (
        paid_in
        - account.spent
        - sum(call.cost(FOR_EVER) for call in account.calls if not call.grows)
    )
    ends = []
    for call in growing:
        since, tariff = call.answered or 0.0, Tariff.parse(call.tariff)

        def is_unpaid(units: int, since: float = since, unit: int = tariff.unit) -> bool:
            """The unit that begins after so many, with all others that have begun by then."""
            return sum(each.cost(since + units * unit + MILLISECOND) for each in growing) > rest

        # the one after these is unpaid in any case
        most = max(1, rest // _millionths(tariff, tariff.price))
        units = 1 + bisect.bisect_left(range(1, most), True, key=is_unpaid)
        ends.append(since + units * tariff.unit)
    return min(ends, default=None)


def _is_first_invite(event: RequestEvent) -> bool:
    return event.request.method == "INVITE" and not event.request.to_tag


def _caller(event: RequestEvent) -> str:
    return _user(legible(event.request.from_.uri.aor()))


class Prepaid:
    """`paid_in`: millionths by user. `tariff` is what calls that begin at this server cost, in
    `currency`."""

    name = "prepaid"
    records = (Account,)
    events = (
        InitialEvent(RequestEvent, name=_caller, when=_is_first_invite),
        InitialEvent(CallOffered, name=the_call),
        InitialEvent(CallAnswered, name=the_call),
        InitialEvent(CallAcknowledged, name=the_call),
        InitialEvent(CallContinued, name=the_call),
        InitialEvent(CallCancelled, name=the_call),
        InitialEvent(CallEnded, name=the_call),
        timer_of(Account),
    )

    def __init__(
        self, answers: LocalResponses, paid_in: Mapping[str, int], tariff: str, currency: str
    ) -> None:
        self._answers, self._paid_in, self._tariff = answers, paid_in, tariff
        self._currency = currency
        self.keeps = (RetentionRule(Account, MOST_CLOSED_ACCOUNTS, self._is_gone),)

    def handle(self, event: Event, entity: Entity) -> Outcome:
        if isinstance(event, RequestEvent):
            return self._admit(event, entity)
        if isinstance(event, TimerEvent):
            account = entity.get(Account)
            return (
                self._advanced(account, event)
                if account and account.is_due(event.time)
                else NOTHING
            )
        assert isinstance(event, CallEvent)
        bill = entity.transaction.read(Bill, event.call_id)
        tariff = bill.tariff if bill else self._tariff
        if isinstance(event, CallOffered):
            user, tariff = _user(event.caller.uri), self._tariff
        else:
            # the call's entity leads to the account's
            user = _user(bill.caller_uri) if bill else ""
        account = entity.transaction.read(Account, user)
        if account is None and user not in self._paid_in:
            return NOTHING
        return self._advanced(account or Account(user), event, tariff, bill)

    def _is_gone(self, account: Account, now: float) -> bool:
        return account.user not in self._paid_in and not account.calls

    def status(self, transaction: Transaction, now: float) -> dict[str, Any]:
        """The balances of the first in FILE, for page and /status."""
        told = {}
        for user, paid_in in islice(self._paid_in.items(), MOST_SHOWN):
            used = (transaction.read(Account, user) or Account(user)).used(now)
            told[user] = {
                "paid_in": money(paid_in),
                "used": money(used),
                "balance": money(paid_in - used),
                "currency": self._currency,
            }
        return told

    def _admit(self, event: RequestEvent, entity: Entity) -> Outcome:
        request, user, transaction = event.request, entity.name, entity.transaction
        # a retransmission was admitted the first time
        if is_again(transaction, request, event.time) or user not in self._paid_in:
            return NOTHING
        known = entity.get(Account) or Account(user)
        account = _without_forgotten(known, transaction, event.time)
        if len(account.calls) >= MOST_CALLS:
            return self._answers.refuse(event, 403, f"More Than {MOST_CALLS} Calls")
        if self._paid_in[user] - account.used(event.time) < Reservation(
            request.call_id, self._tariff
        ).cost(event.time):
            return self._answers.refuse(event, 402)
        return NOTHING if account == known else Outcome(writes=(account,))

    def _advanced(
        self,
        known: Account,
        event: CallEvent | TimerEvent,
        tariff: str = "",
        bill: Bill | None = None,
    ) -> Outcome:
        """The account after the event, charged first for the time until then."""
        account, fires = known, []
        end = self._end(account)
        if end is not None and end <= event.time:
            account = replace(account, calls=tuple(_exhausted(call, end) for call in account.calls))
            fires = [
                CreditExhausted(call.call_id, end, call.paid_units)
                for call, before in zip(account.calls, known.calls, strict=True)
                if call != before and call.paid_units
            ]
        if isinstance(event, CallEvent):
            account = _with_event(account, event, tariff, bill)
        account = replace(account, ends=self._end(account))
        return NOTHING if account == known else Outcome(writes=(account,), fires=tuple(fires))

    def _end(self, account: Account) -> float | None:
        paid_in = self._paid_in.get(account.user)  # whom FILE names no more calls without limit
        return None if paid_in is None else balance_end(account, paid_in)


def _exhausted(call: Reservation, end: float) -> Reservation:
    return replace(call, paid_units=call.units(end)) if call.grows else call


def _with_event(account: Account, event: CallEvent, tariff: str, bill: Bill | None) -> Account:
    """`bill` is the call's as it was before the event."""
    call = next((each for each in account.calls if each.call_id == event.call_id), None)
    others = tuple(each for each in account.calls if each is not call)
    if isinstance(event, CallOffered):
        return replace(account, calls=(*others, Reservation(event.call_id, tariff)))
    if isinstance(event, CallAnswered):
        is_known = call is not None and call.answered is not None
        return (
            account
            if is_known
            else replace(account, calls=(*others, Reservation(event.call_id, tariff, event.time)))
        )
    if isinstance(event, CallUnanswered):
        return replace(account, calls=others)
    if bill is None or (call is None and bill.ended is None):  # it began before there were accounts
        return account
    after = with_event(bill, event)
    if call is None:
        return _settled_anew(account, bill, after)
    if after.ended is None:
        return account
    cost = call.cost(after.ended) if call.answered is not None and is_billed(after) else 0
    return replace(account, spent=account.spent + cost, calls=others)


def _settled_anew(account: Account, before: Bill, after: Bill) -> Account:
    """The call was settled, and its end was only presumed, or was earlier than it seemed."""
    if after == before:
        return account
    spent = max(0, account.spent - _cost(before) + _cost(after))
    running = () if after.ended is not None else (_charged(after),)
    return replace(account, spent=spent, calls=(*account.calls, *running))


def _charged(bill: Bill) -> Reservation:
    return Reservation(bill.call_id, bill.tariff, bill.answered, bill.paid_units)


def _cost(bill: Bill) -> int:
    """Of a bill that has ended."""
    return _charged(bill).cost(bill.ended) if bill.ended is not None and is_billed(bill) else 0


def _without_forgotten(account: Account, transaction: Transaction, now: float) -> Account:
    """Settled without calls whose bills the cluster has forgotten: nobody will end them any
    more."""
    kept = tuple(call for call in account.calls if transaction.read(Bill, call.call_id))
    gone = sum(
        call.cost(now) for call in account.calls if call not in kept and call.answered is not None
    )
    return replace(account, spent=account.spent + gone, calls=kept)


def _user(uri: str) -> str:
    """Of an address-of-record as bills have it."""
    return uri.removeprefix("sip:").rpartition("@")[0]


def _millionths(tariff: Tariff, minor: int) -> int:
    return int(minor * 10 ** (DIGITS - tariff.digits))


def money(millionths: int) -> str:
    """With two decimal digits, or as many as it takes."""
    whole, _, rest = f"{Decimal(millionths).scaleb(-DIGITS):f}".partition(".")
    return f"{whole}.{rest.rstrip('0').ljust(2, '0')}"


def read_balances(path: str) -> dict[str, int]:
    """Lines `user:money`. Raises ValueError with a sentence."""
    return read_user_lines(path, "user:money, as in alice:5.00", _balance)


def _balance(line: str) -> tuple[str, int] | None:
    match = _LINE.fullmatch(line.strip())
    return (match["user"], int(Decimal(match["money"]).scaleb(DIGITS))) if match else None


def deploy(context: Context, argument: str) -> Prepaid:
    """Raises ValueError with a sentence if FILE cannot be used."""
    return Prepaid(context.answers, read_balances(argument), context.tariff, context.currency)
