"""Reads the data of the management pages, on the thread that asks and through a store connection of
its own.

So a page, a scrape or an export of all bills takes no time from the `sip` thread, which has to
answer heartbeats. The server's own facts, a copy of a few counters, come from that thread. The
store is opened for each question and closed behind it: then no page is in the way where lost files
of the store can be opened again only once nobody has them open (sqlite_store.py).
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from slee_mock.container.sbb import Sbb
from slee_mock.management import snapshot
from slee_mock.management.snapshot import OpenCalls, Snapshot, take_snapshot
from slee_mock.store.interface import Store, StoreDown, Transaction

T = TypeVar("T")
TURN_SECONDS = 10.0  # in which the questions before this one must be answered
BILLS_AT_ONCE = 100  # of an export; a few milliseconds of work, then other questions have a turn


class Queries:
    """Any thread may ask; one question is read at a time. `own_status` returns /status without the
    part of the SBBs, which are `services`; `now` is cluster time. Every question may raise
    StoreDown or LoopStopped, which are RuntimeErrors, or TimeoutError."""

    def __init__(
        self,
        open_store: Callable[[], Store],
        own_status: Callable[[], dict[str, Any]],
        services: Callable[[], Sequence[Sbb]],
        now: Callable[[], float],
    ) -> None:
        self._open_store, self._now = open_store, now
        self._own_status, self._services = own_status, services
        self._turn = threading.Lock()  # who has it reads; guards the calls below
        self._open_calls = OpenCalls()

    def status(self) -> dict[str, Any]:
        """Without the services' status if the store cannot be read."""
        status = self._own_status()
        with contextlib.suppress(StoreDown):
            status["services"] = self._read(self._services_status)
        return status

    def snapshot(self) -> Snapshot:
        status = self._own_status()
        return self._read(lambda transaction: self._snapshot(status, transaction))

    def bills(self) -> Iterator[list[dict[str, Any]]]:
        """Every bill, the newest first, in slices. May raise StoreDown on the way, too."""
        before: int | None = None
        while True:
            found, before = self._read(
                partial(snapshot.bills, most=BILLS_AT_ONCE, before=before, now=self._now())
            )
            yield found
            if before is None:
                return

    def wait(self, seconds: float) -> None:
        """Raises TimeoutError if what is being read does not come to an end."""
        if not self._turn.acquire(timeout=seconds):
            raise TimeoutError(f"a page still reads the store after {seconds:g} s")
        self._turn.release()

    def _read(self, read: Callable[[Transaction], T]) -> T:
        if not self._turn.acquire(timeout=TURN_SECONDS):
            raise TimeoutError(f"another page has been reading the store for {TURN_SECONDS:g} s")
        try:
            with contextlib.closing(self._open_store()) as store:
                return read(Transaction(store))
        finally:
            self._turn.release()

    def _snapshot(self, status: dict[str, Any], transaction: Transaction) -> Snapshot:
        status["services"] = self._services_status(transaction)
        return take_snapshot(transaction, status, self._now(), self._open_calls)

    def _services_status(self, transaction: Transaction) -> dict[str, Any]:
        """The status of each SBB, or its fault, which must not hide the status of the others."""
        shown: dict[str, Any] = {}
        now = self._now()
        for sbb in self._services():
            if hasattr(sbb, "status"):
                try:
                    shown[sbb.name] = sbb.status(transaction, now)
                    json.dumps(shown[sbb.name])
                except StoreDown:
                    raise
                except (Exception, SystemExit) as error:
                    shown[sbb.name] = {"error": f"{type(error).__name__}: {error}"}
        return shown
