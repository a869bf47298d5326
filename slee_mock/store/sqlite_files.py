"""The files of an SQLite store: are those under their names still the ones that this server has
open?

Anybody may remove, replace or cut an open file on Unix. SQLite goes on with its open files, and
what it saves then is lost with the last process that has them open. Therefore:

Rules
1. A save is acknowledged only after a look at the names: database and -wal must still be the files
   that were opened.
2. Every server holds a shared flock on a hidden file beside the store, ".NAME.lock", in which the
   three open files stand by device and inode. "rm NAME*" leaves it alone. A server that starts
   tries to lock it exclusively. If that succeeds, no other server has the store open, and this one
   may make a new store. If not, it opens exactly the files named there, or none.
3. The last server to close the store removes the lock file. If it is removed before, a living
   server makes it again within half a second.
4. The store holds the cluster's key, so that its files are their owner's alone. A new database is
   made with mode 0600, which SQLite gives to -wal and -shm as well; one that others may read is
   not opened.

Traps
- POSIX locks: a process that closes any descriptor of a file loses all its locks on that file,
  SQLite's among them. So nothing here opens a file of the store; it looks at names alone.
- The lock file may be removed by its last user between our open and our flock: look at its name
  after each lock (_is_there).
- Windows refuses to remove open files and has no flock, and needs none of this.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import NamedTuple

from plumbing.file_permissions import OWNER_ONLY, exposed
from slee_mock.store.interface import StoreDown

SUFFIXES = ("", "-wal", "-shm")  # SQLite's own, in the order in which they are looked at
POLL_SECONDS = 0.01
CLOSE_SECONDS = 1.0  # between SQLite's removal of -wal and -shm and the last server's unlock
NO_WAL = "lacks its -wal or -shm"
HAS_FLOCK = sys.platform != "win32"

Identity = tuple[int, int]  # device and inode


class Fault(NamedTuple):
    """A fault of the files, in a sentence. `mendable`: they can be opened again once all servers
    have closed them. `cut`: the database has become shorter, which SQLite itself may have done."""

    sentence: str
    mendable: bool = False
    cut: bool = False


class StoreFiles:
    """Order of calls: `enter`, open the database, `opened`; `fault` as often as needed; close the
    database, `leave`."""

    def __init__(self, path: str) -> None:
        self._path = path
        real = os.path.realpath(path)  # SQLite names -wal and -shm after that, too
        self._names = (path, *(f"{real}{suffix}" for suffix in SUFFIXES[1:]))
        folder, name = os.path.split(real)
        self._lock_name = os.path.join(folder, f".{name}.lock")
        self._lock: int | None = None
        self._known: tuple[Identity, ...] = ()
        self._size = 0  # octets of the database, the most that were seen
        self.alone = False  # no other server had the store open when this one entered

    def enter(self, deadline: float) -> None:
        """Waits until `deadline` (monotonic) for a server that opens or closes the store at this
        moment. Raises StoreDown if living servers use other files than those which stand there."""
        self.leave()
        closed = min(deadline, time.monotonic() + CLOSE_SECONDS)
        while True:
            if self._try_lock():
                what = self._difference()
                if not what:
                    return
                self.leave()
                if what != NO_WAL or time.monotonic() > closed:
                    raise StoreDown(
                        f"the store {self._path} {what}, and other servers have the one before "
                        "open: put that back, or end them all first"
                    )
            elif time.monotonic() > deadline:
                raise StoreDown(
                    f"the store {self._path} is being opened by another server, which does not "
                    f"come to an end; end that one, or remove {self._lock_name} if there is none"
                )
            time.sleep(POLL_SECONDS)

    def make_private(self) -> None:
        """Makes the database, empty and for its owner alone, if it is not there."""
        with contextlib.suppress(OSError):  # it exists; or SQLite will say why it cannot be made
            # a new file, on which nobody has a lock that closing it could lose
            real = os.path.realpath(self._path)
            os.close(os.open(real, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY))

    def check_private(self) -> None:
        """Raises StoreDown if others may read one of the three files."""
        for name in self._names:
            with contextlib.suppress(OSError):  # it is gone, which `opened` finds
                fault = exposed(name, os.stat(name))
                if fault:
                    raise StoreDown(f"the store {fault}")

    def opened(self) -> bool:
        """Call it once the database is open in WAL mode, so that all three files exist. False if
        they are not the other servers' files, because the last of those closed the store meanwhile:
        try again."""
        found = self._found()
        if None in found or self._difference():
            return False
        self._known = tuple(each for each in found if each is not None)
        self._size = os.stat(self._path).st_size
        if self._lock is not None and self.alone:
            self._publish()
            _flock(self._lock, exclusive=False, wait=True)
        return True

    def fault(self, most: int = len(SUFFIXES)) -> Fault | None:
        """Checks the first `most` names, a microsecond or two each; with all, the lock file too."""
        if most == len(SUFFIXES):
            self._lock_again()
        for name, known in zip(self._names[:most], self._known, strict=False):
            try:
                found = os.stat(name)
            except OSError:
                return self._missing(name)
            if (found.st_dev, found.st_ino) != known:
                return self._replaced(name)
            if name == self._path:
                if found.st_size < self._size:
                    return Fault(
                        f"the store {self._path} was cut short by another program: end all "
                        "servers, restore it from a backup, start them again",
                        cut=True,
                    )
                self._size = found.st_size
        return None

    def may_be(self, octets: int) -> bool:
        """By SQLite's word the database has `octets` now, after a VACUUM. False if the file has
        fewer."""
        with contextlib.suppress(OSError):
            if 0 < octets <= os.stat(self._path).st_size:
                self._size = octets
                return True
        return False

    def leave(self) -> None:
        """Call it after the database was closed, for that removes -wal and -shm by their names."""
        if self._lock is None:
            return
        lock, self._lock, self._known = self._lock, None, ()
        if _flock(lock, exclusive=True, wait=False) and _is_there(lock, self._lock_name):
            with contextlib.suppress(OSError):
                os.unlink(self._lock_name)
        os.close(lock)

    def _try_lock(self) -> bool:
        if not HAS_FLOCK:
            self.alone = True
            return True
        try:
            lock = os.open(self._lock_name, os.O_RDWR | os.O_CREAT, OWNER_ONLY)
        except FileNotFoundError:
            return True  # there is no such folder, which SQLite says too
        except OSError as error:
            raise StoreDown(
                f"cannot open {self._lock_name}, which stands beside the store {self._path}: "
                f"{error.strerror}; allow reading and writing it"
            ) from None
        self.alone = _flock(lock, exclusive=True, wait=False)
        if (self.alone or _flock(lock, exclusive=False, wait=False)) and _is_there(
            lock, self._lock_name
        ):
            self._lock = lock
            return True
        os.close(lock)
        return False

    def _lock_again(self) -> None:
        """Makes the lock file again if somebody has removed it (rule 3)."""
        if self._lock is None or _is_there(self._lock, self._lock_name):
            return
        try:
            lock = os.open(self._lock_name, os.O_RDWR | os.O_CREAT, OWNER_ONLY)
        except OSError:
            return  # the folder is gone
        published = os.pread(lock, 1024, 0)
        if _flock(lock, exclusive=False, wait=False) and published in (b"", self._text()):
            os.close(self._lock)
            self._lock = lock
            self._publish()
        else:
            os.close(lock)  # another server was faster, and has begun another store there

    def _difference(self) -> str:
        """How the files found there differ from those which other servers have open; or ""."""
        wanted = None if self.alone or self._lock is None else self._published()
        found = self._found()
        if wanted is None:
            return ""
        with contextlib.suppress(OSError):
            if found[0] == wanted[0] and not os.stat(self._path).st_size:
                return "was emptied"
        if wanted == found:
            return ""
        if found[0] == wanted[0]:
            return NO_WAL
        return "is gone" if found[0] is None else "is another file"

    def _publish(self) -> None:
        assert self._lock is not None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, self._text(), 0)

    def _text(self) -> bytes:
        return " ".join(f"{device}:{inode}" for device, inode in self._known).encode()

    def _published(self) -> tuple[Identity | None, ...] | None:
        """None: the server before died while it opened the store."""
        assert self._lock is not None
        words = [word.partition(b":") for word in os.pread(self._lock, 1024, 0).split()]
        return tuple((int(device), int(inode)) for device, _, inode in words) or None

    def _found(self) -> tuple[Identity | None, ...]:
        return tuple(_identity(name) for name in self._names)

    def _missing(self, name: str) -> Fault:
        if name == self._path:
            return Fault(
                f"the store {self._path} is gone: put the same file back, or end all servers and "
                "restore it from a backup"
            )
        return Fault(
            f"the store's file {name} is gone: it belongs to the store while "
            "servers run, leave it alone",
            mendable=True,
        )

    def _replaced(self, name: str) -> Fault:
        if name != self._path:
            return Fault(
                f"the store's file {name} was replaced by another program: end all "
                "servers, restore the store from a backup, start them again"
            )
        wal = _identity(self._names[1])
        return Fault(
            f"the store {self._path} was replaced by another file; it is opened as soon as no "
            "server has the one before open any more",
            mendable=wal in (None, self._known[1]),
        )


def _identity(path: str) -> Identity | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_there(lock: int, name: str) -> bool:
    """Is it still the file of this name? Its last user may have removed it before it was locked."""
    found = os.fstat(lock)
    return _identity(name) == (found.st_dev, found.st_ino)


def _flock(lock: int, exclusive: bool, wait: bool) -> bool:
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(
            lock, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | (0 if wait else fcntl.LOCK_NB)
        )
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without flock: every server is taken for the only one
    return True
