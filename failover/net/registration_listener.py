"""The registration address: receives the registrations of servers and has the forwarder use them.

Used on the `sip` thread only, which owns what a registration changes: sockets, server table,
pending messages. A flood of registrations cannot starve the phones, since only MAX_PER_TURN
datagrams are read in a turn of the loop. What a registration means is in server_registration.py.
"""

from __future__ import annotations

import errno
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from failover.config.settings import ServerLine, Settings
from failover.net.own_address import OwnAddress
from failover.net.sockets import EXTRA_PORTS, MAX_DATAGRAM, first_free
from failover.upstream.server_registration import (
    ARRIVED,
    BACK,
    LEAVING,
    REFUSALS,
    Registration,
    Result,
)
from plumbing.address import Address, format_address
from plumbing.event_loop import Loop, Timer
from plumbing.udp_socket import bind_udp, family_of

if TYPE_CHECKING:
    from failover.forwarder import Forwarder

MAX_PER_TURN = 8  # datagrams; one costs up to 0.2 ms
SWEEP_INTERVAL = 0.2  # seconds between two searches for servers that have gone


class RegistrationListener:
    """Without registration.listen it does nothing. `address`: with the port in use."""

    def __init__(
        self,
        settings: Settings,
        key: bytes,
        counters: Counter[str],
        is_own: Callable[[Address], bool],
        forwarder: Forwarder,
    ) -> None:
        self.address, self._timeout = settings.registration, settings.timeout
        self._forwarder = forwarder
        self._standby = settings.standby  # a second forwarder may have the address
        self._registration = Registration(
            key,
            settings.allow,
            settings.foreign,
            settings.servers,
            counters,
            lambda address: is_own(address) or self._is_here(address),
            lambda address: family_of(address[0]) == family_of(settings.listen[0]),
        )
        self._sock: socket.socket | None = None
        self._timer: Timer | None = None  # of the next sweep
        self._in_use: tuple[ServerLine, ...] = ()  # the registered servers that the forwarder uses

    def open(self, loop: Loop) -> None:
        """Opens the socket unless it is open. Raises OSError naming the address, except where that
        may come to this computer later."""
        if not self.address or self._sock:
            return
        try:
            sock = first_free(self.address, EXTRA_PORTS if self._standby else 0, bind_udp)
        except OSError as error:
            if self._standby and error.errno == errno.EADDRNOTAVAIL:
                return
            raise
        configured, self.address = self.address, sock.getsockname()[:2]
        if self.address != configured:
            taken = f"{format_address(configured)} is taken, perhaps by the other forwarder"
            self._forwarder.log(
                "registration", f"servers register at {format_address(self.address)}: {taken}"
            )
        loop.watch(sock, lambda: self._receive(sock))
        self._sock = sock
        self._sweep(loop)

    def close(self) -> None:
        if self._timer:
            self._timer.cancel()
        if self._sock:
            self._sock.close()

    def reconfigure(self, new: Settings) -> tuple[ServerLine, ...]:
        """After a reload; returns the registered servers that stay beside the file's, for the
        forwarder to use from now on."""
        self._timeout = new.timeout
        self._registration.reconfigure(new.servers, new.allow, new.foreign)
        self._in_use = self._registration.lines()
        return self._in_use

    # -- datagrams ---------------------------------------------------------------------------------

    def _receive(self, sock: socket.socket) -> None:
        for _ in range(MAX_PER_TURN):
            try:
                data, source = sock.recvfrom(MAX_DATAGRAM)
            except BlockingIOError:
                return
            except OSError:  # an earlier answer was refused
                continue
            try:
                result = self._registration.receive(data, source[:2], time.monotonic())
            except OSError as error:  # no file descriptor to find out whose address it names
                self._forwarder.trouble("look", f"a registration of {source[0]}: {error}")
                continue
            self._act(result, source[:2])
            if result.answer and result.target:
                try:
                    sock.sendto(result.answer, result.target)
                except (OSError, OverflowError) as error:
                    text = f"an answer to a registration of {format_address(source)}: {error}"
                    self._forwarder.trouble("send", text)

    def _act(self, result: Result, source: Address) -> None:
        if result.kind == ARRIVED:
            self._use_registered()
            server = next(line for line in self._in_use if line.name == result.name)
            self._forwarder.log(f"{server.name} arrived", f"{server} has registered itself")
        elif result.kind in (LEAVING, BACK):
            self._forwarder.set_shutting_down(result.name, result.kind == LEAVING)
        elif result.kind in REFUSALS:
            who = format_address(source)
            told = f"registration refused ({result.kind}) from {who}: {result.note}"
            self._forwarder.log(f"registration.{result.kind}", told)

    # -- time --------------------------------------------------------------------------------------

    def _sweep(self, loop: Loop) -> None:
        self._timer = loop.at(time.monotonic() + SWEEP_INTERVAL, lambda: self._sweep(loop))
        gone = self._registration.sweep(time.monotonic(), self._timeout, self._forwarder.health())
        # some are gone, or the last change has failed
        if self._registration.lines() != self._in_use:
            self._use_registered()
        for each, why in gone:
            self._forwarder.log(
                f"{each.line.name} left", f"{each.line.name} is no longer registered: it {why}"
            )

    def _use_registered(self) -> None:
        lines = self._registration.lines()
        self._forwarder.use_registered(lines)
        self._in_use = lines

    def _is_here(self, address: Address) -> bool:
        return bool(self.address and OwnAddress(self.address, None).is_own(address))

    # -- status ------------------------------------------------------------------------------

    def status(self, now: float, wall: float) -> dict[str, object]:
        """The "registration" object of /status."""
        return {
            "listen": format_address(self.address) if self.address else None,
            "servers": [
                {
                    "name": each.line.name,
                    "address": format_address(each.line.address),
                    "for": round(now - each.registered_at, 3),
                    "silent": round(now - each.last_beat_at, 3),
                    "beats": each.beats,
                    "leaving": each.leaving,
                }
                for each in self._registration.servers
            ],
            "refused": [
                {
                    "at": wall - now + refusal.at,
                    "source": format_address(refusal.source),
                    "reason": refusal.reason,
                    "note": refusal.note,
                    "times": refusal.times,
                }
                for refusal in reversed(self._registration.refusals.values())
            ],
        }
