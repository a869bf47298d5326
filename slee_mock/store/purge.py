"""What the cluster forgets, so that its store does not grow for ever: long-ended calls and users
long gone. Pure.

The newest rows of each kind stay in any case, and nothing goes that is younger than a day: no bill
is lost before somebody could have read it, and a record is gone only when no phone can still send a
message that needs it. A row that cannot be read stays, for nobody knows how old it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from slee_mock.services.bill_record import Bill, ended_at
from slee_mock.services.bindings_record import Bindings
from slee_mock.services.call_record import Call
from slee_mock.store.interface import BadRecord, Damaged, Transaction
from slee_mock.store.records import ClockOffset, Member, Record

DAY = 86_400.0
# after which an answered call that nobody hung up is taken for one whose phones have vanished
ENDLESS = 30 * DAY
BATCH = 50  # rows looked at in one go, which takes a few milliseconds


def bill_is_old(bill: Bill, wall: float) -> bool:
    ended = ended_at(bill, wall)
    if ended is None:
        return wall - (bill.answered or bill.offered) > ENDLESS
    return wall - ended > DAY


def bindings_are_old(bindings: Bindings, wall: float) -> bool:
    """None is alive, and no stale REGISTER can be on its way any more."""
    ends = (each.expires_at for each in bindings.bindings)
    return wall - max((*ends, *(each.wall for each in bindings.heard)), default=0.0) > DAY


def member_is_old(member: Member, wall: float) -> bool:
    return wall - member.last_seen > DAY


def anchor_is_old(anchor: ClockOffset, wall: float) -> bool:
    """Of a start of a computer before the newest ones."""
    return True


class RetentionRule(NamedTuple):
    """`newest` rows of this kind are never forgotten; the others if they are `old`. A service that
    saves records of its own has a line for them in its attribute `keeps`."""

    kind: type[Record]
    newest: int
    old: Callable[[Any, float], bool]


RETENTION_RULES = (
    RetentionRule(Bill, 10_000, bill_is_old),
    RetentionRule(Bindings, 1_000, bindings_are_old),
    RetentionRule(Member, 100, member_is_old),
    RetentionRule(ClockOffset, 100, anchor_is_old),
)


class Purge:
    """`sweep` looks at the next few rows beyond the newest; call it from time to time. One per
    member: two that sweep at once do not harm each other."""

    def __init__(self, kept: tuple[RetentionRule, ...] = RETENTION_RULES) -> None:
        self._kept = kept
        # Of each kind that is not looked through yet: the mark that its walk has come to.
        self._walks: dict[RetentionRule, int] = {}

    def sweep(self, transaction: Transaction, wall: float) -> bool:
        """True if there is more to look at now. May raise Conflict or StoreDown; then nothing was
        forgotten."""
        walks = self._walks or self._begun(transaction)
        going_on: dict[RetentionRule, int] = {}
        forgotten: list[Record] = []
        for line, before in walks.items():
            rows, mark = transaction.walk(line.kind, BATCH, before)
            forgotten += [
                each
                for each in rows
                if not isinstance(each, Damaged) and _is_old(line.old, each, wall)
            ]
            if mark is not None:
                going_on[line] = mark
        calls = (_call_of(transaction, bill) for bill in forgotten if isinstance(bill, Bill))
        transaction.commit((), [*forgotten, *(call for call in calls if call)])
        self._walks = going_on
        return bool(going_on)

    def _begun(self, transaction: Transaction) -> dict[RetentionRule, int]:
        """Walks from the first row behind the newest, of each kind that has so many."""
        first = {line: transaction.mark(line.kind, line.newest) for line in self._kept}
        return {line: mark + 1 for line, mark in first.items() if mark is not None}


def _is_old(old: Callable[[Any, float], bool], record: Record, wall: float) -> bool:
    """False for what a rule stumbles over: one row must not keep the others for ever."""
    try:
        return old(record, wall)
    except Exception:
        return False


def _call_of(transaction: Transaction, bill: Bill) -> Call | None:
    try:
        return transaction.read(Call, bill.key)
    except BadRecord:
        return None
