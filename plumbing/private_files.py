"""Files that only their owner may read: they hold keys or passwords.

One policy for all of them: the programs make such a file for its owner alone (mode 0600), and
refuse one that others may read with the sentence of `exposed`, which names the remedy.
"""

from __future__ import annotations

import os
import stat

OWNER_ONLY = 0o600
OTHERS = stat.S_IRWXG | stat.S_IRWXO


def exposed(path: object, status: os.stat_result) -> str:
    """Why the file is refused, as a sentence with its remedy; "" if nobody else may read or write
    it. A pipe is no file. Windows has no such modes."""
    if os.name != "posix" or not stat.S_ISREG(status.st_mode) or not status.st_mode & OTHERS:
        return ""
    mode = stat.S_IMODE(status.st_mode)
    return f"{path} is open to other users (mode {mode:04o}): chmod 600 {path}"
