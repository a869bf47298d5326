"""Purge: old rows are deleted, so that the store does not grow for ever.

Rules
1. Per kind the newest rows stay in any case (RetentionRule.newest). Older ones are deleted if the
   rule calls them old. The rule of a record that a phone's message may still need, or that somebody
   may still want to read, lets at least a day pass.
2. A row that cannot be read stays, for its age is unknown. A rule that raises an exception over a
   record keeps it: one row must not end the purge.
3. A bill and its call are deleted in one transaction (RetentionRule.companion).

One walk goes from the newest rows that may be deleted to the oldest, BATCH rows of each kind at a
time, so that a call of `delete_old` takes milliseconds; the marks are kept in between. Every server
purges; two at once cost one of them a Conflict.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from slee_mock.store.interface import Damaged, Transaction
from slee_mock.store.records import ClockOffset, Member, Record

DAY_SECONDS = 86_400.0
BATCH = 50  # rows read at once, in a few milliseconds


class RetentionRule(NamedTuple):
    """`newest` rows of this kind are never deleted; others if `old(record, now)`, each together
    with the row of the kind `companion` that has the same key. A service has the rules for its
    records in its attribute `keeps`."""

    kind: type[Record]
    newest: int
    old: Callable[[Any, float], bool]
    companion: type[Record] | None = None


def _member_is_old(member: Member, now: float) -> bool:
    return now - member.last_seen > DAY_SECONDS


def _offset_is_old(offset: ClockOffset, now: float) -> bool:
    """Always: only the newest boots matter."""
    return True


# for the records that are no service's
CLUSTER_RULES = (
    RetentionRule(Member, 100, _member_is_old),
    RetentionRule(ClockOffset, 100, _offset_is_old),
)


class Purge:
    """`delete_old` reads the next few rows; call it from time to time."""

    def __init__(self, rules: tuple[RetentionRule, ...]) -> None:
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
            old = [
                each
                for each in rows
                if not isinstance(each, Damaged) and _is_old(rule.old, each, now)
            ]
            deleted += old
            if rule.companion is not None:
                found = [transaction.read_if_intact(rule.companion, each.key) for each in old]
                deleted += [each for each in found if each]
            if mark is not None:
                unfinished[rule] = mark
        transaction.commit((), deleted)
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
