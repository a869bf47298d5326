"""A small process that cleans up after the demo, even after a demo that was killed with SIGKILL.

The demo holds the other end of this process's standard input, which the system closes when the
demo ends in whatever way; then every program still named here is killed and every named folder
removed. PR_SET_PDEATHSIG was not taken: it fires when the *thread* that started a program ends,
exists on Linux only, and removes no folders. Run as a script; imports nothing of ours.

Lines on standard input: `keep PID`, `forget PID`, `folder PATH`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable


def read_wishes(lines: Iterable[str]) -> tuple[set[int], list[str]]:
    """The programs and folders left to clean up once `lines` have ended."""
    programs: set[int] = set()
    folders: list[str] = []
    for line in lines:
        word, _, rest = line.rstrip("\n").partition(" ")
        if word == "keep":
            programs.add(int(rest))
        elif word == "forget":
            programs.discard(int(rest))
        elif word == "folder":
            folders.append(rest)
    return programs, folders


def clean_up(programs: Iterable[int], folders: Iterable[str], patience: float = 2.0) -> None:
    """Kill `programs`, then remove `folders`: a dying program may still write there, so try for
    `patience` seconds."""
    for pid in programs:
        with contextlib.suppress(OSError):
            os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    deadline = time.monotonic() + patience
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        while os.path.isdir(folder) and time.monotonic() < deadline:
            time.sleep(0.05)
            shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Outlive Ctrl-C and a closed terminal: those are meant for the stage, and its end is seen on
    standard input."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    clean_up(*read_wishes(sys.stdin))


if __name__ == "__main__":
    main()
