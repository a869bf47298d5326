"""Which of two forwarders has the shared address, and how each finds out.

Rules

  1. There is no election and no protocol between the two. The operating system lets one socket bind
     an address exclusively; a VRRP daemon (keepalived) lets one computer have it. The forwarder
     that can bind the address is active, the other one is on standby and tries again.
  2. TRANSITIONS has two roles and four events. What is not in it is an error.
  3. A standby forwarder tries to bind every CHECK_INTERVAL. An active one looks whether the address
     is still on an interface, if it is one that can move to another computer at all.

The upper half is pure: HaState.after() in, HaState out. AddressWatcher looks for the events, on the
`sip` thread, or before that one starts.

Trap: where net.ipv4.ip_nonlocal_bind is set, binding succeeds for an address that this computer
does not have, so the interfaces are looked at first.
"""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import ip_address
from typing import TYPE_CHECKING

from failover.net.own_address import is_here
from failover.net.sockets import open_phones
from plumbing.address import Address, format_address
from plumbing.event_loop import Loop, Timer

if TYPE_CHECKING:
    from failover.forwarder import Forwarder


class Role(str, Enum):
    STANDBY = "standby"  # watches the servers, and tries to get the address
    ACTIVE = "active"  # has the address, and forwards


class AddressEvent(str, Enum):
    BOUND = "bound"  # it was free and is ours now
    HELD = "held"  # another program on this computer has it
    ELSEWHERE = "elsewhere"  # this computer does not have it
    HERE = "here"  # we have bound it and this computer still has it


STANDBY, ACTIVE = Role
BOUND, HELD, ELSEWHERE, HERE = AddressEvent

TRANSITIONS = {
    STANDBY: {BOUND: ACTIVE, HELD: STANDBY, ELSEWHERE: STANDBY},
    ACTIVE: {HERE: ACTIVE, ELSEWHERE: STANDBY},
}
CHECK_INTERVAL = {STANDBY: 0.02, ACTIVE: 0.05}  # seconds between two looks
WHY_STANDBY = {
    HELD: "{} is held by another program",
    ELSEWHERE: "{} is not an address of this computer now",
}
WHY_ACTIVE = {
    None: "{} was free at the start",
    HELD: "{} is free, the program that held it is gone",
    ELSEWHERE: "{} is an address of this computer now",
}  # by the event before
BIND_ERRORS = {errno.EADDRINUSE: HELD, errno.EADDRNOTAVAIL: ELSEWHERE}
MAX_TAKEOVERS = 100  # remembered for /failovers


@dataclass(frozen=True)
class HaState:
    """This forwarder's role at an address. `since`: monotonic; `event`: the last one that changed
    anything; `waited`: seconds in the other role before."""

    address: str
    role: Role
    since: float
    why: str
    event: AddressEvent | None = None
    waited: float = 0.0

    def after(self, event: AddressEvent, now: float) -> HaState:
        """The state after an event; the same object if it changes nothing. KeyError: the role
        cannot meet this event."""
        role = TRANSITIONS[self.role][event]
        if role is self.role and (role is ACTIVE or event is self.event):
            return self
        reason = WHY_ACTIVE[self.event] if role is ACTIVE else WHY_STANDBY[event]
        why = reason.format(self.address)
        if role is self.role:
            return replace(self, why=why, event=event)
        return HaState(self.address, role, now, why, event, waited=now - self.since)


class AddressWatcher:
    """Binds and watches the shared address, and tells the forwarder of it. `state` and `takeovers`
    (the states that began by one) are for reading."""

    def __init__(self, loop: Loop, listen: Address, forwarder: Forwarder) -> None:
        self._loop, self._listen, self._forwarder = loop, listen, forwarder
        self._can_move = can_move(listen)
        self._timer: Timer | None = None
        self.state = HaState(format_address(listen), STANDBY, time.monotonic(), "has just started")
        self.takeovers: deque[HaState] = deque(maxlen=MAX_TAKEOVERS)

    def start(self, wait: bool) -> None:
        """Tries to bind for the first time. Raises OSError if that fails and we are not to `wait`
        for the address, or waiting would not help."""
        self._handle(self._event() if wait else self._bind())
        if wait:
            self._schedule_check()

    def stop(self) -> None:
        if self._timer:
            self._timer.cancel()

    def _bind(self) -> AddressEvent:
        """BOUND, and the forwarder serves; or raises OSError."""
        if self._can_move and not has_address(self._listen[0]):
            text = f"{os.strerror(errno.EADDRNOTAVAIL)} ({format_address(self._listen)})"
            raise OSError(errno.EADDRNOTAVAIL, text)
        sock = open_phones(self._listen)
        try:
            self._forwarder.serve_on(sock)
        except BaseException:  # or our own socket would hold the address at the next attempt
            self._forwarder.release_address()
            sock.close()
            raise
        return BOUND

    def _check(self) -> None:
        try:
            self._handle(self._event())
        except OSError as error:  # such as no file descriptor left: the state stays
            where = format_address(self._listen)
            text = f"whether {where} is here or free: {error}; nothing changes"
            self._forwarder.trouble("look", text)
        finally:
            self._schedule_check()

    def _event(self) -> AddressEvent:
        if self.state.role is ACTIVE:
            return HERE if has_address(self._listen[0]) else ELSEWHERE
        try:
            return self._bind()
        except OSError as error:
            if error.errno not in BIND_ERRORS:
                raise
            return BIND_ERRORS[error.errno]

    def _schedule_check(self) -> None:
        if self.state.role is STANDBY or self._can_move:
            due = time.monotonic() + CHECK_INTERVAL[self.state.role]
            self._timer = self._loop.at(due, self._check)

    def _handle(self, event: AddressEvent) -> None:
        before, self.state = self.state, self.state.after(event, time.monotonic())
        if self.state is before:
            return
        is_takeover = self.state.role is not before.role and before.event is not None
        if is_takeover:
            self.takeovers.append(self.state)
        if before.role is ACTIVE:
            self._forwarder.release_address()
        self._forwarder.role_changed(self.state, is_takeover)


def can_move(listen: Address) -> bool:
    """Can another computer take over this address? Not loopback, not the wildcard."""
    host = ip_address(listen[0])
    return not (host.is_loopback or host.is_unspecified)


def has_address(host: str) -> bool:
    """Is this IP address on one of this computer's interfaces? Without netifaces: would the system
    use it as its own (is_here)?"""
    try:
        import netifaces
    except ImportError:
        return is_here(host)
    family = netifaces.AF_INET6 if ":" in host else netifaces.AF_INET
    for name in netifaces.interfaces():
        try:
            entries = netifaces.ifaddresses(name).get(family, ())
        except ValueError:  # the interface is gone since the line above
            continue
        if any(entry.get("addr") == host for entry in entries):
            return True
    return False
