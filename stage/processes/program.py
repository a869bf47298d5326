"""Programs as real processes: started until they say they are ready, killed with SIGKILL, stopped,
never left behind.

Two threads per running program read its output; the one on standard output also reaps it, so that
neither a kill nor an end blocks anybody. Each program lives in a session of its own: Ctrl-C reaches
the stage alone, which then ends them in order. `CleanupProcess` covers the one case in which the
stage cannot do that itself, its own SIGKILL.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

READY = "ready: "
LINES_KEPT = 40  # of what a program last wrote, per pipe


class StartError(Exception):
    """A program did not get ready; the text is a sentence for a person, the program's own where it
    said one."""


class CleanupProcess:
    """Our end of `cleanup_process.py`. Any thread may call it; `close()` twice is fine."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the pipe: two programs may end at the same moment
        self._process = subprocess.Popen(
            [sys.executable, "-S", str(Path(__file__).with_name("cleanup_process.py"))],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def keep(self, pid: int) -> None:
        self._say(f"keep {pid}")

    def forget(self, pid: int) -> None:
        self._say(f"forget {pid}")

    def folder(self, path: str | Path) -> None:
        self._say(f"folder {path}")

    def close(self, timeout: float = 4.0) -> None:
        """Let it finish what is left to clean up, at most `timeout` seconds."""
        with self._lock:
            if self._process.stdin and not self._process.stdin.closed:
                with contextlib.suppress(OSError):
                    self._process.stdin.close()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _say(self, line: str) -> None:
        with self._lock:
            stdin = self._process.stdin
            if stdin and not stdin.closed:
                # somebody killed it: we still clean up when we end in order
                with contextlib.suppress(OSError):
                    stdin.write(line + "\n")
                    stdin.flush()


class Program:
    """One program: `argv` run in `folder`, ready when a line of its standard output begins with
    READY.

    `on_end(name, status)` is called on a thread of ours whenever a run ends; status is negative
    for a signal, as in subprocess.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        folder: str | Path | None = None,
        cleanup: CleanupProcess | None = None,
        on_end: Callable[[str, int], None] | None = None,
    ) -> None:
        self.name = name
        self.argv = list(argv)
        self._folder = folder
        self._cleanup = cleanup
        self._on_end = on_end
        self._process: subprocess.Popen[str] | None = None
        self._threads: list[threading.Thread] = []
        self._ready = threading.Event()  # set at the ready line, or when it can no longer come
        self.ready_line = ""  # that it printed when it was ready, in this run or the last
        self._said: deque[str] = deque(maxlen=LINES_KEPT)
        self._complained: deque[str] = deque(maxlen=LINES_KEPT)

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """Of the run that is or was last; None before the first."""
        return self._process.pid if self._process else None

    @property
    def status(self) -> int | None:
        """How the last run ended: None while it runs, -9 after a SIGKILL."""
        return self._process.poll() if self._process else None

    def last_words(self) -> str:
        """The last lines of its standard error, else of its standard output."""
        return "\n".join(self._complained or self._said)

    def start(self, timeout: float = 10.0) -> None:
        """Start and wait until ready; StartError otherwise, and then nothing is left running."""
        self.launch()
        self.wait_ready(timeout)

    def launch(self) -> None:
        """Start without waiting, so that several programs get ready side by side; `wait_ready` must
        follow."""
        if self.alive:
            raise StartError(f"{self.name} is already running (process {self.pid}).")
        self._join(1.0)
        self._ready.clear()
        self.ready_line = ""
        self._said.clear()
        self._complained.clear()
        try:
            self._process = subprocess.Popen(
                self.argv,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            raise StartError(f"{self.name} cannot be started: {error}.") from error
        if self._cleanup:
            self._cleanup.keep(self._process.pid)
        self._threads = [
            threading.Thread(
                target=self._read_errors,
                args=(self._process.stderr,),
                name=f"{self.name}-errors",
                daemon=True,
            ),
            threading.Thread(
                target=self._read_output,
                args=(self._process,),
                name=f"{self.name}-output",
                daemon=True,
            ),
        ]
        for thread in self._threads:
            thread.start()

    def wait_ready(self, timeout: float = 10.0) -> None:
        """Wait for the ready line at most `timeout` seconds."""
        in_time = self._ready.wait(timeout)
        if self.ready_line:
            return
        if in_time:
            self._join(1.0)  # its last sentence may still be on the way
            raise StartError(
                self.last_words()
                or f"{self.name} ended with status {self.status} before it was ready."
            )
        words = self.last_words()
        self.stop(1.0)
        raise StartError(
            f"{self.name} was not ready after {timeout:g} s."
            + (f" It said: {words}" if words else "")
        )

    def send(self, number: int) -> float:
        """A signal: SIGKILL is the crash of the document; SIGSTOP freezes, SIGCONT thaws. Returns
        the monotonic time just before; does not wait for what comes of it."""
        before = time.monotonic()
        if self._process is not None:
            self._process.send_signal(number)
        return before

    def ask_to_stop(self) -> None:
        """SIGTERM, without waiting; a frozen one has to run to hear it."""
        if self._process is not None:
            self._process.terminate()
            if hasattr(signal, "SIGCONT"):
                self._process.send_signal(signal.SIGCONT)

    def stop(self, timeout: float = 3.0) -> None:
        """SIGTERM, after `timeout` seconds SIGKILL; returns when it is gone. Twice is fine."""
        if self._process is None:
            return
        self.ask_to_stop()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._join(1.0)

    def _join(self, timeout: float) -> None:
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(timeout)

    # On the program's own two threads.

    def _read_errors(self, pipe: IO[str]) -> None:
        with pipe:
            for line in pipe:
                self._complained.append(line.rstrip())

    def _read_output(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as pipe:
            for line in pipe:
                self._said.append(line.rstrip())
                if not self.ready_line and line.startswith(READY):
                    self.ready_line = line.rstrip()
                    self._ready.set()
        status = process.wait()
        if self._cleanup:
            self._cleanup.forget(process.pid)
        self._ready.set()
        if self._on_end:
            self._on_end(self.name, status)
