"""Getting and losing the address that two forwarders share. Used on the `sip` thread, or before it
runs.

What the signs mean is in active_standby.py; here they are looked for: an attempt to bind, and a
look at the interfaces.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections import deque
from ipaddress import ip_address
from typing import Protocol

from failover.net.active_standby import (
    ACTIVE,
    BOUND,
    ELSEWHERE,
    HELD,
    HERE,
    LOOK,
    STANDBY,
    Sign,
    Standing,
    Takeover,
)
from failover.net.sockets import is_here, open_phones
from plumbing.address import Address, format_address
from plumbing.event_loop import Loop, Timer

SIGNS = {errno.EADDRINUSE: HELD, errno.EADDRNOTAVAIL: ELSEWHERE}  # of an attempt to bind
REMEMBERED_TAKEOVERS = 100


class Host(Protocol):
    """What the forwarder does about its role."""

    def take(self, phones: socket.socket) -> None:
        """The address is ours, on this socket: serve."""

    def let_go(self) -> None:
        """It is ours no more: close every socket on it."""

    def stands(self, standing: Standing, takeover: Takeover | None) -> None:
        """Where we stand now; and whether the role has changed, other than at the start."""

    def trouble(self, operation: str, text: str) -> None:
        """The operating system would not do something: at most one line a second in the log."""


class Station:
    """`standing` and `takeovers` are for reading."""

    def __init__(self, loop: Loop, listen: Address, host: Host) -> None:
        self._loop, self._listen, self._host = loop, listen, host
        self._moves = can_move(listen)
        self._timer: Timer | None = None
        self.standing = Standing(
            format_address(listen), STANDBY, time.monotonic(), "has just started"
        )
        self.takeovers: deque[Takeover] = deque(maxlen=REMEMBERED_TAKEOVERS)

    def begin(self, wait: bool) -> None:
        """The first attempt. Raises OSError if it fails and we are not to `wait`, or if waiting
        would not help."""
        try:
            self._see(self._attempt())
        except OSError as error:
            if not wait or error.errno not in SIGNS:
                raise
            self._see(SIGNS[error.errno])
        if wait:
            self._look_again()

    def end(self) -> None:
        if self._timer:
            self._timer.cancel()

    def _attempt(self) -> Sign:
        """BOUND and served, or OSError. Where net.ipv4.ip_nonlocal_bind is set, binding alone
        proves nothing."""
        if self._moves and not present(self._listen[0]):
            raise OSError(
                errno.EADDRNOTAVAIL,
                f"{os.strerror(errno.EADDRNOTAVAIL)} ({format_address(self._listen)})",
            )
        sock = open_phones(self._listen)
        try:
            self._host.take(sock)
        # else we would find the address held at the next attempt, by ourselves
        except BaseException:
            self._host.let_go()
            sock.close()
            raise
        return BOUND

    def _look(self) -> None:
        try:
            self._see(self._sign())
        except OSError as error:  # no descriptors, above all: a sign of nothing
            where = format_address(self._listen)
            self._host.trouble("look", f"whether {where} is here or free: {error}; nothing changes")
        finally:
            self._look_again()

    def _sign(self) -> Sign:
        if self.standing.role is ACTIVE:
            return HERE if present(self._listen[0]) else ELSEWHERE
        try:
            return self._attempt()
        except OSError as error:
            if error.errno not in SIGNS:
                raise
            return SIGNS[error.errno]

    def _look_again(self) -> None:
        """An active one whose address cannot leave has nothing to look for."""
        if self.standing.role is STANDBY or self._moves:
            self._timer = self._loop.at(time.monotonic() + LOOK[self.standing.role], self._look)

    def _see(self, sign: Sign) -> None:
        before, now = self.standing, time.monotonic()
        self.standing = before.after(sign, now)
        if self.standing is before:
            return
        takeover = None
        if self.standing.role is not before.role and before.sign:
            new = self.standing
            takeover = Takeover(now, new.role, new.address, new.why, now - before.since)
            self.takeovers.append(takeover)
        if before.role is ACTIVE:
            self._host.let_go()
        self._host.stands(self.standing, takeover)


def can_move(listen: Address) -> bool:
    """May this address be another computer's? Loopback and "every address" never are."""
    host = ip_address(listen[0])
    return not (host.is_loopback or host.is_unspecified)


def present(host: str) -> bool:
    """Has one of this computer's interfaces this address? Where netifaces is not installed: would
    the system use it towards itself?"""
    try:
        import netifaces
    except ImportError:
        return is_here(host)
    family = netifaces.AF_INET6 if ":" in host else netifaces.AF_INET
    for name in netifaces.interfaces():
        try:
            entries = netifaces.ifaddresses(name).get(family, ())
        except ValueError:  # an interface that was there a moment ago
            continue
        if any(entry.get("addr") == host for entry in entries):
            return True
    return False
