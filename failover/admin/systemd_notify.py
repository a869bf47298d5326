"""What systemd wants to hear from a service of Type=notify (sd_notify(3)): ready, reloading,
stopping, alive.

Datagrams to the socket that NOTIFY_SOCKET names; where it names none, nothing is said. No library
is needed.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping

SLOWEST = 1.0  # seconds between two looks at what the status line should say
BEATS = 3  # within the time that the watchdog allows: one may be late, and one may be lost


class Notifier:
    """May be called from any thread. `watchdog`: seconds after which systemd restarts a silent
    service, if it does."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self.watchdog = _watchdog(environment)
        self._status = ""
        self._sock: socket.socket | None = None
        address = environment.get("NOTIFY_SOCKET", "")
        if address[:1] in ("/", "@") and hasattr(socket, "AF_UNIX"):
            self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._sock.setblocking(False)  # a service must not wait for its supervisor
            self._address = "\0" + address[1:] if address[0] == "@" else address

    @property
    def listened_to(self) -> bool:
        return self._sock is not None

    @property
    def rhythm(self) -> float:
        """Seconds between two calls of `beat`."""
        return min(SLOWEST, self.watchdog / BEATS) if self.watchdog else SLOWEST

    def ready(self) -> None:
        """At the start, and after every reload."""
        self._say("READY=1")

    def reloading(self) -> None:
        self._say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._say("STOPPING=1", "STATUS=stopping")

    def beat(self, status: str | None) -> None:
        """To be called by the thread whose life the watchdog is to watch. `status` is what
        `systemctl status` shows; None: what it has shown."""
        said = []
        if self.watchdog:
            said.append("WATCHDOG=1")
        if status is not None and status != self._status:
            self._status = status
            said.append(f"STATUS={status}")
        self._say(*said)

    def close(self) -> None:
        if self._sock:
            self._sock.close()
            self._sock = None

    def _say(self, *lines: str) -> None:
        if self._sock and lines:
            with contextlib.suppress(OSError):  # nobody listens any more: not our service's fault
                self._sock.sendto("\n".join(lines).encode(), self._address)


def _watchdog(environment: Mapping[str, str]) -> float | None:
    """Seconds; None where systemd does not watch, or watches another process
    (sd_watchdog_enabled(3))."""
    microseconds = environment.get("WATCHDOG_USEC", "")
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return (
        int(microseconds) / 1e6
        if microseconds.isascii() and microseconds.isdigit() and int(microseconds)
        else None
    )
