"""Purge: old rows are deleted, so that the store does not grow for ever.

Rules
1. Per kind the newest rows stay in any case (RetentionRule.newest). Older ones are deleted if the
   rule calls them old, which none does before a day has passed: no bill is lost before somebody
   could have read it, and no record while a phone may still send a message that needs it.
2. A row that cannot be read stays, for its age is unknown. A rule that raises an exception over a
   record keeps it: one row must not end the purge.
3. A bill takes its call with it, in one transaction.

One walk goes from the newest rows that may be deleted to the oldest, BATCH rows of each kind at a
time, so that a call of `delete_old` takes milliseconds; the marks are kept in between. Every server
purges; two at once cost one of them a Conflict.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from slee_mock.services.bill_record import Bill, ended_at
from slee_mock.services.bindings_record import Bindings
from slee_mock.services.call_record import Call
from slee_mock.store.interface import Damaged, Transaction
from slee_mock.store.records import ClockOffset, Member, Record

DAY = 86_400.0
ENDLESS = 30 * DAY  # after so long an answered call has been abandoned by both phones
BATCH = 50  # rows read at once, in a few milliseconds


def bill_is_old(bill: Bill, now: float) -> bool:
    ended = ended_at(bill, now)
    if ended is None:
        return now - (bill.answered or bill.offered) > ENDLESS
    return now - ended > DAY


def bindings_are_old(bindings: Bindings, now: float) -> bool:
    """All have expired, and no old REGISTER can be on its way any more."""
    ends = (each.expires_at for each in bindings.bindings)
    return now - max((*ends, *(each.wall for each in bindings.heard)), default=0.0) > DAY


def member_is_old(member: Member, now: float) -> bool:
    return now - member.last_seen > DAY


def offset_is_old(offset: ClockOffset, now: float) -> bool:
    """Always: only the newest boots matter."""
    return True


class RetentionRule(NamedTuple):
    """`newest` rows of this kind are never deleted; others if `old(record, now)`. A service that
    saves records of its own has rules for them in its attribute `keeps`."""

    kind: type[Record]
    newest: int
    old: Callable[[Any, float], bool]


RETENTION_RULES = (
    RetentionRule(Bill, 10_000, bill_is_old),
    RetentionRule(Bindings, 1_000, bindings_are_old),
    RetentionRule(Member, 100, member_is_old),
    RetentionRule(ClockOffset, 100, offset_is_old),
)


class Purge:
    """`delete_old` reads the next few rows; call it from time to time."""

    def __init__(self, rules: tuple[RetentionRule, ...] = RETENTION_RULES) -> None:
        self._rules = rules
        self._walks: dict[RetentionRule, int] = {}  # the mark to go on from, of unfinished walks

    def delete_old(self, transaction: Transaction, now: float) -> bool:
        """True if there is more to read now. May raise Conflict or StoreDown; then nothing was
        deleted."""
        walks = self._walks or self._begun(transaction)
        unfinished: dict[RetentionRule, int] = {}
        deleted: list[Record] = []
        for rule, before in walks.items():
            rows, mark = transaction.walk(rule.kind, BATCH, before)
            deleted += [
                each
                for each in rows
                if not isinstance(each, Damaged) and _is_old(rule.old, each, now)
            ]
            if mark is not None:
                unfinished[rule] = mark
        calls = [
            transaction.read_if_intact(Call, bill.key) for bill in deleted if isinstance(bill, Bill)
        ]
        transaction.commit((), [*deleted, *(call for call in calls if call)])
        self._walks = unfinished
        return bool(unfinished)

    def _begun(self, transaction: Transaction) -> dict[RetentionRule, int]:
        """Walks from the first row behind the newest, of each kind that has so many."""
        first = {rule: transaction.mark(rule.kind, rule.newest) for rule in self._rules}
        return {rule: mark + 1 for rule, mark in first.items() if mark is not None}


def _is_old(old: Callable[[Any, float], bool], record: Record, now: float) -> bool:
    try:
        return old(record, now)
    except Exception:  # rule 2
        return False
