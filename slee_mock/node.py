"""One server without a socket, thread or clock: datagrams and times in, outcomes out.

Rules
- `receive` handles one turn of datagrams. A heartbeat is answered at once; it needs no store. All
  other messages of a turn are saved in one transaction, or one by one if another server changed
  one of their calls meanwhile.
- `on_deadline` does the work that is due by the clock. Call it at `deadline`, again and again.
  Every 0.5 s a sign of life. If that could be saved, the store works: what was deferred while it
  was down is replayed, all of it, and only then do timers fire, for a call that somebody has hung
  up ends at that time and not at its timer's. Old rows are purged once a minute.
- All times are cluster time (cluster/cluster_clock.py), which never jumps.
- An exception ends the handling of one event; the rest of the turn goes on.

Traps
- Each job sets its next time before it works, so that an exception does not end it for good.
- An outcome's writes are saved by the time it is handed out; its datagrams must be sent then.
  `receive` and `on_deadline` are generators: nothing happens until they are read.
- StoreDown never leaves here except from `start`. It makes the server answer heartbeats 503 until
  the next sign of life is saved.
"""

from __future__ import annotations

import collections
import contextlib
import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Protocol

from sip.errors import RemoteProtocolError
from sip.keep_alive import is_keep_alive
from sip.message import Request, Response
from slee_mock.cluster.cluster_key import KeyedStore
from slee_mock.cluster.membership import Membership
from slee_mock.container.deployment import Context, install
from slee_mock.container.event_router import Router
from slee_mock.container.events import Arrival, CallEnded, Outcome, RequestEvent, TimerEvent
from slee_mock.container.timers import BATCH as TIMERS
from slee_mock.container.timers import Timers
from slee_mock.degraded_mode import CachingStore, DegradedMode
from slee_mock.receive_queue import Datagram
from slee_mock.services.bill_record import Bill
from slee_mock.sip_adaptor import (
    HEARTBEATS,
    Forwarders,
    OptionsResponder,
    check,
    counter_name,
    message_of,
    read_event,
)
from slee_mock.store.interface import BadRecord, Conflict, Contended, StoreDown, Transaction
from slee_mock.store.purge import CLUSTER_RULES, Purge
from slee_mock.store.records import SIGN_OF_LIFE, Member, replace

REPLAY_BATCH = 16  # calls whose deferred events are replayed in one go
PURGING, PURGED = 0.25, 60.0  # seconds between two purges, while there is more and otherwise
IDLE_SECONDS = 0.5  # without a message of a call, nothing can be on its way to this server
MOST_PENDING = 10_000  # transactions


class Observer(Protocol):
    """Hears what an operator should know. The one of a running server logs it."""

    def warn(self, sentence: str) -> None: ...

    def lost(self, sentence: str) -> None:
        """Something that others will not learn from this server: the end of a call, or its own.
        Said once, so it is never left out."""

    def failed(self, what: str, error: BaseException) -> None:
        """A service raised an exception over `what`."""

    def handled(self, message: Request | Response, note: str) -> None: ...

    def store_found(self) -> None:
        """The store works again, and has failed before."""


class Node:
    """`store` holds the cluster's key already. `hosts` are the computers whose forwarders are
    believed, the first is that of `forwarder`."""

    def __init__(
        self,
        context: Context,
        member: Member,
        store: KeyedStore,
        forwarder: tuple[str, int],
        hosts: Sequence[str],
        observer: Observer,
    ) -> None:
        self._observer = observer
        self._keyed = store
        self.store = CachingStore(store)
        self._forwarder, self._forwarders = forwarder, Forwarders(forwarder, hosts)
        self._answers = context.answers
        self.options = OptionsResponder(context.answers, forwarder[0], *hosts)
        self.services = install(context)
        self.router = Router(self.services, context.answers, self._event_failed)
        self.degraded = DegradedMode(self.router, self.store, self._replayed)
        self._late: list[Outcome] = []  # of deferred events, to be sent next
        self._timers = Timers(self.router)
        rules = (line for each in self.services for line in getattr(each, "keeps", ()))
        self._purge_job = Purge((*CLUSTER_RULES, *rules))
        self.membership = Membership(member)
        self._pending = PendingTransactions()
        self.counts: collections.Counter[tuple[str, str]] = collections.Counter()
        self.trouble = ""  # with the store: a sentence
        self._last_message = self._left = -math.inf
        self._sign_at = self._work_at = self._purge_at = math.inf

    # -- life cycle --------------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """Raises Conflict if a server of this name starts at the same moment, or StoreDown."""
        self.sign(now)
        self._sign_at, self._purge_at = now + SIGN_OF_LIFE, now + PURGING

    def leave(self, now: float) -> None:
        """Asks for no new calls from now on; those that are here go on."""
        self._left = now

    def _is_ready(self) -> bool:
        """Does this server take new calls?"""
        return not self.trouble and self._left == -math.inf

    def is_idle(self, now: float) -> bool:
        """Is no response due from here, and no message of a call on its way?"""
        return not len(self._pending) and now - max(self._last_message, self._left) > IDLE_SECONDS

    def stop(self, now: float) -> Sequence[Outcome]:
        """Saves what was deferred, as far as the store takes it, and tells the others that this
        server stops. Returns what is still to be sent. Nothing may be called after it."""
        try:
            self.degraded.replay(10 * REPLAY_BATCH)
            self.sign(now, stopped=True)
        except (StoreDown, Conflict) as error:
            self._observer.lost(f"the others were not told that this server stops: {error}")
        if self.degraded.deferred:
            self._observer.lost(
                f"the store did not come back in time: bills will lack {self.degraded.describe()}"
            )
        return self._take_late()

    # -- datagrams ---------------------------------------------------------------------------------

    def receive(self, datagrams: Iterable[Datagram], now: float) -> Iterator[Sequence[Outcome]]:
        """Handles a turn of datagrams. Yields outcomes whose datagrams are to be sent together."""
        events: list[Arrival] = []
        for datagram in datagrams:
            event = self._read(datagram)
            if event is None:
                continue
            name = counter_name(event)
            self.counts["handled", name] += 1
            try:
                check(event)
                if name == HEARTBEATS and isinstance(event, RequestEvent):
                    yield [self.options.respond(event, self._is_ready())]
                else:
                    events.append(event)
            except RemoteProtocolError as error:
                refused = self._answers.reject(event, error.status)
                self._tell_of(event, refused, now)
                yield [refused]
        outcomes = self._decide_all(events)
        for event, outcome in zip(events, outcomes, strict=True):
            self._tell_of(event, outcome, now)
        yield [*self._take_late(), *outcomes]

    def too_large(self, sent: Iterable[bytes], now: float) -> Iterator[Sequence[Outcome]]:
        """Handles messages that are too large for a UDP datagram: requests as if their next hop had
        answered 513 (RFC 3261 16.9, 21.4.11)."""
        refusals = [refusal for data in sent for refusal in self._answers.too_large(data)]
        yield from self.receive(
            [Datagram(send.data, self._forwarder, now) for send in refusals], now
        )

    def _read(self, datagram: Datagram) -> Arrival | None:
        if is_keep_alive(datagram.data):
            self.counts["dropped", "keepalive"] += 1
            return None
        try:
            return read_event(*datagram, self._forwarders)
        except RemoteProtocolError:
            pass
        except Exception as error:  # ours: it must not take the rest of the turn with it
            self._observer.failed("a datagram", error)
        self.counts["dropped", "unreadable"] += 1
        return None

    def _decide_all(self, events: Sequence[Arrival]) -> list[Outcome]:
        """Handles the events in one transaction if that can be, else one by one."""
        if len(events) > 1 and not self.trouble:
            try:
                self.degraded.catch_up(events)
                return self.router.process_all(events, self.store)
            except Exception:
                pass  # a conflict with another server; all else is told below
        return [self._decide(event) for event in events]

    def _decide(self, event: Arrival) -> Outcome:
        try:
            self.degraded.catch_up([event])
            return self.router.process(event, self.store)
        except StoreDown as error:
            self._store_failed(error)
            return self.degraded.process_offline(event)

    def _tell_of(self, event: Arrival, outcome: Outcome, now: float) -> None:
        self._count_bills(outcome)
        if outcome.drop_reason:
            self.counts["dropped", outcome.drop_reason] += 1
        message = message_of(event)
        self._observer.handled(message, outcome.log_text or outcome.drop_reason)
        self._last_message = now
        self._pending.note(message, outcome)

    def _replayed(self, outcome: Outcome) -> None:
        self._count_bills(outcome)
        if outcome.sends:
            self._late.append(outcome)

    def _take_late(self) -> list[Outcome]:
        late, self._late = self._late, []
        return late

    def _count_bills(self, outcome: Outcome) -> None:
        """Counts the ends that were written down; one that was known is not written again."""
        if any(isinstance(fires, CallEnded) for fires in outcome.fires):
            self.counts["bills", "closed"] += any(isinstance(each, Bill) for each in outcome.writes)

    # -- the clock ---------------------------------------------------------------------------------

    @property
    def deadline(self) -> float:
        """When `on_deadline` has something to do; infinite unless the server runs."""
        return min(self._sign_at, self._work_at, self._purge_at)

    def on_deadline(self, now: float) -> Iterator[Outcome]:
        """Does what is due. Yields what came of deferred events and timers."""
        if now >= self._sign_at:
            self.sign_of_life(now)
        if now >= self._work_at:
            yield from self._work_off(now)
        if now >= self._purge_at:
            self._purge(now)

    def sign_of_life(self, now: float) -> None:
        """Saves a sign of life, and plans replay and timers if the store works."""
        self._sign_at = now + SIGN_OF_LIFE
        try:
            # a server of this name signs too, of which the next sign tells
            with contextlib.suppress(Conflict):
                self.sign(now)
        except StoreDown as error:
            self._store_failed(error)
            # In a store that was emptied: so that no server that starts begins a cluster there.
            with contextlib.suppress(StoreDown, Conflict, BadRecord):
                self._keyed.leave_a_sign(replace(self.membership.member, last_seen=now))
        else:
            self._store_works()
            self._work_at = now

    def sign(self, now: float, stopped: bool = False) -> None:
        """Saves a sign of life. May raise StoreDown or Conflict."""
        self.membership.sign(self.store, now, self.options, stopped)
        if self.membership.warning:
            self._observer.warn(self.membership.warning)

    def _work_off(self, now: float) -> Iterator[Outcome]:
        """Replays a slice of what was deferred while the store was down. Once nothing is left of
        that, fires a few timers."""
        self._work_at = math.inf
        more = False
        try:
            more = self.degraded.replay(REPLAY_BATCH)
            yield from self._take_late()
            if not more:
                more = yield from self._fire(now)
        except StoreDown as error:
            self._store_failed(error)
            yield from self._take_late()
        if more:
            self._work_at = now

    def _fire(self, now: float) -> Generator[Outcome, None, bool]:
        """Fires timers that have run out, whichever server set them. Returns whether there may be
        more of them."""
        saved = 0
        for outcome in self._timers.fire(self.store, now):
            saved += bool(outcome.writes)
            self.counts["handled", "timers"] += not outcome.drop_reason
            if outcome.drop_reason:
                self.counts["dropped", outcome.drop_reason] += 1
            self._count_bills(outcome)
            yield outcome
        return saved >= TIMERS

    def _purge(self, now: float) -> None:
        self._purge_at = now + PURGED
        try:
            more = self._purge_job.delete_old(Transaction(self.store), now)
        except Conflict:
            more = True  # another server purges at the same time
        except StoreDown as error:
            self._observer.warn(f"{error}; nothing old was removed from it")
            return
        if more:
            self._purge_at = now + PURGING

    # -- faults ------------------------------------------------------------------------------------

    def _event_failed(self, event: Arrival | TimerEvent, error: BaseException) -> None:
        if isinstance(error, BadRecord):
            self._observer.warn(f"{error}; refused is only who needs it")
        elif isinstance(event, TimerEvent):
            self._observer.failed(f"timer of {event.kind} {event.key!r}", error)
        else:
            self._observer.failed(counter_name(event), error)

    def _store_failed(self, error: StoreDown) -> None:
        if isinstance(error, Contended):
            self.counts["dropped", "contended"] += 1
            self._observer.warn(str(error))
            return
        self.trouble = str(error)
        self.counts["dropped", "store_failures"] += 1
        self._observer.warn(f"{error}; requests that need it are answered 503")

    def _store_works(self) -> None:
        if self.trouble:
            self._observer.store_found()
        self.trouble = ""


class PendingTransactions:
    """Requests that were passed on and have no final response yet: a server that leaves waits for
    them."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, int, str], None] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def note(self, message: Request | Response, outcome: Outcome) -> None:
        """Adds a request that was passed on, or removes one that has its final response."""
        try:
            key = (message.call_id, message.cseq.number, message.cseq.method)
        except RemoteProtocolError:
            return  # without Call-ID or CSeq nobody can answer it
        if isinstance(message, Response):
            if message.status >= 200:
                self._waiting.pop(key, None)
        elif message.method != "ACK" and any(
            not send.data.startswith(b"SIP/2.0") for send in outcome.sends
        ):
            self._waiting[key] = None
            if len(self._waiting) > MOST_PENDING:
                del self._waiting[next(iter(self._waiting))]
