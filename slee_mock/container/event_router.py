"""The event router: an event -> its convergence name -> the services that want it, in their order
of priority.

Pure. What a service raises (a call was answered, say) is routed within the same transaction, so the
facts of the call and of its bill are saved together or not at all. A peer's fault becomes a
response here, in one place, and so does a service's: its exception ends the handling of this one
event, of which nothing is saved or sent but a 500.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Sequence

from sip.errors import RemoteProtocolError
from slee_mock.container.events import (
    Arrival,
    CallEvent,
    Event,
    Outcome,
    RequestEvent,
    Send,
    TimerEvent,
    drop,
)
from slee_mock.container.sbb import On, Service, takers
from slee_mock.sip_adaptor import Answers
from slee_mock.store.interface import (
    BadName,
    BadRecord,
    Conflict,
    Contended,
    Store,
    StoreDown,
    Transaction,
)
from slee_mock.store.records import Record

MOST_CONFLICTS = 20
ENDING = ("BYE", "CANCEL")
NOBODYS_TIMER = "timer_for_nobody"
SERVICE_FAILED, BAD_RECORD, BAD_NAME = "service_failed", "bad_record", "bad_name"  # counters
# What a service may raise. sys.exit() would end the thread, and the program would go on without it.
FAILURES = (Exception, SystemExit)
MOST_RAISED = 64  # times that one datagram may concern a service; more is a circle between services


class Circle(RuntimeError):
    """Services raise events for each other without end."""


class Router:
    """`services`: the first has the highest priority. `answers` speaks where no service does.
    `failed` hears of every event that was refused because of a service's exception or a damaged
    row, for the log."""

    def __init__(
        self,
        services: Sequence[Service],
        answers: Answers,
        failed: Callable[[Arrival | TimerEvent, BaseException], object] = lambda event, error: None,
    ) -> None:
        self._services = services
        self._answers = answers
        self._failed = failed
        self._takers: dict[type, list[tuple[Service, On]]] = {}  # by the events' types

    def handle(self, event: Arrival | TimerEvent, transaction: Transaction) -> Outcome:
        """All that the services want saved and sent on account of `event`. May raise StoreDown and
        Conflict."""
        try:
            return self._route(event, transaction)
        except RemoteProtocolError as error:
            return self._answers.reject(event, error.status)
        except (StoreDown, Conflict):
            raise
        except FAILURES as error:  # a stranger's service: whatever is wrong with it
            return self.give_up(event, error)

    def process(self, event: Arrival | TimerEvent, store: Store) -> Outcome:
        """`handle`, and the saves done; the sends are the caller's. May raise StoreDown."""
        for _ in range(MOST_CONFLICTS):
            transaction = Transaction(store)
            try:
                outcome = self.handle(event, transaction)
                _check_sends(outcome.sends)
                transaction.commit(outcome.saves)
                return outcome
            except Conflict:
                continue  # another member handled a message of this call meanwhile: look again
            except StoreDown:
                raise
            except FAILURES as error:  # what a service wants saved cannot be
                return self.give_up(event, error)
        raise Contended(f"other servers changed what this one read {MOST_CONFLICTS} times in a row")

    def give_up(self, event: Arrival | TimerEvent, error: BaseException) -> Outcome:
        """The outcome of an event that cannot be handled. Nothing of it is saved. RFC 3261
        21.5.1."""
        self._failed(event, error)
        reason = (
            BAD_NAME
            if isinstance(error, BadName)
            else BAD_RECORD
            if isinstance(error, BadRecord)
            else ""
        )
        refused = self._answers.reject(event, 400 if reason == BAD_NAME else 500)
        return refused._replace(dropped=reason or SERVICE_FAILED, saves=(), raised=())

    def unable(self, event: Arrival) -> Outcome:
        """The store does not answer. A request hears 503; a final response is not passed on
        unrecorded, for the phone repeats it until it is acknowledged (RFC 3261 13.3.1.4, 17.2.1).
        Nor is BYE or CANCEL refused, which no phone would say again after that (15.1.1): unanswered
        it comes again for 32 s, and ends call and bill."""
        if isinstance(event, RequestEvent) and event.request.method not in ENDING:
            return self._answers.reject(event, 503)
        return drop("store_down")

    def _route(self, event: Arrival | TimerEvent, transaction: Transaction) -> Outcome:
        outcomes: list[Outcome] = []
        queue: collections.deque[Event] = collections.deque([event])
        while queue:
            if len(outcomes) > MOST_RAISED:
                raise Circle(
                    f"services raise events for each other in a circle: {type(queue[0]).__name__} "
                    "is one"
                )
            for outcome in self._offer(queue.popleft(), transaction):
                outcomes.append(outcome)
                queue += outcome.raised
        if not outcomes:
            if isinstance(event, RequestEvent):
                return self._answers.refuse(event, 405)
            return drop(NOBODYS_TIMER if isinstance(event, TimerEvent) else "response_for_nobody")
        if len(outcomes) == 1:
            return outcomes[0]
        return _as_one(outcomes)

    def _offer(self, event: Event, transaction: Transaction) -> list[Outcome]:
        kind = type(event)
        if kind not in self._takers:
            self._takers[kind] = takers(self._services, kind)
        outcomes: list[Outcome] = []
        asked = None
        for service, on in self._takers[kind]:
            if service is asked or not on.when(event):
                continue
            asked = service
            outcome = service.handle(event, on.name(event), transaction)
            transaction.put(outcome.saves)
            outcomes.append(outcome)
            if outcome.done:
                break
        return outcomes


def _as_one(outcomes: Sequence[Outcome]) -> Outcome:
    saves: list[Record] = []
    sends: list[Send] = []
    raised: list[CallEvent] = []
    dropped, notes = "", []
    for outcome in outcomes:
        saves += outcome.saves
        sends += outcome.sends
        raised += outcome.raised
        dropped = dropped or outcome.dropped
        if outcome.note:
            notes.append(outcome.note)
    return Outcome(
        tuple(saves), tuple(sends), tuple(raised), dropped=dropped, note=", ".join(notes)
    )


def _check_sends(sends: Iterable[Send]) -> None:
    """Raises TypeError for a service's datagram that no socket would take: it would stop those of
    others."""
    for data, to in sends:
        if not isinstance(data, bytes):
            raise TypeError(f"a datagram is bytes, not {type(data).__name__}")
        if to is not None and not (
            len(to) == 2 and isinstance(to[0], str) and isinstance(to[1], int)
        ):
            raise TypeError(f"a datagram goes to (host, port), not to {to!r}")
