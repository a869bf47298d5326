"""The cluster's store: what an implementation must do, and the transaction that an event uses.

Rules
1. Rows of text stand under (kind, key). A row's version begins at 1 and grows by one at every save.
2. A save is a set of conditional writes, done all or none. Each names the version that it rests on;
   if another server has saved the row since, Conflict, and the event is handled again from the
   start (optimistic concurrency). Version 0: the row must not exist.
3. What `save` has returned from survives the death of the process (a Redis: of its computer).
4. A row may have a timer, `due`. It stays due until the row is saved or deleted, so another server
   can finish what a crashed one started. Hence several servers may see the same row due at once:
   rule 2 lets one of them win.
5. A row never moves in the walk: its mark is set at its creation.

Errors: StoreDown is about the store, BadRecord about one row or record. They must not be mixed up:
StoreDown makes a server answer 503 to all, a BadRecord concerns one event.

Traps
- A save that raised StoreDown may have been done. The next attempt then gets Conflict, reads, and
  finds it.
- A row that is deleted and made again begins at version 1 again. A transaction kept for long could
  take it for the old one; so a transaction lives for one turn.
- Transaction.scan and walk read the store, not what was put into the transaction.

No I/O.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, ParamSpec, Protocol, TypeVar

from slee_mock.store.records import R, Record, from_json, to_json

P = ParamSpec("P")
T = TypeVar("T")
Place = tuple[str, str]  # kind and key of a row


class StoreDown(RuntimeError):
    """The store cannot be read or written now. The text is a sentence for the operator."""


class Contended(StoreDown):
    """The store works, but other servers changed what this event reads at each attempt."""


class Conflict(Exception):
    """Another server saved one of these rows first: read again and decide again."""


class BadRecord(ValueError):
    """One row cannot be read, or one record cannot be saved. The store works."""


class BadName(BadRecord):
    """Not text, which a row's key must be."""


class Row(NamedTuple):
    text: str
    version: int


class ConditionalWrite(NamedTuple):
    """Save `text` if the row still has `version` (0: does not exist); without text, delete the row.
    `due` is the row's timer, in cluster time: each save sets it anew, None stops it. `check_only`:
    write nothing; the row must still have this version and this text."""

    kind: str
    key: str
    text: str | None
    version: int
    due: float | None = None
    check_only: bool = False


class Marked(NamedTuple):
    """A row with its mark, which orders the rows of a kind by their creation."""

    mark: int
    key: str
    row: Row


class Store(Protocol):
    """Every method may raise StoreDown. Kinds, keys and texts are text that can be encoded, and
    times finite: Transaction sees to that."""

    def get(self, kind: str, key: str) -> Row | None: ...

    def save(self, changes: Sequence[ConditionalWrite]) -> None:
        """All or none. Raises Conflict if a row has another version now."""

    def walk(self, kind: str, limit: int | None = None, before: int | None = None) -> list[Marked]:
        """The rows with marks below `before`, the newest first, at most `limit`: a page of a walk
        by key. Costs the same anywhere in the walk, and no row is missed or seen twice because
        others are made or deleted meanwhile."""

    def mark(self, kind: str, newer: int) -> int | None:
        """The mark of the row that has `newer` newer ones; None if there is none. Costs time in
        proportion to `newer`."""

    def count(self, kind: str) -> int:
        """The number of rows of this kind, without reading them."""

    def due(self, now: float, limit: int) -> list[tuple[str, str]]:
        """(kind, key) of the rows that are due at `now`, the earliest first, at most `limit`."""

    def close(self) -> None: ...


class StoreWrapper:
    """Base class of store wrappers: delegates every method, through `_ask`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def _ask(self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return method(*args, **kwargs)

    def get(self, kind: str, key: str) -> Row | None:
        return self._ask(self._store.get, kind, key)

    def save(self, changes: Sequence[ConditionalWrite]) -> None:
        self._ask(self._store.save, changes)

    def walk(self, kind: str, limit: int | None = None, before: int | None = None) -> list[Marked]:
        return self._ask(self._store.walk, kind, limit, before)

    def mark(self, kind: str, newer: int) -> int | None:
        return self._ask(self._store.mark, kind, newer)

    def count(self, kind: str) -> int:
        return self._ask(self._store.count, kind)

    def due(self, now: float, limit: int) -> list[tuple[str, str]]:
        return self._ask(self._store.due, now, limit)

    def close(self) -> None:
        self._store.close()


@dataclass(frozen=True)
class Damaged:
    """Stands for the record of a row that cannot be read. `why` is for the operator."""

    kind: str
    key: str
    why: str


class Transaction:
    """The reads and writes of one event, or of the events of one turn. It remembers the version of
    each row that was read, on which the commit rests. What one service has put is read by the next,
    before it is committed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._versions: dict[Place, int] = {}
        self._records: dict[Place, Record | None] = {}  # as read
        self._put: dict[Place, Record] = {}

    def read(self, kind: type[R], key: str) -> R | None:
        """Raises BadName for a key that is not text, BadRecord for a row that cannot be read,
        StoreDown."""
        place = (kind.KIND, key)
        if place not in self._records:
            _check_text(key)
            row = self._store.get(kind.KIND, key)
            self._versions[place] = row.version if row else 0
            self._records[place] = _read(kind, key, row) if row else None
        record = self._put.get(place) or self._records[place]
        if record is not None and not isinstance(record, kind):
            raise BadRecord(
                f"two services keep records of the kind {kind.KIND}, as different classes"
            )
        return record

    def read_if_intact(self, kind: type[R], key: str) -> R | None:
        """None also for a row that cannot be read; the next save replaces it."""
        try:
            return self.read(kind, key)
        except BadName:
            raise
        except BadRecord:
            return None

    def scan(self, kind: type[R], limit: int | None = None) -> list[R]:
        """From the store, without rows that cannot be read. The versions are remembered, so that
        these records can be saved or deleted without another read of each."""
        found, _ = self.walk(kind, limit)
        return [each for each in found if not isinstance(each, Damaged)]

    def walk(
        self, kind: type[R], limit: int | None = None, before: int | None = None
    ) -> tuple[list[R | Damaged], int | None]:
        """The next records of a walk, and the mark to go on from; None at the walk's end."""
        found = self._store.walk(kind.KIND, limit, before)
        mark = found[-1].mark if len(found) == limit else None
        return [self._found(kind, each.key, each.row) for each in found], mark

    def mark(self, kind: type[Record], newer: int) -> int | None:
        return self._store.mark(kind.KIND, newer)

    def _found(self, kind: type[R], key: str, row: Row) -> R | Damaged:
        try:
            record = _read(kind, key, row)
        except BadRecord as error:
            return Damaged(kind.KIND, key, str(error))
        if (kind.KIND, key) not in self._records:
            self._versions[kind.KIND, key], self._records[kind.KIND, key] = row.version, record
        return record

    def count(self, kind: type[Record]) -> int:
        return self._store.count(kind.KIND)

    def put(self, records: Iterable[Record]) -> None:
        """Shows these to later reads of this transaction; `commit` saves them."""
        for record in records:
            self._put[self._place(record)] = record

    def savepoint(self) -> Mapping[Place, Record]:
        """For `roll_back`, which then forgets what is put from now on."""
        return dict(self._put)

    def roll_back(self, savepoint: Mapping[Place, Record]) -> None:
        self._put = dict(savepoint)

    def commit(self, records: Iterable[Record] = (), deleted: Iterable[Record] = ()) -> None:
        """Saves these and what was put, the last record of each key, and deletes others, all or
        none. Raises Conflict, StoreDown, or BadRecord for a record that no store could keep."""
        self.put(records)
        changes = {
            place: ConditionalWrite(*place, to_json(record), self._versions[place], _due(record))
            for place, record in self._put.items()
        }
        for place in map(self._place, deleted):
            changes[place] = ConditionalWrite(*place, None, self._versions[place])
        if changes:
            self._store.save(list(changes.values()))

    def _place(self, record: Record) -> Place:
        """Its (kind, key), whose version is known afterwards."""
        place = record.KIND, record.key
        if place not in self._versions:
            self.read(type(record), record.key)
        return place


def _check_text(key: str) -> None:
    if not key.isascii():
        try:
            key.encode()
        except UnicodeEncodeError as error:
            raise BadName(f"{key!a} is not text: {error.reason}") from None


def _due(record: Record) -> float | None:
    due = record.due
    if due is None:
        return None
    if isinstance(due, (int, float)) and math.isfinite(due):
        return float(due)
    raise BadRecord(f"the {record.KIND} record {record.key!r} cannot be due at {due!r}")


def _read(kind: type[R], key: str, row: Row) -> R:
    try:
        return from_json(kind, row.text)
    except (ValueError, RecursionError) as error:
        raise BadRecord(f"the store's {kind.KIND} record {key!r} is damaged: {error}") from None
