"""Degraded mode: calls can still end while the store does not answer, and are billed later.

Rules
1. What a phone sends within a call needs only the call's record. CallCache has a copy of each call
   that this server has read or saved, so it passes: BYE, CANCEL, ACK, PRACK, INFO and the like, and
   responses. Two things wait for the store, and so stay unanswered, for their phone repeats them:
   INVITE and UPDATE within a dialog, and a 2xx that begins or changes a call. Only what begins
   something new is refused (Router.unable).
2. What a passed message means for call and bill is deferred: the event waits in memory with its own
   time. When the store works again it is routed once more, with the store, and what it would send
   is not sent: that has been sent.
3. BYE, CANCEL, ACK and refusals that a copy does not let pass, or of which there is none, wait
   too. They are sent when they are replayed. Their phone may have given up by then (RFC 3261
   17.1.2.2), and the other one must hear of it even so.
4. Order per call: a node has what is deferred of the same Call-ID replayed (`catch_up`) before it
   handles an event, so the first hang-up wins. It replays everything before it fires timers.

Traps
- A copy may be old, for another server may have changed the call since. So a copy's word is taken
  for passing a message on, never for refusing it.
- If a 2xx passed unrecorded and this server died, no other server could follow the call. The phone
  repeats it for 32 s (RFC 3261 13.3.1.4).
- A retransmission must not be deferred twice: see Identity.
- Strangers can send a BYE of no call. So what rule 3 keeps has only half of the room.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, NoReturn

from sip.errors import RemoteProtocolError
from slee_mock.container.event_router import Router, begins_something
from slee_mock.container.events import Arrival, CallEvent, Outcome, RequestEvent, drop
from slee_mock.services.call_record import Call, is_again
from slee_mock.services.session_timer import REFRESHING
from slee_mock.sip_adaptor import message_of
from slee_mock.store.interface import (
    ConditionalWrite,
    Row,
    Store,
    StoreDown,
    StoreWrapper,
    Transaction,
)
from slee_mock.store.records import Record, to_json

MOST_COPIES = 10_000  # calls; the longest untouched goes first
MOST_DEFERRED = 10_000  # events; beyond them the phones have to repeat their requests
MOST_DEFERRED_OCTETS = 32 * 2**20  # of their messages
MOST_NAMED = 5  # deferred events in a sentence for the log


class Identity(NamedTuple):
    """Identifies a message within its call: a retransmission has the same identity."""

    label: str  # method or status
    cseq: int
    from_tag: str


class Deferred(NamedTuple):
    """An event that waits for the store. `sent`: its message has been passed on."""

    event: Arrival
    sent: bool
    octets: int


class CallCache(StoreWrapper):
    """The calls' records as this server last read or saved them. It stands in for the store, and
    raises StoreDown for all that it does not hold."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._rows: collections.OrderedDict[str, Row] = collections.OrderedDict()

    def keep(self, key: str, row: Row | None) -> None:
        self._rows.pop(key, None)
        if row:
            self._rows[key] = row
            if len(self._rows) > MOST_COPIES:
                self._rows.popitem(last=False)

    def keep_all(self, records: Iterable[Record]) -> None:
        for record in records:
            if isinstance(record, Call):
                self.keep(record.key, Row(to_json(record), 1))

    def get(self, kind: str, key: str) -> Row | None:
        if kind != Call.KIND:
            return None
        if key not in self._rows:
            raise StoreDown("there is no copy of this call")  # it may well exist
        return self._rows[key]

    def _ask(self, *question: object, **options: object) -> NoReturn:
        raise StoreDown("the cache of calls has no other rows")


class CachingStore(StoreWrapper):
    """A store wrapper that copies the calls which pass through it into a CallCache."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.cache = CallCache(store)

    def get(self, kind: str, key: str) -> Row | None:
        row = self._store.get(kind, key)
        if kind == Call.KIND:
            self.cache.keep(key, row)
        return row

    def save(self, changes: Sequence[ConditionalWrite]) -> None:
        self._store.save(changes)
        for change in changes:
            if change.kind == Call.KIND:
                text = change.text
                self.cache.keep(change.key, None if text is None else Row(text, change.version + 1))


class DegradedMode:
    """Handles events without the store as far as possible (`process_offline`), and with it later.
    `replayed` is called with the outcome of each deferred event, its `sends` without what was sent
    before."""

    def __init__(
        self,
        router: Router,
        store: CachingStore,
        replayed: Callable[[Outcome], object],
    ) -> None:
        self._router, self._store, self._replayed = router, store, replayed
        # By Call-ID, in the order in which they came.
        self._deferred: dict[str, dict[Identity, Deferred]] = {}
        self.deferred = 0  # events in all
        self._octets = 0

    def catch_up(self, events: Iterable[Arrival]) -> None:
        """Replays what is deferred of the calls that these events belong to (rule 4). May raise
        StoreDown."""
        for event in events:
            self._replay_call(message_of(event).get("Call-ID") or "")

    def process_offline(self, event: Arrival) -> Outcome:
        """Handles an event without the store: passes the message on, defers it, or refuses it."""
        if isinstance(event, RequestEvent):
            if begins_something(event.request) and not self._is_ringing(event):
                return self._router.unable(event)
            if event.request.method in REFRESHING:
                return drop("store_down")
        try:
            outcome = self._router.handle(event, Transaction(self._store.cache))
        except StoreDown:
            outcome = None
        if outcome and _may_pass(event, outcome):
            # Events that say only that a message has passed are not worth the room.
            is_news = any(type(each) is not CallEvent for each in outcome.fires)
            if not is_news or self._defer(event, sent=True):
                self._store.cache.keep_all(outcome.writes)
                return outcome
        elif _must_be_heard(event):
            self._defer(event, sent=False)
        return drop("store_down")

    def replay(self, most: int = MOST_DEFERRED) -> bool:
        """Saves what is deferred, of at most so many calls. True if there is more. May raise
        StoreDown: then the rest stays deferred."""
        for call_id in list(self._deferred)[:most]:
            self._replay_call(call_id)
        return bool(self._deferred)

    def describe(self) -> str:
        """Describes the deferred events, for the log."""
        found = [(call_id, each) for call_id, events in self._deferred.items() for each in events]
        named = ", ".join(f"{each.label} of call {call_id}" for call_id, each in found[:MOST_NAMED])
        return f"{named} and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else named

    def _is_ringing(self, event: RequestEvent) -> bool:
        """Is it a retransmission of an INVITE that was sent on? If that were refused, the caller
        would give up while the other phone rings on and is billed for answering."""
        try:
            return is_again(Transaction(self._store.cache), event.request, event.time)
        except (StoreDown, RemoteProtocolError):
            return False

    def _replay_call(self, call_id: str) -> None:
        events = self._deferred.get(call_id, {})
        for identity, (event, sent, octets) in list(events.items()):
            outcome = self._router.process(event, self._store)
            del events[identity]
            self.deferred -= 1
            self._octets -= octets
            self._replayed(outcome._replace(sends=()) if sent else outcome)
        self._deferred.pop(call_id, None)

    def _defer(self, event: Arrival, sent: bool) -> bool:
        """Keeps the event for `replay`. False if there is no room."""
        message = message_of(event)
        label = (
            event.request.method if isinstance(event, RequestEvent) else str(event.response.status)
        )
        identity = Identity(label, message.cseq.number, message.from_tag)
        if identity in self._deferred.get(message.call_id, {}):
            return True
        octets, share = len(message.to_bytes()), 1 if sent else 2
        if (
            self.deferred >= MOST_DEFERRED // share
            or self._octets + octets > MOST_DEFERRED_OCTETS // share
        ):
            return False
        events = self._deferred.setdefault(message.call_id, {})
        events[identity] = Deferred(event, sent, octets)
        self.deferred += 1
        self._octets += octets
        return True


def _may_pass(event: Arrival, outcome: Outcome) -> bool:
    """False for a refusal, and for a 2xx that begins or changes a call (see the traps)."""
    if isinstance(event, RequestEvent):
        return all(not send.data.startswith(b"SIP/2.0 ") for send in outcome.sends)
    return event.response.status not in range(200, 300) or not outcome.writes


def _must_be_heard(event: Arrival) -> bool:
    """Does it tell that a phone has hung up, given up, refused or heard of the answer?"""
    if isinstance(event, RequestEvent):
        return event.request.method in ("BYE", "CANCEL", "ACK")
    return event.response.status >= 300
