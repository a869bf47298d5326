"""The store as one SQLite file that the servers of one computer share.

WAL mode lets readers go on while one process writes; synchronous=NORMAL makes a commit cost microseconds and survives
the death of any process (not of the computer). A connection belongs to the thread that opened it.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from slee_mock.store import Change, Conflict, Row, StoreDown

BUSY_TIMEOUT = 0.25  # seconds to wait for another process's commit, which takes microseconds
IMPATIENT = 0.01  # once that was not enough: whoever waits cannot even tell that the store is locked
OPENING = 5.0  # seconds in which servers that start together must have taken their turns
APPLICATION_ID = 0x43464F56  # "CFOV": tells our file from another program's database

# The key first: all rows of a call stand on the same page of that index, and Call-IDs come in no order.
_SCHEMA = """CREATE TABLE IF NOT EXISTS record (
    created INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, text TEXT NOT NULL,
    due REAL, UNIQUE (key, kind))"""
# Without it a page with the newest of one kind reads through all others, while the server misses its heartbeats.
_INDEX = "CREATE INDEX IF NOT EXISTS record_by_kind ON record (kind, created)"
_TIMERS = "CREATE INDEX IF NOT EXISTS record_by_due ON record (due) WHERE due IS NOT NULL"


class SqliteStore:
    """`path` is made if it does not exist. Raises StoreDown with a sentence and its remedy if it cannot be used."""

    def __init__(self, path: str, busy_timeout: float = BUSY_TIMEOUT) -> None:
        self.path = path
        self._busy_timeout = busy_timeout
        self._impatient = False
        self._errors = _Sentences(path)
        with self._errors:
            self._connection = sqlite3.connect(path, timeout=busy_timeout, isolation_level=None)
        try:
            with self._errors:
                self._prepare(time.monotonic() + OPENING)
        except BaseException:
            self._connection.close()
            raise

    def get(self, kind: str, key: str) -> Row | None:
        with self._errors:
            found = self._connection.execute(
                "SELECT text, version FROM record WHERE kind = ? AND key = ?", (kind, key)
            ).fetchone()
        return Row(*found) if found else None

    def save(self, changes: Sequence[Change]) -> None:
        with self._errors, self._transaction():
            for change in changes:
                if not self._save_one(change):
                    raise Conflict(f"{change.kind} {change.key} is no longer at version {change.version}")

    def scan(self, kind: str, limit: int | None = None, skip: int = 0) -> list[tuple[str, Row]]:
        with self._errors:
            found = self._connection.execute(
                "SELECT key, text, version FROM record WHERE kind = ? ORDER BY created DESC LIMIT ? OFFSET ?",
                (kind, -1 if limit is None else limit, skip),
            ).fetchall()
        return [(key, Row(text, version)) for key, text, version in found]

    def count(self, kind: str) -> int:
        with self._errors:
            (found,) = self._connection.execute("SELECT count(*) FROM record WHERE kind = ?", (kind,)).fetchone()
        return int(found)

    def due(self, wall: float, limit: int) -> list[tuple[str, str]]:
        with self._errors:
            return self._connection.execute(
                "SELECT kind, key FROM record WHERE due <= ? ORDER BY due LIMIT ?", (wall, limit)
            ).fetchall()

    def close(self) -> None:
        """The last one to close folds the WAL back into the file."""
        self._connection.close()

    def _save_one(self, change: Change) -> bool:
        if change.text is None:
            return self._connection.execute(
                "DELETE FROM record WHERE kind = ? AND key = ? AND version = ?",
                (change.kind, change.key, change.version),
            ).rowcount == 1  # fmt: skip
        if change.version:
            return self._connection.execute(
                "UPDATE record SET text = ?, due = ?, version = version + 1 WHERE kind = ? AND key = ? AND version = ?",
                (change.text, change.due, change.kind, change.key, change.version),
            ).rowcount == 1  # fmt: skip
        return self._connection.execute(
            "INSERT INTO record (kind, key, version, text, due) VALUES (?, ?, 1, ?, ?) ON CONFLICT DO NOTHING",
            (change.kind, change.key, change.text, change.due),
        ).rowcount == 1  # fmt: skip

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        # IMMEDIATE: a transaction that begins by reading cannot wait for the writer it meets later.
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            self._wait_for_locks("locked" not in str(error))
            raise
        self._wait_for_locks(True)
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _wait_for_locks(self, patiently: bool) -> None:
        if self._impatient == patiently:
            self._impatient = not patiently
            timeout = self._busy_timeout if patiently else IMPATIENT
            self._connection.execute(f"PRAGMA busy_timeout={int(timeout * 1000)}")

    def _prepare(self, deadline: float) -> None:
        """Several servers may start at once, and SQLite does not wait for its lock while it changes to WAL mode."""
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode=WAL")
                self._connection.execute("PRAGMA synchronous=NORMAL")
                with self._transaction():
                    self._adopt()
                self._check()
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _adopt(self) -> None:
        (mark,) = self._connection.execute("PRAGMA application_id").fetchone()
        (tables,) = self._connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if mark != APPLICATION_ID:
            if mark or tables:
                raise StoreDown(f"{self.path} is another program's database; name a file of our own")
            self._connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        self._connection.execute(_SCHEMA)
        columns = self._connection.execute("PRAGMA table_info(record)").fetchall()
        if "due" not in [column[1] for column in columns]:  # a file from before there were timers
            self._connection.execute("ALTER TABLE record ADD COLUMN due REAL")
        self._connection.execute(_INDEX)
        self._connection.execute(_TIMERS)

    def _check(self) -> None:
        """Better at the start than in the middle of a call: a page of the file that makes no sense."""
        (found,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(f"malformed: {' '.join(found.split())}")


class _Sentences:
    """Around whatever SQLite does for us: its errors become StoreDown with a sentence for the operator."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, (sqlite3.Error, UnicodeEncodeError)):
            raise StoreDown(_sentence(self._path, error)) from error


def _sentence(path: str, error: Exception) -> str:
    text = str(error)
    folder = os.path.dirname(os.path.abspath(path))
    if "unable to open" in text:
        if os.path.isdir(folder):
            return f"cannot open the store {path}: it may not be read or written; allow that, or name another"
        return f"cannot open the store {path}: there is no folder {folder}; make it, or name another file"
    if "not a database" in text or "malformed" in text:
        return f"the store {path} is damaged ({text}): restore it from a backup, or name another file"
    if "readonly" in text:
        return f"cannot write to the store {path}: file or folder is read-only; allow writing, or name another file"
    if "locked" in text:
        return f"the store {path} is locked by another program; end that one, or wait for it"
    if "full" in text:
        return f"cannot write to the store {path}: the disk is full; make room"
    return f"the store {path} does not work ({text}); mend that, or name another file"
