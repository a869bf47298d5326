"""The registration address: its socket, and what is done about what comes there.

Works on the `sip` thread, as its socket does: a registration opens sides, swaps the server table
and moves what is in flight, all of which that thread owns. A thread of its own could only ask it
for every datagram. A flood cannot starve the phones, for of each socket only so many datagrams are
taken in a turn.
"""

from __future__ import annotations

import errno
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from failover.config.settings import ServerLine, Settings
from failover.net.options_ping import MAX_DATAGRAM
from failover.net.sockets import FURTHER, OwnAddress, first_free
from failover.upstream.health import Health
from failover.upstream.server_registration import (
    ARRIVED,
    BACK,
    LEAVING,
    REFUSALS,
    Registration,
    Verdict,
)
from plumbing.address import Address, format_address
from plumbing.event_loop import Loop
from plumbing.udp_socket import bind_udp

BURST = 8  # datagrams in a turn; one costs up to 0.2 ms
SWEEP = 0.2  # seconds between two looks at who has gone


class Host(Protocol):
    """What the forwarder does for its reception."""

    def take_in(self, registered: Sequence[ServerLine]) -> None:
        """Serve by the file's servers and then these. Raises OSError, and changes nothing, for one
        whose address is of another family than the forwarder's."""

    def farewell(self, name: str, leaving: bool) -> None:
        """A server takes leave, or takes it back."""

    def health(self) -> Mapping[str, Health]:
        """Of every server, by name."""

    def say(self, reason: str, text: str) -> None:
        """Into the log, at most a line a second and reason."""


class Reception:
    """Without registration.listen it does nothing. `address`: with the port that it has been
    given."""

    def __init__(
        self,
        settings: Settings,
        key: bytes,
        counters: Counter[str],
        is_own: Callable[[Address], bool],
        host: Host,
    ) -> None:
        self.address, self._timeout, self._counters, self._host = (
            settings.registration,
            settings.timeout,
            counters,
            host,
        )
        self._shared = settings.standby  # with a twin, perhaps
        self._registration = Registration(
            key,
            settings.allow,
            settings.foreign,
            settings.servers,
            counters,
            lambda address: is_own(address) or self._is_here(address),
        )
        self._sock: socket.socket | None = None
        # those that the host serves by, as far as we know
        self._served: tuple[ServerLine, ...] = ()

    def open(self, loop: Loop) -> None:
        """If it is not open yet. Raises OSError naming the address, unless it may come to this
        computer later."""
        if not self.address or self._sock:
            return
        try:
            sock = first_free(self.address, FURTHER if self._shared else 0, bind_udp)
        except OSError as error:
            if self._shared and error.errno == errno.EADDRNOTAVAIL:
                return
            raise
        wished, self.address = self.address, sock.getsockname()[:2]
        if self.address != wished:
            taken = f"{format_address(wished)} is taken, perhaps by the other forwarder"
            self._host.say(
                "registration", f"servers register at {format_address(self.address)}: {taken}"
            )
        loop.watch(sock, lambda: self._receive(sock))
        self._sock = sock
        self._sweep_again(loop)

    def close(self) -> None:
        if self._sock:
            self._sock.close()

    # -- reload ------------------------------------------------------------------------------------

    def beside(self, new: Settings) -> tuple[ServerLine, ...]:
        """The registered servers that stay, once `rebase` is called with the same settings."""
        return self._registration.rebased(new.servers, new.allow)

    def rebase(self, new: Settings) -> None:
        self._timeout = new.timeout
        self._registration.rebase(new.servers, new.allow, new.foreign)
        self._served = self._registration.lines()

    # -- datagrams ---------------------------------------------------------------------------------

    def _receive(self, sock: socket.socket) -> None:
        for _ in range(BURST):
            try:
                data, source = sock.recvfrom(MAX_DATAGRAM)
            except BlockingIOError:
                return
            except OSError:  # what became of an earlier answer
                continue
            try:
                verdict = self._registration.receive(data, source[:2], time.monotonic())
            except OSError as error:  # no descriptors to find out with whose address it names
                self._counters["trouble.look"] += 1
                self._host.say("look", f"cannot look at a registration of {source[0]}: {error}")
                continue
            if self._act(verdict, source[:2]) and verdict.answer and verdict.target:
                try:
                    sock.sendto(verdict.answer, verdict.target)
                except (OSError, OverflowError) as error:
                    self._counters["trouble.send"] += 1
                    self._host.say(
                        "send",
                        f"cannot answer a registration from {format_address(source)}: {error}",
                    )

    def _act(self, verdict: Verdict, source: Address) -> bool:
        """False if it could not be done, so that it is not answered and comes again."""
        if verdict.what == ARRIVED:
            return self._bring_in(verdict.name, source)
        if verdict.what in (LEAVING, BACK):
            self._host.farewell(verdict.name, verdict.what == LEAVING)
        elif verdict.what in REFUSALS:
            who = format_address(source)
            told = f"registration refused ({verdict.what}) from {who}: {verdict.note}"
            self._host.say(f"registration.{verdict.what}", told)
        return True

    def _bring_in(self, name: str, source: Address) -> bool:
        try:
            self._take_in()
        except OSError as error:
            self._registration.undo(name, source, str(error), time.monotonic())
            self._host.say("registration.unreachable", f"{name} cannot be registered: {error}")
            return False
        address = next(line.address for line in self._registration.lines() if line.name == name)
        self._host.say(f"{name} arrived", f"{name} {format_address(address)} has registered itself")
        return True

    # -- time --------------------------------------------------------------------------------------

    def _sweep_again(self, loop: Loop) -> None:
        loop.at(time.monotonic() + SWEEP, lambda: self._sweep_again(loop))
        gone = self._registration.sweep(time.monotonic(), self._timeout, self._host.health())
        # some are gone, or it could not be done the last time
        if self._registration.lines() != self._served:
            self._take_in()
        for each, why in gone:
            self._host.say(
                f"{each.line.name} left", f"{each.line.name} is no longer registered: it {why}"
            )

    def _take_in(self) -> None:
        lines = self._registration.lines()
        self._host.take_in(lines)
        self._served = lines

    def _is_here(self, address: Address) -> bool:
        return bool(self.address and OwnAddress(self.address, None).is_own(address))

    # -- what is told ------------------------------------------------------------------------------

    def status(self, now: float, wall: float) -> dict[str, object]:
        """The "registration" of /status."""
        return {
            "listen": format_address(self.address) if self.address else None,
            "servers": [
                {
                    "name": each.line.name,
                    "address": format_address(each.line.address),
                    "for": round(now - each.since, 3),
                    "silent": round(now - each.beaten, 3),
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
