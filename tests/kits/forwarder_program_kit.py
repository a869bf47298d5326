"""`python -S forwarder.py` as a process."""

from __future__ import annotations

import subprocess

from process_kit import FORWARDER, RunningProgram


def run(*arguments, cwd=None):
    """Of a start that ends by itself: exit status, stdout and stderr."""
    return subprocess.run(
        [*FORWARDER, *map(str, arguments)], capture_output=True, text=True, timeout=10, cwd=cwd
    )


class Running(RunningProgram):
    """The forwarder of this file, ready. `journal`: its stderr is systemd's journal."""

    journal = False

    def __init__(self, file, *options):
        argv = [*FORWARDER, str(file), *options]
        super().__init__(argv, file.with_suffix(".log"), journal=self.journal)
