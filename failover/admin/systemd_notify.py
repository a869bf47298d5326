"""systemd's protocol for a service of Type=notify, sd_notify(3): ready, reloading, stopping, alive.

Each message is a datagram to the socket that NOTIFY_SOCKET names; without one nothing is sent.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping

STATUS_SECONDS = 1.0  # between two updates of the status line
BEATS = 3  # in the time that the watchdog allows: one may be late, and one may be lost


class Notifier:
    """Sends messages to systemd, from any thread. `watchdog` is the number of seconds after which
    systemd restarts a silent service; None: it does not."""

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
    def enabled(self) -> bool:
        return self._sock is not None

    @property
    def interval(self) -> float:
        """Seconds between two calls of `beat`."""
        return min(STATUS_SECONDS, self.watchdog / BEATS) if self.watchdog else STATUS_SECONDS

    def ready(self) -> None:
        """At the start, and after every reload."""
        self._send("READY=1")

    def reloading(self) -> None:
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1", "STATUS=stopping")

    def beat(self, status: str | None) -> None:
        """Feeds the watchdog; called by the thread that it watches. `status` is a line for
        `systemctl status`; None: unchanged."""
        lines = ["WATCHDOG=1"] if self.watchdog else []
        if status is not None and status != self._status:
            self._status = status
            lines.append(f"STATUS={status}")
        self._send(*lines)

    def close(self) -> None:
        if self._sock:
            self._sock.close()
            self._sock = None

    def _send(self, *lines: str) -> None:
        if self._sock and lines:
            with contextlib.suppress(OSError):  # systemd does not listen any more
                self._sock.sendto("\n".join(lines).encode(), self._address)


def _watchdog(environment: Mapping[str, str]) -> float | None:
    """The watchdog's seconds; None if there is none, or it watches another process. See
    sd_watchdog_enabled(3)."""
    microseconds = environment.get("WATCHDOG_USEC", "")
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    digits = microseconds.isascii() and microseconds.isdigit()
    return int(microseconds) / 1e6 if digits and int(microseconds) else None
