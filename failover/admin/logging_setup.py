"""Where the log goes and how a line looks: with the time for people, with its level for systemd's
journal.

The journal notes the time itself, and takes a line's level from `<N>` before it (sd-daemon(3)):
journalctl -p warning then shows what was worth being woken for.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TextIO

# syslog(3)'s numbers
LEVELS = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}


class JournalFormatter(logging.Formatter):
    """Every line of a record with its level, those of a traceback too."""

    def format(self, record: logging.LogRecord) -> str:
        level = f"<{LEVELS.get(record.levelno, 6)}>"
        return "\n".join(level + line for line in super().format(record).split("\n"))


def is_journal(stream: TextIO) -> bool:
    """Is this what systemd connected to its journal? JOURNAL_STREAM has the device and inode
    (systemd.exec(5)); a program started in between may have sent its output elsewhere."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def set_up(verbose: bool, stream: TextIO | None = None) -> None:
    """Once, at the program's start."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        JournalFormatter() if is_journal(stream) else logging.Formatter("%(asctime)s %(message)s")
    )
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler])
