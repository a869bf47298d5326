"""The cluster's key record, by which a server knows the store that it started with.

Pure. Whoever empties a store, or puts another one in its place (FLUSHALL, a Redis started anew
without its data, an older backup of another cluster), takes the key with it. So every save in a
Redis is accepted only if the key is there, unchanged: nothing is acknowledged that was saved into
the wrong store. An SQLite store, which sees at every save whether its file is the right one, is
asked for the key at every sign of life. A server that misses its key answers as it does while the
store is down (degraded_mode.py), and goes on by itself once the key is back.

A server that starts must not begin a new cluster in a store that was emptied under living servers.
Those cannot talk to it but by that store: each that misses the key goes on leaving its signs of
life there. So who finds no key watches for signs first, except where no other server can have the
store open (sqlite_files.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from slee_mock.store.interface import (
    ConditionalWrite,
    Conflict,
    Marked,
    Row,
    Store,
    StoreDown,
    StoreWrapper,
    Transaction,
)
from slee_mock.store.records import SIGN_OF_LIFE, ClusterKey, Member, to_json

NAME = "cluster"
WATCH_SECONDS = 1.5 * SIGN_OF_LIFE  # every living server gives a sign in that time
POLL_SECONDS = 0.05


class KeyedStore(StoreWrapper):
    """A store that counts as down while the key `adopt`ed is not in it. `name`: for sentences."""

    def __init__(self, store: Store, name: str) -> None:
        super().__init__(store)
        self._name = name
        self._key: Row | None = None
        # the store has failed or the key was missing: look before anything is believed
        self._doubtful = False
        # None: a store that does not know who has it open. It also cannot see that it was emptied,
        # so that each save says which key it means.
        self._fresh: bool | None = getattr(store, "fresh", None)

    @property
    def fresh(self) -> bool:
        """No other server can have it open."""
        return bool(self._fresh)

    def adopt(self, key: Row) -> None:
        self._key = key

    def get(self, kind: str, key: str) -> Row | None:
        with self._sure():
            return self._store.get(kind, key)

    def save(self, changes: Sequence[ConditionalWrite]) -> None:
        with self._sure():
            if self._key and self._fresh is None:
                mine = ConditionalWrite(ClusterKey.KIND, NAME, *self._key, check_only=True)
                changes = [mine, *changes]
            try:
                self._store.save(changes)
            except Conflict:
                self._doubtful = True
                self._look()  # was it the key, or another row?
                raise

    def scan(self, kind: str, limit: int | None = None) -> list[tuple[str, Row]]:
        with self._sure():
            return self._store.scan(kind, limit)

    def walk(self, kind: str, limit: int, before: int | None = None) -> list[Marked]:
        with self._sure():
            return self._store.walk(kind, limit, before)

    def mark(self, kind: str, newer: int) -> int | None:
        with self._sure():
            return self._store.mark(kind, newer)

    def count(self, kind: str) -> int:
        with self._sure():
            return self._store.count(kind)

    def due(self, wall: float, limit: int) -> list[tuple[str, str]]:
        self._doubtful = True  # a look at every sign of life
        with self._sure():
            return self._store.due(wall, limit)

    def leave_a_sign(self, member: Member) -> None:
        """In a store that has lost the key: tells who starts that this server lives. May raise
        StoreDown, Conflict."""
        if self._doubtful and self._store.get(ClusterKey.KIND, NAME) != self._key:
            Transaction(self._store).commit([member])

    @contextmanager
    def _sure(self) -> Iterator[None]:
        """Around all that is asked of the store: nothing is believed while the key is in doubt, and
        a store that fails puts it in doubt."""
        self._look()
        try:
            yield
        except StoreDown:
            self._doubtful = True
            raise

    def _look(self) -> None:
        if self._doubtful and self._key is not None:
            found = self._store.get(ClusterKey.KIND, NAME)
            if found != self._key:
                how = "was emptied" if found is None else "belongs to another cluster"
                raise StoreDown(
                    f"the store {self._name} {how} since this server started: restore it from a "
                    "backup, or end all servers and start them again"
                )
            self._doubtful = False


def join_cluster(
    store: KeyedStore, make: Callable[[], str], wait: Callable[[float], object]
) -> bytes:
    """The cluster's key, made by the server that comes first. Raises StoreDown if there is none and
    others live."""
    while True:
        row = store.get(ClusterKey.KIND, NAME)
        if row:
            return _adopted(store, row)
        if not store.fresh:
            row = _watched(store, wait)
        if row:
            return _adopted(store, row)
        try:
            store.save(
                [ConditionalWrite(ClusterKey.KIND, NAME, to_json(ClusterKey(NAME, make())), 0)]
            )
        except Conflict:
            continue  # another server was faster


def _adopted(store: KeyedStore, row: Row) -> bytes:
    secret = Transaction(store).read(ClusterKey, NAME)
    assert secret is not None
    key = bytes.fromhex(secret.value)
    store.adopt(row)
    return key


def _watched(store: KeyedStore, wait: Callable[[float], object]) -> Row | None:
    """The key, if another server makes it meanwhile."""
    before = {member.name: member for member in Transaction(store).scan(Member)}
    for _ in range(round(WATCH_SECONDS / POLL_SECONDS)):
        wait(POLL_SECONDS)
        row = store.get(ClusterKey.KIND, NAME)
        if row:
            return row
    living = [
        member.name
        for member in Transaction(store).scan(Member)
        if member != before.get(member.name)
    ]
    if living:
        raise StoreDown(
            f"the store was emptied while {' and '.join(sorted(living))} went on running: restore "
            "it from a backup, or end them too and start all again"
        )
    return None
