"""Files with keys or passwords, which only their owner may read.

All programs create such a file with mode OWNER_ONLY, and refuse one that others may read, with the
message of `exposed`.
"""

from __future__ import annotations

import os
import stat

OWNER_ONLY = 0o600
OTHERS = stat.S_IRWXG | stat.S_IRWXO


def exposed(path: object, status: os.stat_result) -> str:
    """The message with which a file is refused that others may read or write, else "". Pipes, and
    files on Windows, which has no such modes, are never refused."""
    if os.name != "posix" or not stat.S_ISREG(status.st_mode) or not status.st_mode & OTHERS:
        return ""
    mode = stat.S_IMODE(status.st_mode)
    return f"{path} is open to other users (mode {mode:04o}): chmod 600 {path}"
