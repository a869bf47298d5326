"""The forwarder's SIP sockets: one for the phones, one connected to each server, all on the same
address.

The phones' is bound alone, so that a second forwarder fails to bind; then it lets the servers'
join. The kernel gives a connected socket what its server sends and the phones' all the rest. So the
socket tells a message's direction, and a killed server's refusal arrives on its own side. Where the
system cannot share a port like this, a side has a port of its own, and what its server sends to the
forwarder's address is told by where it comes from.
"""

from __future__ import annotations

import errno
import socket
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import TypeVar

from failover.proxy.destination import literal
from plumbing.address import Address, format_address
from plumbing.local_address import usual_towards
from plumbing.udp_socket import bind_udp, connect_udp, family_of
from sip.uri import DEFAULT_PORT

SHARES_PORTS = sys.platform == "linux"
# Octets. Of more messages than can be served some are lost; those that are served should not have
# waited till their sender says them again (T1, 0.5 s). Two runs each at twice the load that can be
# served, on a busy computer: the median answer took 0.05 s with 1 MB, 0.2 to 0.33 s with 4 MB; how
# many were answered did not tell the two apart.
PHONES_BUFFER = 1 << 20
ROUTE_LIFE = 10.0  # seconds for which the system's choice of an own address is trusted
MAX_ROUTES = 1024
MAX_USED = 65_536
RECEIVE_ERRORS = {
    socket.AF_INET: (socket.IPPROTO_IP, 11),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 25),
}  # Linux's
MAX_REFUSALS = 256  # read at once
LEAST_QUOTED = 8  # octets (RFC 792)
QUOTED = 2048  # octets; ICMP quotes fewer (RFC 1812 4.3.2.3)
FURTHER = 9  # ports above the wished one that a twin on the same computer may take
T = TypeVar("T")
Datagram = tuple[bytes, Address]


def first_free(wanted: Address, further: int, open_at: Callable[[Address], T]) -> T:
    """What `open_at` returns for the first address whose port nobody has: this one, or one of so
    many above it. Raises OSError, as `open_at` does."""
    host, port = wanted
    last = min(port + further, 65_535)
    while True:
        try:
            return open_at((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or port >= last:
                raise
        port += 1


def open_phones(listen: Address) -> socket.socket:
    """Raises OSError naming the address, as when another program has it."""
    sock = bind_udp(listen, receive_buffer=PHONES_BUFFER)
    if SHARES_PORTS:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(*RECEIVE_ERRORS[sock.family], 1)
    return sock


def refusals(sock: socket.socket) -> list[Datagram]:
    """The datagrams that a peer's computer has refused by ICMP, or a router could not deliver: how
    each began, and where it was to go. From Linux's error queue (ip(7), IP_RECVERR); empty
    elsewhere."""
    found: list[Datagram] = []
    while SHARES_PORTS and len(found) < MAX_REFUSALS:
        try:
            data, _, _, target = sock.recvmsg(
                QUOTED, QUOTED, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT
            )
        except BlockingIOError:
            break
        except OSError:
            continue  # the error itself, told once more
        if len(data) >= LEAST_QUOTED:
            found.append((data, target[:2]))
    return found


def open_side(listen: Address, server: Address) -> tuple[socket.socket, list[Datagram]]:
    """A socket connected to the server, and what others sent that landed on it before it was
    connected.

    Raises OSError where the server's address cannot be reached at all.
    """
    check_family(listen, server)
    if SHARES_PORTS:
        try:
            return _connected(bind_udp(listen, share=True), server)
        except OSError:
            # a listen address that cannot reach the server, such as loopback for a server elsewhere
            pass
    return _connected(bind_udp(("::" if ":" in server[0] else "0.0.0.0", 0)), server)


def check_family(listen: Address, server: Address) -> None:
    """Raises OSError if they differ: the server's answers would go to an address where nobody
    listens."""
    if family_of(listen[0]) != family_of(server[0]):
        raise OSError(
            errno.EAFNOSUPPORT,
            f"not of the family of {format_address(listen)} ({format_address(server)})",
        )


def _connected(sock: socket.socket, server: Address) -> tuple[socket.socket, list[Datagram]]:
    connect_udp(sock, server)
    landed: list[Datagram] = []
    while True:
        try:
            data, source = sock.recvfrom(65_535)
        except (BlockingIOError, ConnectionError):
            return sock, landed
        landed.append((data, source[:2]))


def queued(sock: socket.socket, most: int) -> list[Datagram]:
    """What is left in a socket's queue, whatever errors it has to tell in between."""
    found: list[Datagram] = []
    for _ in range(most):
        try:
            data, source = sock.recvfrom(65_535)
        except BlockingIOError:
            break
        except OSError:
            continue
        found.append((data, source[:2]))
    return found


class OwnAddress:
    """The forwarder's address as its peers know it: what the operator says, else what it listens
    on, else (listening on every address) the one that the system uses towards the peer. `names`:
    hosts that stand for it too; port 0: any that may be meant."""

    def __init__(
        self, listen: Address, advertise: Address | None, names: Sequence[Address] = ()
    ) -> None:
        self.listen, self.advertise, self.names = listen, advertise, names
        self._wildcard = listen[0] in ("0.0.0.0", "::")
        self._routes: dict[str, tuple[Address, float]] = {}
        self._here: dict[str, tuple[bool, float]] = {}
        # by peer: another address than the system would use
        self._used: OrderedDict[Address, Address] = OrderedDict()

    def uses(self, peer: Address, local: str) -> None:
        """A peer sends to this address of ours; "": to the one that the system uses too."""
        self._used.pop(peer, None)
        if local:
            self._used[peer] = (local, self.listen[1])  # the newest
            if len(self._used) > MAX_USED:
                self._used.popitem(last=False)

    def towards_phone(self, phone: Address) -> Address:
        """The address that it uses, if that is known to be another than the system's choice."""
        used = self._used.get(phone) if self._used and not self.advertise else None
        return used or self.towards(phone[0])

    def towards(self, host: str) -> Address:
        """`host` is an IP address."""
        if self.advertise:
            return self.advertise
        if not self._wildcard:
            return self.listen
        now = time.monotonic()
        known = self._routes.get(host)
        if known and now - known[1] < ROUTE_LIFE:
            return known[0]
        if len(self._routes) >= MAX_ROUTES:
            self._routes.clear()
        usual = usual_towards(host)
        if not usual:  # no descriptors to ask the system with: the last that it said
            last = known or next(reversed(self._routes.values()), None)
            return last[0] if last else self.listen
        own = (usual, self.listen[1])
        self._routes[host] = (own, now)
        return own

    def is_own(self, address: Address) -> bool:
        """Is this one of the forwarder's addresses, so that a message sent there would come back
        here? Raises OSError, as is_here does."""
        host, port = address
        if address in (self.advertise, self.listen):
            return True
        if any(
            host == name and port in ((wanted,) if wanted else self._ports)
            for name, wanted in self.names
        ):
            return True
        return (
            self._wildcard and port == self.listen[1] and literal(address) and self._is_here(host)
        )

    @property
    def _ports(self) -> tuple[int, ...]:
        """The ports that a name without one may mean."""
        return DEFAULT_PORT, self.listen[1], *([self.advertise[1]] if self.advertise else [])

    def _is_here(self, host: str) -> bool:
        now = time.monotonic()
        known = self._here.get(host)
        if known and now - known[1] < ROUTE_LIFE:
            return known[0]
        if len(self._here) >= MAX_ROUTES:
            self._here.clear()
        here = ip_address(host).is_loopback or is_here(host)
        self._here[host] = here, now
        return here


def is_here(host: str) -> bool:
    """Is this IP address one of this computer's? The system connects an IPv4 socket that is bound
    to it, even where net.ipv4.ip_nonlocal_bind lets it be bound to any. What it chooses towards it
    tells for IPv6 alone: for IPv4 that is the interface's first address where this is a further
    one, as virtual ones are. Raises OSError where there is no descriptor to ask the system with,
    which tells nothing of the address."""
    try:
        with socket.socket(family_of(host), socket.SOCK_DGRAM) as sock:
            if sock.family == socket.AF_INET:
                sock.bind((host, 0))
            sock.connect((host, 9))
            return str(sock.getsockname()[0]) == host
    except OSError as error:  # this computer may not even speak IPv6
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        return False
