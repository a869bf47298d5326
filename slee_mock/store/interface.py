"""The contract of the cluster's store: get, save if version, remove if version, scan, count, what
is due; and the transaction through which one event uses it.

Pure. An implementation keeps rows of text under (kind, key), each with a version that grows by one
at every save. Nothing is ever half saved, and what `save` has returned from survives the death of
the process.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from slee_mock.store.records import R, Record, from_json, to_json


class StoreDown(Exception):
    """The store cannot be read or written now. The text is a sentence for the operator."""


class Contended(StoreDown):
    """The store works, but other servers change what this event reads again and again."""


class Conflict(Exception):
    """Somebody saved one of these rows first: read again and decide again."""


class BadRecord(ValueError):
    """One row cannot be read, or one record cannot be kept as it is. The store works: only who
    needs it is refused."""


class BadName(BadRecord):
    """A row cannot have such a name: it is not text."""


class Row(NamedTuple):
    text: str
    version: int


class ConditionalWrite(NamedTuple):
    """Save `text` if the row still has `version`; 0 means that it must not exist yet. Without text
    the row goes. `due` is the row's timer, in wall seconds: each save sets it anew, None stops it.
    `check_only`: save nothing here; the row must still have this version and this text."""

    kind: str
    key: str
    text: str | None
    version: int
    due: float | None = None
    check_only: bool = False


class Marked(NamedTuple):
    """A row with its mark: a later row of its kind has a higher one, and a row keeps its own."""

    mark: int
    key: str
    row: Row


class Store(Protocol):
    """Every method may raise StoreDown, and BadRecord for what it cannot keep or look for."""

    def get(self, kind: str, key: str) -> Row | None: ...

    def save(self, changes: Sequence[ConditionalWrite]) -> None:
        """All or none. Raises Conflict if one of the versions is not the row's any more."""

    def scan(self, kind: str, limit: int | None = None) -> list[tuple[str, Row]]:
        """Rows with their keys, the one created last first, at most `limit`."""

    def walk(self, kind: str, limit: int, before: int | None = None) -> list[Marked]:
        """The next rows of a walk from the newest to the oldest: those with marks below `before`,
        the one created last first, at most `limit`. Costs the same however far the walk has come,
        and rows that are made or removed meanwhile move no others."""

    def mark(self, kind: str, newer: int) -> int | None:
        """The mark of the row that has so many newer ones; None if there is none. Costs more the
        more these are."""

    def count(self, kind: str) -> int:
        """How many rows of this kind there are, without reading them."""

    def due(self, wall: float, limit: int) -> list[tuple[str, str]]:
        """(kind, key) of the rows whose timers have run out by `wall`, the earliest first, at most
        `limit`. A row stays due until a save or its removal stops the timer: so what a dead server
        began to handle another ends."""

    def close(self) -> None: ...


class StoreWrapper:
    """A store that stands above another one and sees what passes; here everything passes."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, kind: str, key: str) -> Row | None:
        return self._store.get(kind, key)

    def save(self, changes: Sequence[ConditionalWrite]) -> None:
        self._store.save(changes)

    def scan(self, kind: str, limit: int | None = None) -> list[tuple[str, Row]]:
        return self._store.scan(kind, limit)

    def walk(self, kind: str, limit: int, before: int | None = None) -> list[Marked]:
        return self._store.walk(kind, limit, before)

    def mark(self, kind: str, newer: int) -> int | None:
        return self._store.mark(kind, newer)

    def count(self, kind: str) -> int:
        return self._store.count(kind)

    def due(self, wall: float, limit: int) -> list[tuple[str, str]]:
        return self._store.due(wall, limit)

    def close(self) -> None:
        self._store.close()


@dataclass(frozen=True)
class Damaged:
    """A row that cannot be read, in the place of its record. `why` is for the operator."""

    kind: str
    key: str
    why: str


class Transaction:
    """The store as one event sees it. It remembers the version of all that was read, so that what
    was decided is saved only if it is still true; records staged by one service are seen by the
    next."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._versions: dict[tuple[str, str], int] = {}
        self._records: dict[tuple[str, str], Record | None] = {}

    def read(self, kind: type[R], key: str) -> R | None:
        """Raises BadName for a key that is not text, BadRecord for a row that cannot be read,
        StoreDown."""
        place = (kind.KIND, key)
        if place not in self._records:
            _check_text(kind.KIND, key)
            row = self._store.get(kind.KIND, key)
            self._versions[place] = row.version if row else 0
            self._records[place] = _read(kind, key, row) if row else None
        record = self._records[place]
        if record is not None and not isinstance(record, kind):
            raise BadRecord(
                f"two services keep records of the kind {kind.KIND}, as different classes"
            )
        return record

    def read_if_intact(self, kind: type[R], key: str) -> R | None:
        """None also for a row that cannot be read: what is saved there next replaces it."""
        try:
            return self.read(kind, key)
        except BadName:
            raise
        except BadRecord:
            return None

    def scan(self, kind: type[R], limit: int | None = None) -> list[R]:
        """Straight from the store, without what is staged and what cannot be read. To save or
        remove one of these it need not be read once more, which in a Redis would be a journey
        each."""
        found = [self._found(kind, key, row) for key, row in self._store.scan(kind.KIND, limit)]
        return [each for each in found if not isinstance(each, Damaged)]

    def walk(
        self, kind: type[R], limit: int, before: int | None = None
    ) -> tuple[list[R | Damaged], int | None]:
        """The next records of a walk, the damaged rows in their places, and the mark to go on
        before; None at the walk's end."""
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
        for record in records:
            self._records[self._place(record)] = record

    def commit(self, records: Iterable[Record], deleted: Iterable[Record] = ()) -> None:
        """Saves the last of each key and removes what is to be forgotten, all or none. Raises
        Conflict or StoreDown, or BadRecord for what no store could keep."""
        last = {self._place(record): record for record in records}
        changes = {
            place: ConditionalWrite(*place, to_json(record), self._versions[place], _due(record))
            for place, record in last.items()
        }
        for place in map(self._place, deleted):
            changes[place] = ConditionalWrite(*place, None, self._versions[place])
        if changes:
            self._store.save(list(changes.values()))

    def _place(self, record: Record) -> tuple[str, str]:
        """Where it is kept; the version there is known from then on."""
        place = record.KIND, record.key
        if place not in self._versions:
            self.read(type(record), record.key)
        return place


def _check_text(*names: str) -> None:
    for name in names:
        if not name.isascii():
            try:
                name.encode()
            except UnicodeEncodeError as error:
                raise BadName(f"{name!a} is not text: {error.reason}") from None


def _due(record: Record) -> float | None:
    due = record.due
    if due is None or (isinstance(due, (int, float)) and math.isfinite(due)):
        return due
    raise BadRecord(f"the {record.KIND} record {record.key!r} cannot be due at {due!r}")


def _read(kind: type[R], key: str, row: Row) -> R:
    try:
        return from_json(kind, row.text)
    except (ValueError, RecursionError) as error:
        raise BadRecord(f"the store's {kind.KIND} record {key!r} is damaged: {error}") from None
