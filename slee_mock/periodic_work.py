"""The work that a server does by the clock: signs of life, what waits for the store, timers of
records, retention.

Each piece sets its next time first and works then, so that whatever goes wrong goes wrong once.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence
from typing import Protocol

from plumbing.event_loop import Loop
from slee_mock.cluster.cluster_clock import Clock
from slee_mock.cluster.cluster_key import KeyedStore
from slee_mock.cluster.membership import Membership
from slee_mock.container.event_router import Router
from slee_mock.container.events import Outcome
from slee_mock.container.sbb import Service
from slee_mock.container.timers import BATCH as TIMERS
from slee_mock.container.timers import Timers
from slee_mock.services.options_responder import Heartbeat
from slee_mock.store.degraded_mode import DegradedMode
from slee_mock.store.interface import BadRecord, Conflict, Store, StoreDown, Transaction
from slee_mock.store.purge import RETENTION_RULES, Purge
from slee_mock.store.records import SIGN_OF_LIFE, Member, replace

log = logging.getLogger(__name__)

FACTS = 16  # calls whose facts are saved in one go
# seconds between two looks at what is old, while there is more and otherwise
SWEEPING, SWEPT = 0.25, 60.0


class Host(Protocol):
    """The server, as its upkeep sees it."""

    def store_failed(self, error: StoreDown) -> None: ...

    def store_works(self) -> None: ...

    def complain(self, sentence: str) -> None: ...

    def carry_out(self, outcome: Outcome) -> None:
        """Counts and sends what came of a timer."""


class Upkeep:
    """Owned by the loop's thread. `keyed` is the store below `store`."""

    def __init__(
        self,
        host: Host,
        loop: Loop,
        clock: Clock,
        keyed: KeyedStore,
        store: Store,
        member: Member,
        heartbeat: Heartbeat,
        router: Router,
        services: Sequence[Service],
        outage: DegradedMode,
    ) -> None:
        self._host, self._loop, self._clock, self._keyed, self._store = (
            host,
            loop,
            clock,
            keyed,
            store,
        )
        self._heartbeat, self._degraded = heartbeat, outage
        self._timers = Timers(router)
        self._retention = Purge(
            (*RETENTION_RULES, *(line for each in services for line in getattr(each, "keeps", ())))
        )
        self._membership = Membership(member)
        self._closed = False

    @property
    def member(self) -> Member:
        return self._membership.member

    @property
    def warning(self) -> str:
        return self._membership.warning

    def start(self) -> None:
        """Raises Conflict if a server of this name starts at the same moment, or StoreDown."""
        self._sign()
        self._loop.at(time.monotonic() + SIGN_OF_LIFE, self._sign_again)
        self._loop.at(time.monotonic() + SWEEPING, self._sweep)

    def say_goodbye(self) -> None:
        """Saves what waits, as far as the store takes it, and tells the others that this server
        stops."""
        self._closed = True
        try:
            self._degraded.settle(10 * FACTS)
            self._sign(stopped=True)
        except (StoreDown, Conflict) as error:
            log.warning("the others were not told that this server stops: %s", error)
        if self._degraded.waiting:
            log.error(
                "the store did not come back in time: bills will lack %s", self._degraded.told()
            )

    def _sign(self, stopped: bool = False) -> None:
        self._membership.sign(self._store, self._clock.now(), self._heartbeat, stopped)
        if self.warning:
            self._host.complain(self.warning)

    def _sign_again(self) -> None:
        if self._closed:
            return
        self._loop.at(time.monotonic() + SIGN_OF_LIFE, self._sign_again)
        try:
            # a server of this name signs too, of which the next sign tells
            with contextlib.suppress(Conflict):
                self._sign()
        except StoreDown as error:
            self._host.store_failed(error)
            self._leave_a_sign()
        else:
            self._host.store_works()
            self._settle()
            if not self._degraded.waiting:
                self._fire()
        jumped = self._clock.jumped()
        if jumped:
            log.warning("%s", jumped)

    def _leave_a_sign(self) -> None:
        """In a store that was emptied: no server that starts is to begin a cluster there."""
        with contextlib.suppress(StoreDown, Conflict, BadRecord):
            self._keyed.leave_a_sign(replace(self.member, last_seen=self._clock.now()))

    def _settle(self) -> None:
        """All of it, before timers run out: a call that somebody hung up ends at that time, not at
        its timer's."""
        if self._closed:
            return
        try:
            more = self._degraded.settle(FACTS)
        except StoreDown as error:
            self._host.store_failed(error)
        else:
            if more:
                self._loop.at(time.monotonic(), self._settle)

    def _fire(self) -> None:
        """Timers of records that have run out, whoever set them: a few, then what has come
        meanwhile has its turn."""
        if self._closed:
            return
        saved = 0
        try:
            for outcome in self._timers.fire(self._store, self._clock.now()):
                saved += bool(outcome.saves)
                self._host.carry_out(outcome)
        except StoreDown as error:
            self._host.store_failed(error)
            return
        if saved >= TIMERS:
            self._loop.at(time.monotonic(), self._fire)

    def _sweep(self) -> None:
        if self._closed:
            return
        again = self._loop.at(time.monotonic() + SWEPT, self._sweep)
        try:
            more = self._retention.sweep(Transaction(self._store), self._clock.now())
        except Conflict:
            more = True  # another member swept at the same time
        except StoreDown as error:
            self._host.complain(f"{error}; nothing old was removed from it")
            return
        if more:
            again.cancel()
            self._loop.at(time.monotonic() + SWEEPING, self._sweep)
