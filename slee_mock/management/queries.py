"""Reads the data of the management pages, on a thread and through a store connection of its own.

So a page, a scrape or an export of all bills takes no time from the `sip` thread, which has to
answer heartbeats. The server's own facts, a copy of a few counters, come from that thread.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from plumbing.event_loop import Loop
from slee_mock.container.sbb import Sbb
from slee_mock.management import snapshot
from slee_mock.management.snapshot import OpenCalls, Snapshot, take_snapshot
from slee_mock.store.interface import Store, StoreDown, Transaction

T = TypeVar("T")
ANSWER_SECONDS = 10.0  # in which a page must be read
BILLS_AT_ONCE = 100  # of an export; a few milliseconds of work, then other questions have a turn


class Queries:
    """`open_store` is called on the reader's thread, at the first question. `own_status` returns
    /status without the part of the SBBs, which are `services`; `now` is cluster time. Every
    question may raise StoreDown or LoopStopped, which are RuntimeErrors, or TimeoutError."""

    def __init__(
        self,
        open_store: Callable[[], Store],
        own_status: Callable[[], dict[str, Any]],
        services: Callable[[], Sequence[Sbb]],
        now: Callable[[], float],
    ) -> None:
        self._open_store, self._now = open_store, now
        self._own_status, self._services = own_status, services
        self._loop = Loop("reader")
        # Below: the reader thread's.
        self._store: Store | None = None
        self._open_calls = OpenCalls()

    # -- any thread --------------------------------------------------------------------------------

    def start(self) -> None:
        self._loop.start()

    def stop(self, timeout: float) -> None:
        """Raises TimeoutError if what is being read does not come to an end."""
        self.close_store()
        self._loop.stop(timeout)

    def close_store(self) -> None:
        """Closes the store soon; the next question opens it again."""
        if self._loop.running:
            self._loop.post(self._close)

    def status(self) -> dict[str, Any]:
        """Without the services' status if the store cannot be read."""
        status = self._own_status()
        with contextlib.suppress(StoreDown):
            status["services"] = self._ask(self._services_status)
        return status

    def snapshot(self) -> Snapshot:
        status = self._own_status()
        return self._ask(lambda transaction: self._snapshot(status, transaction))

    def bills(self) -> Iterator[list[dict[str, Any]]]:
        """Every bill, the newest first, in slices. May raise StoreDown on the way, too."""
        before: int | None = None
        while True:
            found, before = self._ask(
                partial(snapshot.bills, most=BILLS_AT_ONCE, before=before, now=self._now())
            )
            yield found
            if before is None:
                return

    # -- the reader thread -------------------------------------------------------------------------

    def _services_status(self, transaction: Transaction) -> dict[str, Any]:
        """What each SBB shows, or why it shows nothing: its fault must not hide the others."""
        shown: dict[str, Any] = {}
        for sbb in self._services():
            if hasattr(sbb, "status"):
                try:
                    shown[sbb.name] = sbb.status(transaction, self._now())
                    json.dumps(shown[sbb.name])
                except StoreDown:
                    raise
                except (Exception, SystemExit) as error:
                    shown[sbb.name] = {"error": f"{type(error).__name__}: {error}"}
        return shown

    def _snapshot(self, status: dict[str, Any], transaction: Transaction) -> Snapshot:
        status["services"] = self._services_status(transaction)
        return take_snapshot(transaction, status, self._now(), self._open_calls)

    def _ask(self, read: Callable[[Transaction], T]) -> T:
        return self._loop.ask(lambda: self._read(read), ANSWER_SECONDS)

    def _read(self, read: Callable[[Transaction], T]) -> T:
        self._store = self._store or self._open_store()
        return read(Transaction(self._store))

    def _close(self) -> None:
        if self._store:
            self._store.close()
            self._store = None
