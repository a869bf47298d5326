"""What the management pages are made from, read on a thread of its own through a connection of its
own.

So a page, a scrape or an export of every bill there is takes nothing of the time in which the `sip`
thread has to answer heartbeats. What the server itself knows, a copy of a few counters, comes from
that thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from plumbing.event_loop import Loop
from slee_mock.management import snapshot as report
from slee_mock.store.interface import Store, StoreDown, Transaction

T = TypeVar("T")
PATIENCE = 10.0  # seconds in which a page has to be made
# bills read at once for an export: a few milliseconds of work, then others have their turn
SLICE = 100


class Unreadable(RuntimeError):
    """The store cannot be read; the text is a sentence for the operator."""


class Queries:
    """`open_store` is called on the reader's thread, once somebody wants to see something. `health`
    is what the server says of itself, `tell` what its services do, `now` cluster time. Whatever is
    asked may raise LoopStopped, which is a RuntimeError, or TimeoutError."""

    def __init__(
        self,
        open_store: Callable[[], Store],
        health: Callable[[], report.ServerStatus],
        tell: Callable[[Transaction, float], Mapping[str, Any]],
        now: Callable[[], float],
    ) -> None:
        self._open_store, self._health, self._tell, self._now = open_store, health, tell, now
        self._loop = Loop("reader")
        # Below: the reader thread's.
        self._store: Store | None = None
        self._running = report.OpenCalls()

    # -- any thread --------------------------------------------------------------------------------

    def start(self) -> None:
        self._loop.start()

    def stop(self, timeout: float) -> None:
        """Raises TimeoutError if what is being read does not come to an end."""
        self.let_go()
        self._loop.stop(timeout)

    def let_go(self) -> None:
        """Closes the store soon; the next question opens it again."""
        if self._loop.running:
            self._loop.post(self._close)

    def status(self) -> dict[str, Any]:
        """Without what the services tell if the store cannot be read."""
        health = self._health()
        with contextlib.suppress(Unreadable):
            health = self._ask(lambda transaction: self._complete(health, transaction, self._now()))
        return report.status(health)

    def board(self) -> report.Snapshot:
        """Raises Unreadable."""
        health = self._health()
        return self._ask(lambda transaction: self._board(health, transaction, self._now()))

    def bills(self) -> Iterator[list[dict[str, Any]]]:
        """Every bill, the newest first, in slices. Raises Unreadable, also on the way."""
        before: int | None = None
        while True:
            found, before = self._ask(
                partial(report.bills, most=SLICE, before=before, wall=self._now())
            )
            yield found
            if before is None:
                return

    # -- the reader thread -------------------------------------------------------------------------

    def _board(
        self, health: report.ServerStatus, transaction: Transaction, wall: float
    ) -> report.Snapshot:
        return report.board(
            transaction, self._complete(health, transaction, wall), wall, self._running
        )

    def _complete(
        self, health: report.ServerStatus, transaction: Transaction, wall: float
    ) -> report.ServerStatus:
        return replace(health, services=self._tell(transaction, wall))

    def _ask(self, read: Callable[[Transaction], T]) -> T:
        return self._loop.ask(lambda: self._read(read), PATIENCE)

    def _read(self, read: Callable[[Transaction], T]) -> T:
        try:
            self._store = self._store or self._open_store()
            return read(Transaction(self._store))
        except StoreDown as error:
            raise Unreadable(str(error)) from error

    def _close(self) -> None:
        if self._store:
            self._store.close()
            self._store = None
