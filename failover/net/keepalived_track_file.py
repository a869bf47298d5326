"""keepalived's track_file: one digit, 1 while this forwarder sees a server, else 0.

Used on the `sip` thread only. keepalived learns of a change by inotify. Between changes the file is
touched twice a second: a 1 whose file is old is that of a forwarder that hangs
(examples/keepalived/check).
"""

from __future__ import annotations

import contextlib
import os

TOUCH_INTERVAL = 0.5  # seconds


class TrackFile:
    """`name` "": no file is written."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._written: bool | None = None  # None: not known
        self._touched = float("-inf")

    def update(self, sees: bool, now: float) -> bool:
        """Writes or touches the file if that is due; returns whether its digit has changed. Raises
        OSError, and writes it at the next call."""
        if not self.name or (sees is self._written and now - self._touched < TOUCH_INTERVAL):
            return False
        changed, self._written = sees is not self._written, None
        if changed:
            self._write(b"1\n" if sees else b"0\n")
        else:
            os.utime(self.name)
        self._written, self._touched = sees, now
        return changed

    def _write(self, data: bytes) -> None:
        # Overwrites without truncating: keepalived would read an empty file as 0.
        handle = os.open(self.name, os.O_WRONLY | os.O_CREAT | getattr(os, "O_NONBLOCK", 0), 0o644)
        try:
            os.write(handle, data)
            with contextlib.suppress(OSError):  # it may be another user's, and writable for us
                os.fchmod(handle, 0o644)  # readable for the check script, whatever the umask
        finally:
            os.close(handle)
