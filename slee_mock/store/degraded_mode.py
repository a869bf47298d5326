"""What a server still does while its store does not answer: people's calls end when they hang up,
and are billed later.

Pure. BYE, CANCEL, ACK and what phones answer to them need no more than the call's record, of which
a copy is here if this server has handled the call. What they mean for call and bill waits, with its
own time, for the store's return. Whatever is not in the copies, or begins or changes a call, stays
unanswered or is refused: see Router.unable.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Sequence

from sip.errors import RemoteProtocolError
from sip.message import Request, Response
from slee_mock.container.event_router import Router
from slee_mock.container.events import Arrival, CallEvent, Outcome, RequestEvent, drop
from slee_mock.services.call_dialogs import is_again
from slee_mock.store.interface import (
    ConditionalWrite,
    Marked,
    Row,
    Store,
    StoreDown,
    StoreWrapper,
    Transaction,
)
from slee_mock.store.records import Call, Record, to_json
from slee_mock.store.write_batch import WriteBatch

MOST_COPIES = 10_000  # calls, the longest untouched goes first
MOST_WAITING = 10_000  # facts; beyond them the phones have to repeat what they say
PASSED_ON = ("ACK", "BYE", "CANCEL")
MOST_TOLD = 5

Fact = tuple[str, int, str]  # what makes a retransmission: method or status, CSeq number, From tag


class CallCache:
    """The calls' records as this server last read or saved them. To a Transaction it is a store
    that holds nothing else."""

    def __init__(self, most: int = MOST_COPIES) -> None:
        self._most = most
        self._rows: collections.OrderedDict[str, Row] = collections.OrderedDict()

    def keep(self, key: str, row: Row | None) -> None:
        self._rows.pop(key, None)
        if row:
            self._rows[key] = row
            if len(self._rows) > self._most:
                self._rows.popitem(last=False)

    def keep_all(self, records: Iterable[Record]) -> None:
        for record in records:
            if isinstance(record, Call):
                self.keep(record.key, Row(to_json(record), 1))

    def get(self, kind: str, key: str) -> Row | None:
        """Raises StoreDown for a call that is not here; it may well exist."""
        if kind != Call.KIND:
            return None
        if key not in self._rows:
            raise StoreDown("there is no copy of this call")
        return self._rows[key]

    def save(self, changes: Sequence[ConditionalWrite]) -> None:
        raise StoreDown("a copy is not a store")

    def scan(self, kind: str, limit: int | None = None) -> list[tuple[str, Row]]:
        raise StoreDown("a copy is not a store")

    def walk(self, kind: str, limit: int, before: int | None = None) -> list[Marked]:
        raise StoreDown("a copy is not a store")

    def mark(self, kind: str, newer: int) -> int | None:
        raise StoreDown("a copy is not a store")

    def count(self, kind: str) -> int:
        raise StoreDown("a copy is not a store")

    def due(self, wall: float, limit: int) -> list[tuple[str, str]]:
        return []

    def close(self) -> None:
        self._rows.clear()


class CachingStore(StoreWrapper):
    """A store that remembers the calls which pass through it."""

    def __init__(self, store: Store, copies: CallCache | None = None) -> None:
        super().__init__(store)
        self.copies = copies or CallCache()

    def get(self, kind: str, key: str) -> Row | None:
        row = self._store.get(kind, key)
        if kind == Call.KIND:
            self.copies.keep(key, row)
        return row

    def save(self, changes: Sequence[ConditionalWrite]) -> None:
        self._store.save(changes)
        for change in changes:
            if change.kind == Call.KIND:
                text = change.text
                self.copies.keep(
                    change.key, None if text is None else Row(text, change.version + 1)
                )


class DegradedMode:
    """`process` is the router's; if it raises StoreDown, `pass_on` does what can be done without a
    store. `settled` hears what came of each fact that was saved late."""

    def __init__(
        self,
        router: Router,
        store: CachingStore,
        settled: Callable[[Outcome], object] = lambda outcome: None,
    ) -> None:
        self._router, self._store, self._settled = router, store, settled
        self._facts: dict[str, dict[Fact, Arrival]] = {}  # by Call-ID; what came first is first
        self.waiting = 0  # facts in all

    def process(self, event: Arrival) -> Outcome:
        """First what waits of the same call: the hang-up that came first is the one that counts."""
        self._settle_call(_message(event).get("Call-ID") or "")
        return self._router.process(event, self._store)

    def process_all(self, events: Sequence[Arrival]) -> list[Outcome]:
        """`process` of each in its turn, saved at once, all or none. Raises Conflict or StoreDown:
        then nothing was done, and it may still be possible one by one."""
        if len(events) == 1:
            return [self.process(events[0])]
        for event in events:
            self._settle_call(_message(event).get("Call-ID") or "")
        together = WriteBatch(self._store)
        outcomes = [self._router.process(event, together) for event in events]
        together.commit()
        return outcomes

    def pass_on(self, event: Arrival) -> Outcome:
        if isinstance(event, RequestEvent) and event.request.method not in PASSED_ON:
            return (
                drop("store_down")
                if self._is_ringing(event.request)
                else self._router.unable(event)
            )
        try:
            outcome = self._router.handle(event, Transaction(self._store.copies))
        except StoreDown:
            return self._router.unable(event)
        if not _may_pass(event, outcome) or not self._note(event, outcome):
            return self._router.unable(event)
        self._store.copies.keep_all(outcome.saves)
        return outcome

    def settle(self, most: int = MOST_WAITING) -> bool:
        """Saves what waits, of at most so many calls. True if there is more. May raise StoreDown:
        then it waits on."""
        for call_id in list(self._facts)[:most]:
            self._settle_call(call_id)
        return bool(self._facts)

    def told(self) -> str:
        """What waits, in words for the log."""
        facts = [(call_id, fact) for call_id, facts in self._facts.items() for fact in facts]
        named = ", ".join(
            f"{what} of call {call_id}" for call_id, (what, _, _) in facts[:MOST_TOLD]
        )
        return f"{named} and {len(facts) - MOST_TOLD} more" if len(facts) > MOST_TOLD else named

    def _is_ringing(self, request: Request) -> bool:
        """Is it an INVITE that was sent on, once more? After a refusal its caller would be gone,
        while the other phone rings on and is billed for answering."""
        try:
            return is_again(Transaction(self._store.copies), request)
        except (StoreDown, RemoteProtocolError):
            return False

    def _settle_call(self, call_id: str) -> None:
        facts = self._facts.get(call_id, {})
        for fact in list(facts):
            # what it would send was sent when it came
            outcome = self._router.process(facts[fact], self._store)
            del facts[fact]
            self.waiting -= 1
            self._settled(outcome)
        self._facts.pop(call_id, None)

    def _note(self, event: Arrival, outcome: Outcome) -> bool:
        """False if there is no room for the fact. What only says that a message passed is none."""
        message = _message(event)
        known = self._facts.get(message.call_id, {})
        what = (
            event.request.method if isinstance(event, RequestEvent) else str(event.response.status)
        )
        fact = (what, message.cseq.number, message.from_tag)
        if fact in known or all(type(each) is CallEvent for each in outcome.raised):
            return True
        if self.waiting >= MOST_WAITING:
            return False
        self._facts.setdefault(message.call_id, {})[fact] = event
        self.waiting += 1
        return True


def _message(event: Arrival) -> Request | Response:
    return event.request if isinstance(event, RequestEvent) else event.response


def _may_pass(event: Arrival, outcome: Outcome) -> bool:
    """A refusal may be wrong, for a copy may be old. An answer that begins or changes a call is
    passed on when that is saved, as otherwise nobody could follow it: the phone repeats it (RFC
    3261 13.3.1.4)."""
    if isinstance(event, RequestEvent):
        return all(not send.data.startswith(b"SIP/2.0 ") for send in outcome.sends)
    return event.response.status not in range(200, 300) or not outcome.saves
