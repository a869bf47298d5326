"""The store as one SQLite file that the servers of one computer share.

Rules
1. WAL mode: readers go on while one process writes. synchronous=NORMAL: a commit costs
   microseconds and survives the death of any process, not of the computer.
2. A connection belongs to the thread that opened it.
3. A write waits BUSY_SECONDS for another process's commit. If that was not enough, some program
   holds the lock, and until it lets go each attempt waits only LOCKED_SECONDS: the thread has
   heartbeats to answer, and a server that is silent for 0.145 s is taken for dead. All attempts for
   one turn of datagrams must not wait longer than 0.1 s.
4. After each save, and before reads that would not notice, the files are checked
   (sqlite_files.py). If they were removed, replaced or cut short, every call raises StoreDown until
   they are back.
5. If -wal or -shm alone is gone, or another database stands under the name, each server copies the
   content of -wal into the database, closes it, and opens it again as soon as no other server has
   the old files open.

Traps
- BEGIN IMMEDIATE: a transaction that begins with a read cannot wait for a writer that it meets
  later; SQLite fails it at once.
- SQLite does not wait for a lock while it changes to WAL mode, so servers that start together take
  turns here (_prepare).
- A page with the newest rows of one kind must not scan the others: the index by (kind, created).
  All rows of one call are next to each other in the index by (key, kind), for Call-IDs come in no
  order.
- Text of a row that is not UTF-8 would make Python fail the whole query: such octets are replaced,
  and the row is damaged where it is used.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slee_mock.store.interface import (
    ConditionalWrite,
    Conflict,
    Marked,
    Row,
    StoreDown,
)
from slee_mock.store.sqlite_files import Fault, StoreFiles

BUSY_SECONDS = 0.08  # to wait for another process's commit, which takes microseconds
LOCKED_SECONDS = 0.001  # the same while a program is known to hold the lock
OPEN_SECONDS = 5.0  # in which servers that start together must have taken their turns
READER_OPEN_SECONDS = 1.0  # the same for a reader, which waits only for a store being made
FILES_AFTER_SAVE = 2  # files checked after each save: the database and its -wal
APPLICATION_ID = 0x43464F56  # "CFOV": tells our file from another program's database

_TABLE = """CREATE TABLE IF NOT EXISTS record (
    created INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL,
    text TEXT NOT NULL,
    due REAL, UNIQUE (key, kind))"""
_INDEXES = (
    "CREATE INDEX IF NOT EXISTS record_by_kind ON record (kind, created)",
    "CREATE INDEX IF NOT EXISTS record_by_due ON record (due) WHERE due IS NOT NULL",
)
GET = "SELECT text, version FROM record WHERE kind = ? AND key = ?"
HIGHEST = 2**63 - 1  # above every row's `created`
# By key, for an OFFSET reads all rows before it again: 37 ms at a million bills.
WALK = """SELECT created, key, text, version FROM record WHERE kind = ? AND created < ?
    ORDER BY created DESC LIMIT ?"""
MARK = "SELECT created FROM record WHERE kind = ? ORDER BY created DESC LIMIT 1 OFFSET ?"
COUNT = "SELECT count(*) FROM record WHERE kind = ?"
DUE = "SELECT kind, key FROM record WHERE due <= ? ORDER BY due LIMIT ?"
INSERT = """INSERT INTO record (kind, key, version, text, due) VALUES (?, ?, 1, ?, ?)
    ON CONFLICT DO NOTHING"""
UPDATE = """UPDATE record SET text = ?, due = ?, version = version + 1
    WHERE kind = ? AND key = ? AND version = ?"""
DELETE = "DELETE FROM record WHERE kind = ? AND key = ? AND version = ?"


class SqliteStore:
    """`path` is made if it does not exist. Raises StoreDown with a sentence and its remedy if it
    cannot be used. `reading`: for a reader that closes it soon; then it is not made, another
    program's lock does not matter, and the files are checked while it is opened."""

    def __init__(
        self, path: str, busy_timeout: float = BUSY_SECONDS, reading: bool = False
    ) -> None:
        self.path = path
        self._busy_timeout = busy_timeout
        self._reading = reading
        self._errors = _Sentences(path)
        self._files = StoreFiles(path)
        self._lost: Fault | None = None  # of the files; recovered from before all else
        self._connection: sqlite3.Connection | None = None
        self._open(
            time.monotonic() + (READER_OPEN_SECONDS if reading else OPEN_SECONDS), make=not reading
        )

    @property
    def fresh(self) -> bool:
        """No other server had it open: this one may begin a cluster in it."""
        return self._files.alone

    def get(self, kind: str, key: str) -> Row | None:
        found = self._rows(GET, (kind, key))
        return Row(*found[0]) if found else None

    def save(self, changes: Sequence[ConditionalWrite]) -> None:
        with self._errors:
            with self._transaction(self._sound()) as connection:
                for change in changes:
                    if not _save_one(connection, change):
                        raise Conflict(
                            f"{change.kind} {change.key} is no longer at version {change.version}"
                        )
            # not acknowledged if it went into files that nobody can open any more
            self._look(FILES_AFTER_SAVE)

    def walk(self, kind: str, limit: int | None = None, before: int | None = None) -> list[Marked]:
        values = (kind, HIGHEST if before is None else before, -1 if limit is None else limit)
        found = self._rows(WALK, values)
        return [Marked(created, key, Row(text, version)) for created, key, text, version in found]

    def mark(self, kind: str, newer: int) -> int | None:
        found = self._rows(MARK, (kind, newer))
        return int(found[0][0]) if found else None

    def count(self, kind: str) -> int:
        return int(self._rows(COUNT, (kind,))[0][0])

    def due(self, now: float, limit: int) -> list[tuple[str, str]]:
        return self._rows(DUE, (now, limit), look=True)

    def close(self) -> None:
        """The last one to close folds the WAL back into the file."""
        if self._connection:
            self._connection.close()
            self._connection = None
        self._files.leave()

    def _rows(self, question: str, values: tuple[Any, ...], look: bool = False) -> list[Any]:
        """`look`: check the files first."""
        with self._errors:
            connection = self._sound()
            if look:
                self._look()
            return connection.execute(question, values).fetchall()

    # -- lost files --------------------------------------------------------------------------------

    def _sound(self) -> sqlite3.Connection:
        """The connection, once known faults of the files are over."""
        if self._lost:
            self._recover(self._lost)
        if self._connection is None:
            raise StoreDown(f"the store {self.path} was closed")
        return self._connection

    def _look(self, most: int = 3) -> None:
        fault = self._files.fault(most)
        if fault and fault.cut and self._connection:
            (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
            (size,) = self._connection.execute("PRAGMA page_size").fetchone()
            if self._files.may_be(pages * size):
                return
        if fault:
            self._lost = fault
            raise StoreDown(fault.sentence)

    def _recover(self, lost: Fault) -> None:
        """Opens the store again if it can (rule 5). Raises StoreDown otherwise."""
        if lost.cut:
            raise StoreDown(lost.sentence)
        if self._connection is not None:
            fault = self._lost = self._files.fault()
            if fault is None:
                return
            if not fault.mendable or not self._emptied_wal():
                raise StoreDown(fault.sentence)
            self.close()
        try:
            self._open(time.monotonic(), make=False)
        except StoreDown:
            self._files.leave()
            raise
        self._lost = None

    def _emptied_wal(self) -> bool:
        """Copies the content of -wal into the database; if that was replaced, into the old file.
        False if a reader is in the way."""
        assert self._connection is not None
        self._wait_for_locks(self._connection, False)
        busy, _, _ = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy

    def _open(self, deadline: float, make: bool) -> None:
        place = f"{Path(self.path).absolute().as_uri()}?mode={'rwc' if make else 'rw'}"
        with self._errors:
            while True:
                self._files.enter(deadline)
                try:
                    if make:
                        self._files.make_private()
                    self._connection = sqlite3.connect(
                        place, timeout=self._busy_timeout, isolation_level=None, uri=True
                    )
                    self._connection.text_factory = _text
                    self._impatient = False
                    self._prepare(self._connection, deadline)
                    self._files.check_private()
                    if self._files.opened():
                        return
                except BaseException:
                    self.close()
                    raise
                self.close()
                if time.monotonic() > deadline:
                    raise StoreDown(f"the files of the store {self.path} change while it is opened")

    @contextmanager
    def _transaction(self, connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            self._wait_for_locks(connection, "locked" not in str(error))
            raise
        self._wait_for_locks(connection, True)
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _wait_for_locks(self, connection: sqlite3.Connection, patiently: bool) -> None:
        if self._impatient == patiently:
            self._impatient = not patiently
            timeout = self._busy_timeout if patiently else LOCKED_SECONDS
            connection.execute(f"PRAGMA busy_timeout={int(timeout * 1000)}")

    def _prepare(self, connection: sqlite3.Connection, deadline: float) -> None:
        """WAL mode, table and indexes. Tries again while another server does the same."""
        while True:
            try:
                connection.execute("PRAGMA synchronous=NORMAL")
                if self._reading:
                    # opens -wal and -shm
                    connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
                    return
                connection.execute("PRAGMA journal_mode=WAL")
                with self._transaction(connection):
                    self._adopt(connection)
                _check(connection)
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _adopt(self, connection: sqlite3.Connection) -> None:
        (mark,) = connection.execute("PRAGMA application_id").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if mark != APPLICATION_ID:
            if mark or tables:
                raise StoreDown(
                    f"{self.path} is another program's database; name a file of our own"
                )
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(_TABLE)
        for index in _INDEXES:
            connection.execute(index)


def _check(connection: sqlite3.Connection) -> None:
    """Finds a damaged page of the file at the start, not in the middle of a call."""
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(f"malformed: {' '.join(found.split())}")


def _save_one(connection: sqlite3.Connection, write: ConditionalWrite) -> bool:
    """False if the row is not as the write demands."""
    kind, key, text, version, due, check_only = write
    if check_only:
        return bool(connection.execute(GET, (kind, key)).fetchone() == (text, version))
    if text is None:
        cursor = connection.execute(DELETE, (kind, key, version))
    elif version:
        cursor = connection.execute(UPDATE, (text, due, kind, key, version))
    else:
        cursor = connection.execute(INSERT, (kind, key, text, due))
    return cursor.rowcount == 1


def _text(text: bytes) -> str:
    return text.decode("utf-8", "replace")


class _Sentences:
    """A context in which SQLite's errors become StoreDown, with a sentence for the operator."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, sqlite3.Error):
            raise StoreDown(_sentence(self._path, error)) from error


def _sentence(path: str, error: Exception) -> str:
    text = str(error)
    folder = os.path.dirname(os.path.abspath(path))
    if "unable to open" in text:
        if os.path.isdir(folder) and not os.path.exists(path) and os.access(folder, os.W_OK):
            return f"the store {path} is gone: put it back, or end all servers and restore a backup"
        if os.path.isdir(folder):
            return (
                f"cannot open the store {path}: it may not be read or written; allow that, or name "
                "another"
            )
        return (
            f"cannot open the store {path}: there is no folder {folder}; make it, or name another "
            "file"
        )
    if "not a database" in text or "malformed" in text:
        return (
            f"the store {path} is damaged ({text}): restore it from a backup, or name another file"
        )
    if "readonly" in text:
        return (
            f"cannot write to the store {path}: file or folder is read-only; allow writing, or "
            "name another file"
        )
    if "locked" in text:
        return f"the store {path} is locked by another program; end that one, or wait for it"
    if "full" in text:
        return f"cannot write to the store {path}: the disk is full; make room"
    return f"the store {path} does not work ({text}); mend that, or name another file"
