"""What the cluster forgets, so that its store does not grow for ever: long-ended calls and users long gone. Pure.

The newest rows of each kind stay in any case, and nothing goes that is younger than a day: no bill is lost before
somebody could have read it, and a record is gone only when no phone can still send a message that needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from slee_mock.billing import summed
from slee_mock.record import Bill, Bindings, Call, Member, Record
from slee_mock.store import View

DAY = 86_400.0
ENDLESS = 30 * DAY  # after which an answered call that nobody hung up is taken for one whose phones have vanished
BATCH = 50  # rows looked at in one go, which takes a few milliseconds


def bill_is_old(bill: Bill, wall: float) -> bool:
    total = summed(bill, wall)
    if total.ended is None:
        return wall - (bill.answered or bill.offered) > ENDLESS
    return wall - total.ended > DAY


def bindings_are_old(bindings: Bindings, wall: float) -> bool:
    """None is alive, and no stale REGISTER can be on its way any more."""
    ends = (each.expires_at for each in bindings.bindings)
    return wall - max((*ends, *(each.wall for each in bindings.heard)), default=0.0) > DAY


def member_is_old(member: Member, wall: float) -> bool:
    return wall - member.last_seen > DAY


class Kept(NamedTuple):
    """`newest` rows of this kind are never forgotten; the others if they are `old`."""

    kind: type[Record]
    newest: int
    old: Callable[[Any, float], bool]


KEPT = (Kept(Bill, 10_000, bill_is_old), Kept(Bindings, 1_000, bindings_are_old), Kept(Member, 100, member_is_old))


class Retention:
    """`sweep` looks at the next few rows beyond the newest; call it from time to time. One per member: two that sweep
    at once do not harm each other."""

    def __init__(self, kept: tuple[Kept, ...] = KEPT) -> None:
        self._kept = kept
        self._passed = [0] * len(kept)  # rows beyond the newest, of each kind, that have to stay

    def sweep(self, view: View, wall: float) -> bool:
        """True if there is more to look at now. May raise Conflict or StoreDown; then nothing was forgotten."""
        forgotten: list[Record] = []
        passed: list[int] = []
        for (kind, newest, old), before in zip(self._kept, self._passed, strict=True):
            rows = view.scan(kind, BATCH, newest + before)
            gone = [each for each in rows if old(each, wall)]
            forgotten += gone
            passed.append(before + len(rows) - len(gone) if len(rows) == BATCH else 0)
        calls = (view.get(Call, bill.key) for bill in forgotten if isinstance(bill, Bill))
        view.commit((), [*forgotten, *(call for call in calls if call)])
        self._passed = passed
        return any(passed)
