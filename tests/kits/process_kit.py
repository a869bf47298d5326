"""Programs as processes, the ports they get, and waiting for what they do."""

from __future__ import annotations

import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PYTHON = (sys.executable, "-S")  # the forwarder and the servers need the standard library only
FORWARDER = (*PYTHON, str(ROOT / "forwarder.py"))
START_SECONDS = 20.0  # that a process may take to start or to end on a busy computer
TERM_SECONDS = 3.0  # that a process has to end after SIGTERM, before SIGKILL
# Below the ports that Linux gives to those who ask for any: while a killed program is down, nobody
# is given its port.
PORTS = range(20_000, 25_400)
_rounds: dict[range, Iterator[int]] = {}  # the order in which ports are given out, again and again
# (which of them, of how many): the ports of this process, where two processes run the tests
share = (0, 1)


def free_port(among: range = PORTS) -> int:
    """A port of 127.0.0.1 that neither UDP nor TCP uses, the one that was given out longest ago."""
    ours = among[share[0] :: share[1]]
    order = _rounds.setdefault(among, itertools.cycle(random.sample(ours, len(ours))))
    for port in itertools.islice(order, len(ours)):
        if not is_taken(port):
            return port
    raise AssertionError("no port is free")


def three_ports() -> int:
    """The first of three free ports in a row."""
    for first in range(61_000, 65_000, 3)[share[0] :: share[1]]:
        if not any(is_taken(first + n) for n in range(3)):
            return first
    raise AssertionError("no three free ports in a row")


def is_taken(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
        try:
            udp.bind(("127.0.0.1", port))
            tcp.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def wait_until(
    condition: Callable[[], Any],
    timeout: float = 10.0,
    note: Callable[[], object] | None = None,
    every: float = 0.005,
) -> Any:
    """The first true value of the condition, asked for every so many seconds; fails the test after
    the timeout, with the note."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            what = note() if note else getattr(condition, "__name__", condition)
            raise AssertionError(f"not within {timeout:g} s: {what}")
        time.sleep(every)
    return value


def server_argv(
    name: str,
    listen: object,
    forwarder: object,
    store: object,
    management: object,
    *more: object,
    program: Sequence[object] = ("-m", "slee_mock"),
) -> list[str]:
    """The command that starts a server."""
    python = PYTHON[:1] if "://" in str(store) else PYTHON  # a Redis needs its client library
    options = ("--name", name, "--listen", listen, "--forwarder", forwarder, "--store", store)
    words = [*python, *program, *options, "--management", management, *more]
    return list(map(str, words))


class Process:
    """A program in a process group of its own, all of whose output goes to the file `output`.
    `input`: it can be told lines; `environ`: what else stands in its environment."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        output: Path,
        folder: Path = ROOT,
        input: bool = False,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.output = name, output
        with output.open("ab") as opened:
            self._process = subprocess.Popen(
                argv,
                cwd=folder,
                stdin=subprocess.PIPE if input else subprocess.DEVNULL,
                stdout=opened,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **(environ or {})},
            )

    @property
    def said(self) -> str:
        return self.output.read_text(errors="replace")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Its exit status; None: it runs."""
        return self._process.poll()

    def wait_until_ready(self) -> None:
        """Of one of our programs."""

        def is_decided() -> bool:
            return self.status is not None or "ready: " in self.said

        wait_until(is_decided, START_SECONDS, lambda: self.said)
        assert "ready: " in self.said, f"{self.name} ended: {self.said}"

    def tell(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def wait(self, timeout: float = START_SECONDS) -> int:
        """Its exit status, once it has ended."""
        return self._process.wait(timeout)

    def signal(self, number: int) -> None:
        """To all of its processes at once."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def kill(self) -> None:
        """kill -9 of all its processes at once."""
        self.signal(signal.SIGKILL)
        self.wait()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if that takes too long. One that has ended is left alone: its number
        may be another's by now."""
        if self._process.stdin:
            self._process.stdin.close()
        if self.status is None:
            self.signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.wait(TERM_SECONDS)
            self.kill()  # its children too, if it left any


class RunningProgram:
    """One of our programs, started and ready. `said`: the lines that it printed until then; `log`:
    the file with its stderr."""

    def __init__(
        self,
        argv: list[str] | tuple[str, ...],
        log: Path,
        environ: Mapping[str, str] | None = None,
        journal: bool = False,
    ) -> None:
        self.log, self.said = log, []
        with log.open("a") as stderr:
            # As systemd tells a service that its stderr is the journal.
            file = os.fstat(stderr.fileno())
            told = {"JOURNAL_STREAM": f"{file.st_dev}:{file.st_ino}"} if journal else {}
            self.process = subprocess.Popen(
                argv,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                cwd=ROOT,
                env={**os.environ, **(environ or {}), **told},
            )
        assert self.process.stdout
        for line in self.process.stdout:
            self.said.append(line.rstrip("\n"))
            if line.startswith("ready: "):
                return
        self.stop()
        raise AssertionError(f"never ready: {argv} {self.said} {log.read_text()}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send the signal, wait for the end, and return the exit status. One that has ended already
        is left as it is."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)
        try:
            return self.process.wait(START_SECONDS)
        finally:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout
            self.process.stdout.close()
