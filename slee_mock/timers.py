"""Timers of records: whose have run out is asked of the store, so a timer outlives the server that set it.

Pure. Every living member asks; the first whose save is accepted has handled the event, for all others the record is not
due any more.
"""

from __future__ import annotations

from slee_mock.event import Outcome, TimerEvent
from slee_mock.router import NOBODYS_TIMER, Router
from slee_mock.store import Store

BATCH = 16  # timers handled in one go; each is a save
MOST_SKIPPED = 1000


class Timers:
    """`fire` hands to the router what is due; call it again and again. One per member."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._skipped = 0  # of services that this server was not given: they stay due and must not hide the others

    def fire(self, store: Store, wall: float) -> list[Outcome]:
        """What came of them; the sends are the caller's. May raise StoreDown."""
        due = store.due(wall, BATCH + self._skipped)
        outcomes = [self._router.process(TimerEvent(kind, key, wall), store) for kind, key in due]
        self._skipped = min(MOST_SKIPPED, sum(outcome.dropped == NOBODYS_TIMER for outcome in outcomes))
        return outcomes
