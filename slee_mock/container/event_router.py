"""The event router: an event -> convergence name -> the SBBs that select it, in their priority.

Rules
- One transaction for an event of the network or a timer, for all SBBs that handle it, and for all
  events that these fire. So the facts of a call and of its bill are saved together or not at all.
  The datagrams of one turn share a transaction; if that cannot be committed, each has its own.
- SBBs are asked in their order. The first whose outcome is `consumed` ends the delivery of this
  event. Fired events are delivered after it, first come, first served.
- What one SBB wants written the next one reads, although nothing is saved yet.
- A conflict with another server rolls everything back, and the event is handled again from what
  that server has saved; twenty times, then it is refused.
- An exception rolls back this one event. A request hears 500, 400 if the sender is at fault, or the
  status of a RemoteProtocolError; a response is dropped. The caller goes on with the next event.

Traps
- `process` has saved when it returns, and sent nothing: the caller sends.
- SystemExit of an SBB is caught too: it would end the thread, and the program would go on.
- More than MOST_DELIVERIES for one event is a circle of SBBs that fire events for each other.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Sequence

from sip.errors import RemoteProtocolError
from sip.message import Request
from slee_mock.container.events import (
    Arrival,
    Event,
    Outcome,
    RequestEvent,
    Send,
    TimerEvent,
    drop,
)
from slee_mock.container.sbb import Entity, InitialEvent, Sbb
from slee_mock.sip_adaptor import LocalResponses
from slee_mock.store.interface import (
    BadName,
    BadRecord,
    Conflict,
    Contended,
    Store,
    StoreDown,
    Transaction,
)

MOST_CONFLICTS = 20
# of an SBB
FAILURES = (Exception, SystemExit)
MOST_DELIVERIES = 64  # to SBBs, for one event of the network or timer


class Router:
    """Delivers events to SBBs. `sbbs`: the first has the highest priority. `answers` makes the
    responses where no SBB does. `failed` is told of every event that an exception or a damaged row
    has ended, for the log."""

    def __init__(
        self,
        sbbs: Sequence[Sbb],
        answers: LocalResponses,
        failed: Callable[[Arrival | TimerEvent, BaseException], object],
    ) -> None:
        self._sbbs = sbbs
        self._answers = answers
        self._failed = failed
        # by the events' types
        self._known_subscribers: dict[type, list[tuple[Sbb, InitialEvent]]] = {}

    def handle(self, event: Arrival | TimerEvent, transaction: Transaction) -> Outcome:
        """Gives `event` to its SBBs and returns what all of them want written and sent; nothing is
        saved yet. May raise StoreDown and Conflict."""
        before = transaction.savepoint()
        try:
            return self._route(event, transaction)
        except (StoreDown, Conflict):
            raise
        except FAILURES as error:  # of a deployed SBB: whatever is wrong with it
            transaction.roll_back(before)
            if isinstance(error, RemoteProtocolError):
                return self._answers.reject(event, error.status)
            return self._give_up(event, error)

    def process(self, event: Arrival | TimerEvent, store: Store) -> Outcome:
        """Handles `event` and saves what is to be written. May raise StoreDown."""
        for _ in range(MOST_CONFLICTS):
            try:
                return self.process_all([event], store)[0]
            except Conflict:
                continue  # rolled back: another server handled a message of this call meanwhile
            except StoreDown:
                raise
            except FAILURES as error:  # what an SBB wants saved cannot be
                return self._give_up(event, error)
        raise Contended(f"other servers changed what this one read {MOST_CONFLICTS} times in a row")

    def process_all(self, events: Sequence[Arrival | TimerEvent], store: Store) -> list[Outcome]:
        """Handles the events in their order, and saves all together (group commit): a commit costs
        more than all else that is done for a message, and for sixteen messages hardly more than for
        one. If it raises an exception nothing was saved; one by one they may still be handled."""
        transaction = Transaction(store)
        outcomes = [self.handle(event, transaction) for event in events]
        for outcome in outcomes:
            _check_sends(outcome.sends)
        transaction.commit()
        return outcomes

    def _give_up(self, event: Arrival | TimerEvent, error: BaseException) -> Outcome:
        """Refuses an event that cannot be handled (RFC 3261 21.5.1). Nothing of it is saved."""
        self._failed(event, error)
        status, reason = 500, "service_failed"
        if isinstance(error, BadName):
            status, reason = 400, "bad_name"
        elif isinstance(error, BadRecord):
            reason = "bad_record"
        return self._answers.reject(event, status)._replace(drop_reason=reason)

    def unable(self, event: Arrival) -> Outcome:
        """Refuses a request that begins something with 503, because the store does not answer. All
        else is dropped, for its phone repeats it for 32 s: a final response until it is
        acknowledged (RFC 3261 13.3.1.4, 17.2.1), a request until it is answered (17.1). A refusal
        would end it for good, and with BYE (15.1.1) or PRACK (RFC 3262 4) the call or its bill."""
        if isinstance(event, RequestEvent) and begins_something(event.request):
            return self._answers.reject(event, 503)
        return drop("store_down")

    def _route(self, event: Arrival | TimerEvent, transaction: Transaction) -> Outcome:
        outcomes: list[Outcome] = []
        queue: collections.deque[Event] = collections.deque([event])
        while queue:
            if len(outcomes) > MOST_DELIVERIES:
                raise RuntimeError(
                    f"services fire events for each other in a circle: {type(queue[0]).__name__} "
                    "is one"
                )
            for outcome in self._deliver(queue.popleft(), transaction):
                outcomes.append(outcome)
                queue += outcome.fires
        if outcomes:
            return _joined(outcomes)
        if isinstance(event, RequestEvent):
            return self._answers.refuse(event, 405)
        return drop("timer_for_nobody" if isinstance(event, TimerEvent) else "response_for_nobody")

    def _deliver(self, event: Event, transaction: Transaction) -> list[Outcome]:
        outcomes: list[Outcome] = []
        asked = None
        for sbb, initial in self._subscribers(type(event)):
            if sbb is asked or not initial.when(event):
                continue
            asked = sbb
            entity = Entity(initial.name(event), transaction, getattr(sbb, "records", ()))
            outcome = sbb.handle(event, entity)
            if outcome.writes:
                for record in outcome.writes:
                    entity.check(type(record))
                transaction.put(outcome.writes)
            outcomes.append(outcome)
            if outcome.consumed:
                break
        return outcomes

    def _subscribers(self, kind: type) -> list[tuple[Sbb, InitialEvent]]:
        """The SBBs that select events of this type, in their order of priority."""
        if kind not in self._known_subscribers:
            self._known_subscribers[kind] = [
                (sbb, each)
                for sbb in self._sbbs
                for each in sbb.events
                if issubclass(kind, each.event)
            ]
        return self._known_subscribers[kind]


def begins_something(request: Request) -> bool:
    """Is it outside of dialogs, and not about an INVITE that came before?"""
    return not request.to_tag and request.method not in ("ACK", "BYE", "CANCEL")


def _joined(outcomes: Sequence[Outcome]) -> Outcome:
    if len(outcomes) == 1:
        return outcomes[0]
    return Outcome(
        writes=tuple(record for each in outcomes for record in each.writes),
        sends=tuple(send for each in outcomes for send in each.sends),
        fires=tuple(fired for each in outcomes for fired in each.fires),
        drop_reason=next((each.drop_reason for each in outcomes if each.drop_reason), ""),
        log_text=", ".join(each.log_text for each in outcomes if each.log_text),
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
