"""The forwarder's own address as each peer knows it, and which addresses are this computer's."""

from __future__ import annotations

import errno
import socket
import time
from collections import OrderedDict
from collections.abc import Sequence
from ipaddress import ip_address

from plumbing.address import Address, literal
from plumbing.packet_info import usual_towards
from plumbing.udp_socket import family_of
from sip.uri import DEFAULT_PORT

CACHE_SECONDS = 10.0  # for which an answer of the system is used again
MAX_CACHED = 1024  # hosts
MAX_USED = 65_536  # peers


class OwnAddress:
    """The address to write into Via and Record-Route: `advertise` if set, else `listen`; if that is
    the wildcard, the address that the system sends from to this peer. `names`: more hosts that mean
    this forwarder; port 0: the default port, or one that we listen on or advertise."""

    def __init__(
        self, listen: Address, advertise: Address | None, names: Sequence[Address] = ()
    ) -> None:
        self.listen, self.advertise, self.names = listen, advertise, names
        self._wildcard = listen[0] in ("0.0.0.0", "::")
        self._routes: dict[str, tuple[Address, float]] = {}  # cache of `towards`
        self._here: dict[str, tuple[bool, float]] = {}  # cache of `is_here`
        # Peers that send to another address of ours than the system would send from.
        self._used: OrderedDict[Address, Address] = OrderedDict()

    def uses(self, peer: Address, local: str) -> None:
        """Notes the address of ours that a peer sends to; "": the one the system would use."""
        self._used.pop(peer, None)
        if local:
            self._used[peer] = (local, self.listen[1])  # now the newest entry
            if len(self._used) > MAX_USED:
                self._used.popitem(last=False)

    def towards_phone(self, phone: Address) -> Address:
        """Our address for a phone: the one it sends to, if that is known."""
        used = self._used.get(phone) if self._used and not self.advertise else None
        return used or self.towards(phone[0])

    def towards(self, host: str) -> Address:
        """Our address for a peer at this IP address."""
        if self.advertise:
            return self.advertise
        if not self._wildcard:
            return self.listen
        now = time.monotonic()
        known = self._routes.get(host)
        if known and now - known[1] < CACHE_SECONDS:
            return known[0]
        if len(self._routes) >= MAX_CACHED:
            self._routes.clear()
        usual = usual_towards(host)
        if not usual:  # no file descriptor to ask the system with: use its last answer
            last = known or next(reversed(self._routes.values()), None)
            return last[0] if last else self.listen
        own = (usual, self.listen[1])
        self._routes[host] = (own, now)
        return own

    def is_own(self, address: Address) -> bool:
        """Does this address mean this forwarder, so that a message sent there would come back?
        Raises OSError, as is_here does."""
        host, port = address
        if address in (self.advertise, self.listen):
            return True
        for name, wanted in self.names:
            if host == name and port in ((wanted,) if wanted else self._default_ports):
                return True
        return (
            self._wildcard and port == self.listen[1] and literal(address) and self._is_here(host)
        )

    @property
    def _default_ports(self) -> tuple[int, ...]:
        """The ports that a name without a port may mean."""
        return DEFAULT_PORT, self.listen[1], *([self.advertise[1]] if self.advertise else [])

    def _is_here(self, host: str) -> bool:
        now = time.monotonic()
        known = self._here.get(host)
        if known and now - known[1] < CACHE_SECONDS:
            return known[0]
        if len(self._here) >= MAX_CACHED:
            self._here.clear()
        here = ip_address(host).is_loopback or is_here(host)
        self._here[host] = here, now
        return here


def is_here(host: str) -> bool:
    """Is this IP address one of this computer's? True if a UDP socket connected to it gets the same
    address as its source. An IPv4 socket is bound to it first, since towards an interface's second
    address, such as a virtual one, the system would prefer the first; the connect is needed too,
    since net.ipv4.ip_nonlocal_bind allows to bind any address.

    Raises OSError if there is no file descriptor to ask with, which says nothing of the address.
    """
    try:
        with socket.socket(family_of(host), socket.SOCK_DGRAM) as sock:
            if sock.family == socket.AF_INET:
                sock.bind((host, 0))
            sock.connect((host, 9))
            return str(sock.getsockname()[0]) == host
    except OSError as error:  # also where this computer has no IPv6
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        return False
