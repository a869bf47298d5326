"""The signing key that the cluster keeps in its store; a store without that key counts as down.

Rules
1. The first server of a cluster makes the key. A server remembers the key's row as it found it at
   its start. If the row is missing or differs, somebody has emptied the store or put another one in
   its place (FLUSHALL, a Redis restarted without its data, another cluster's backup): StoreDown,
   until the same key is back.
2. A Redis store: each save carries the condition that the key's row is unchanged, so that nothing
   is acknowledged that went into the wrong store. An SQLite store checks its file at each save, so
   there the key is read at every sign of life only.
3. A server that misses its key still writes its signs of life into that store.
4. A server that starts and finds no key watches WATCH_SECONDS for such signs, and gives up if there
   are any. So it begins no second cluster beside running servers, which it can reach through the
   store alone. It need not watch where no other server can have the store open (sqlite_files.py).

Trap: after any StoreDown or Conflict the key is in doubt, and is read before anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

from slee_mock.store.interface import (
    ConditionalWrite,
    Conflict,
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

P = ParamSpec("P")
T = TypeVar("T")


class KeyedStore(StoreWrapper):
    """A store that is down while the key given to `adopt` is not in it. `name`: for sentences."""

    def __init__(self, store: Store, name: str) -> None:
        super().__init__(store)
        self._name = name
        self._key: Row | None = None
        self._doubtful = False  # read the key before anything else
        # True: no other server can have it open. None: the store cannot tell that, nor see that it
        # was emptied; so each save carries the key (rule 2).
        self.fresh: bool | None = getattr(store, "fresh", None)

    def adopt(self, key: Row) -> None:
        self._key = key

    def save(self, changes: Sequence[ConditionalWrite]) -> None:
        if self._key and self.fresh is None:
            mine = ConditionalWrite(ClusterKey.KIND, NAME, *self._key, check_only=True)
            changes = [mine, *changes]
        try:
            super().save(changes)
        except Conflict:
            self._doubtful = True
            self._look()  # was it the key, or another row?
            raise

    def due(self, now: float, limit: int) -> list[tuple[str, str]]:
        self._doubtful = True  # `due` is asked at every sign of life
        return super().due(now, limit)

    def leave_a_sign(self, member: Member) -> None:
        """Writes a sign of life even into a store without the key (rule 3). May raise StoreDown,
        Conflict."""
        if self._doubtful and self._store.get(ClusterKey.KIND, NAME) != self._key:
            Transaction(self._store).commit([member])

    def _ask(self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self._look()
        try:
            return method(*args, **kwargs)
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
    """Finds the cluster's key; `make` makes it if this is the first server. Raises StoreDown if
    there is none although other servers run."""
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
    """Waits for other servers (rule 4). Returns the key's row if one of them makes it meanwhile."""
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
