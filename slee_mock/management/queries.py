"""Reads the data of the management pages, on a thread and through a store connection of its own.

So a page, a scrape or an export of all bills takes no time from the `sip` thread, which has to
answer heartbeats. The server's own facts, a copy of a few counters, come from that thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from plumbing.event_loop import Loop
from slee_mock.management import snapshot
from slee_mock.management.snapshot import OpenCalls, ServerStatus, Snapshot, take_snapshot
from slee_mock.store.interface import Store, StoreDown, Transaction

T = TypeVar("T")
ANSWER_SECONDS = 10.0  # in which a page must be read
BILLS_AT_ONCE = 100  # of an export; a few milliseconds of work, then other questions have a turn


class Unreadable(RuntimeError):
    """The store cannot be read; the text is a sentence for the operator."""


class Queries:
    """`open_store` is called on the reader's thread, at the first question. `server_status` returns
    the server's own facts, `services_status` those of its services, `now` cluster time. Every
    question may raise LoopStopped, which is a RuntimeError, or TimeoutError."""

    def __init__(
        self,
        open_store: Callable[[], Store],
        server_status: Callable[[], ServerStatus],
        services_status: Callable[[Transaction, float], Mapping[str, Any]],
        now: Callable[[], float],
    ) -> None:
        self._open_store, self._now = open_store, now
        self._server_status, self._services_status = server_status, services_status
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
        server = self._server_status()
        with contextlib.suppress(Unreadable):
            server = self._ask(lambda transaction: self._complete(server, transaction, self._now()))
        return snapshot.status(server)

    def snapshot(self) -> Snapshot:
        """Raises Unreadable."""
        server = self._server_status()
        return self._ask(lambda transaction: self._snapshot(server, transaction, self._now()))

    def bills(self) -> Iterator[list[dict[str, Any]]]:
        """Every bill, the newest first, in slices. Raises Unreadable, also on the way."""
        before: int | None = None
        while True:
            found, before = self._ask(
                partial(snapshot.bills, most=BILLS_AT_ONCE, before=before, now=self._now())
            )
            yield found
            if before is None:
                return

    # -- the reader thread -------------------------------------------------------------------------

    def _snapshot(self, server: ServerStatus, transaction: Transaction, now: float) -> Snapshot:
        server = self._complete(server, transaction, now)
        return take_snapshot(transaction, server, now, self._open_calls)

    def _complete(self, server: ServerStatus, transaction: Transaction, now: float) -> ServerStatus:
        return replace(server, services=self._services_status(transaction, now))

    def _ask(self, read: Callable[[Transaction], T]) -> T:
        return self._loop.ask(lambda: self._read(read), ANSWER_SECONDS)

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
