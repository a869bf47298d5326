"""The format of the log's lines: with the time on a terminal, with the level in systemd's journal.

The journal notes the time itself, and takes a line's level from `<N>` before it (sd-daemon(3)), so
that `journalctl -p warning` works.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TextIO

# the numbers of syslog(3)
LEVELS = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}


class JournalFormatter(logging.Formatter):
    """Puts the level before every line of a record, those of a traceback too."""

    def format(self, record: logging.LogRecord) -> str:
        level = f"<{LEVELS.get(record.levelno, 6)}>"
        return "\n".join(level + line for line in super().format(record).split("\n"))


def is_journal(stream: TextIO) -> bool:
    """Is the stream connected to the journal? JOURNAL_STREAM has the device and inode of the stream
    that is (systemd.exec(5)); a shell may have redirected ours to a file."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def set_up(verbose: bool, stream: TextIO | None = None) -> None:
    """Configures `logging`; called once, when the program starts."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        JournalFormatter() if is_journal(stream) else logging.Formatter("%(asctime)s %(message)s")
    )
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler])
