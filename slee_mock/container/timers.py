"""Timers of records. The store is asked which have run out, so a timer outlives the server that set
it.

Every server asks; the first whose save is accepted has handled the timer, and for the others the
record is not due any more. A row that stays due (its SBB raised an exception, it cannot be read,
this server does not run its SBB) is tried again ever more rarely, and does not hide the others.
"""

from __future__ import annotations

from collections.abc import Iterator

from slee_mock.container.event_router import Router
from slee_mock.container.events import Outcome, TimerEvent
from slee_mock.store.interface import Store

BATCH = 16  # timers handled in one go; each is a save
MOST_RESTING = 1000  # rows
# seconds until a row that stays due is tried again; doubled each time
FIRST_REST, LONGEST_REST = 0.75, 60.0

Place = tuple[str, str]


class Timers:
    """Fires the timers of all records. Call `fire` again and again."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._resting: dict[Place, tuple[float, float]] = {}  # until when, after which rest

    def fire(self, store: Store, now: float) -> Iterator[Outcome]:
        """Fires the timers that are due and returns their outcomes, one after the other; the caller
        sends the datagrams. May raise StoreDown."""
        due = store.due(now, BATCH + len(self._resting))
        if self._resting:
            self._resting = {place: self._resting[place] for place in due if place in self._resting}
        awake = [
            place for place in due if place not in self._resting or now >= self._resting[place][0]
        ]
        for place in awake[:BATCH]:
            outcome = self._router.process(TimerEvent(*place, now), store)
            if not outcome.writes:
                self._rest(place, now)
            yield outcome

    def _rest(self, place: Place, now: float) -> None:
        """Leaves the row alone for a while, until it is due no more: another server was faster."""
        rest = min(
            LONGEST_REST, 2 * self._resting[place][1] if place in self._resting else FIRST_REST
        )
        if place in self._resting or len(self._resting) < MOST_RESTING:
            self._resting[place] = (now + rest, rest)
