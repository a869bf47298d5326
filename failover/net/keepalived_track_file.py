"""The file by which keepalived follows whether this forwarder sees a server (its track_file): one
digit, 1 or 0.

Used on the `sip` thread only. The kernel tells keepalived (inotify) whenever the file was written.
In between it is touched, twice a second: one that says 1 and is old is that of a forwarder that
hangs (examples/keepalived/check).
"""

from __future__ import annotations

import contextlib
import os

TOUCHED = 0.5  # seconds


class Track:
    """`name` "": there is no such file."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._written: bool | None = None
        self._fresh = float("-inf")  # when it was written or touched last

    def tell(self, sees: bool, now: float) -> bool:
        """Writes it if that is news; returns whether it was. Raises OSError, and writes it the next
        time then."""
        if not self.name or (sees is self._written and now - self._fresh < TOUCHED):
            return False
        news, self._written = sees is not self._written, None
        if news:
            self._write(b"1\n" if sees else b"0\n")
        else:
            os.utime(self.name)
        self._written, self._fresh = sees, now
        return news

    def _write(self, data: bytes) -> None:
        # Nothing is cut off before it is written over: keepalived would read an empty file as 0.
        handle = os.open(self.name, os.O_WRONLY | os.O_CREAT | getattr(os, "O_NONBLOCK", 0), 0o644)
        try:
            os.write(handle, data)
            with contextlib.suppress(OSError):  # another user's, which this one may write
                os.fchmod(handle, 0o644)  # for the check, whatever the umask
        finally:
            os.close(handle)
