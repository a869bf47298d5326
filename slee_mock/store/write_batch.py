"""Group commit: the messages of one turn are saved in one transaction of the store.

A commit costs more than all else that is done for a message, and for sixteen messages hardly more
than for one. Each message reads the writes of those before it. Nothing is sent before `commit` has
returned. No I/O.
"""

from __future__ import annotations

from collections.abc import Sequence

from slee_mock.store.interface import ConditionalWrite, Conflict, Row, Store, StoreWrapper

Place = tuple[str, str]


class WriteBatch(StoreWrapper):
    """Buffers writes: `get` sees them at once, `commit` saves them all in the store below."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._rows: dict[Place, Row | None] = {}
        self._changes: dict[Place, ConditionalWrite] = {}

    def get(self, kind: str, key: str) -> Row | None:
        place = kind, key
        if place not in self._rows:
            self._rows[place] = self._store.get(kind, key)
        return self._rows[place]

    def save(self, changes: Sequence[ConditionalWrite]) -> None:
        for change in changes:
            row = self.get(change.kind, change.key)
            if change.version != (row.version if row else 0):
                raise Conflict(
                    f"{change.kind} {change.key} is no longer at version {change.version}"
                )
        for change in changes:
            place = change.kind, change.key
            self._rows[place] = (
                None if change.text is None else Row(change.text, change.version + 1)
            )
            before = self._changes.get(place)
            self._changes[place] = change._replace(version=before.version) if before else change

    def commit(self) -> None:
        """All or none. Raises Conflict if another server has saved one of these rows meanwhile, or
        StoreDown."""
        changes = [
            change for change in self._changes.values() if change.version or change.text is not None
        ]
        if changes:
            self._store.save(changes)

    def close(self) -> None:
        self._rows.clear()
        self._changes.clear()
