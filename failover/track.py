"""The file by which keepalived follows whether this forwarder sees a server (its track_file): one digit, 1 or 0.

Used on the `sip` thread only. keepalived is told by the kernel (inotify) whenever the file was written.
"""

from __future__ import annotations

import os


class Track:
    """`name` "": there is no such file."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._written: bool | None = None

    def tell(self, sees: bool) -> bool:
        """Writes it if that is news; returns whether it was. Raises OSError, and writes it the next time then."""
        if not self.name or sees is self._written:
            return False
        # Nothing is cut off before it is written over: keepalived would read an empty file as 0.
        handle = os.open(self.name, os.O_WRONLY | os.O_CREAT | getattr(os, "O_NONBLOCK", 0), 0o644)
        try:
            os.write(handle, b"1\n" if sees else b"0\n")
        finally:
            os.close(handle)
        self._written = sees
        return True
