"""Which of this computer's addresses a peer sends to, on a socket that is bound to all of them.

The system sends from the address that its routing table prefers, which may be another one than the
peer has sent to. But an answer must leave from that one (RFC 3581 4), else NATs and firewalls drop
it. Linux reports the address with each datagram received, and accepts one with each datagram sent
(ip(7) IP_PKTINFO, RFC 3542 6).
"""

from __future__ import annotations

import socket
import struct
import sys
from collections import OrderedDict
from collections.abc import Callable

from plumbing.address import Address
from plumbing.udp_socket import family_of

Ancillary = tuple[int, int, bytes]
Noticed = Callable[[Address, str, bool], object]

IP_PKTINFO = 8  # Linux: struct in_pktinfo; in Python's socket module only since 3.14
IPV6_RECVPKTINFO, IPV6_PKTINFO = 49, 50  # Linux: struct in6_pktinfo
OPTION = {
    socket.AF_INET: (socket.IPPROTO_IP, IP_PKTINFO),
    socket.AF_INET6: (socket.IPPROTO_IPV6, IPV6_RECVPKTINFO),
}
CONTROL = 64  # octets of ancillary data: room for either struct with its header
HEADER = struct.calcsize("@Nii")  # struct cmsghdr
# The local address in the ancillary data: ipi_spec_dst, and ipi6_addr.
FIELD = {
    socket.AF_INET: slice(HEADER + 4, HEADER + 8),
    socket.AF_INET6: slice(HEADER, HEADER + 16),
}
MAX_PEERS = 65_536


def can_tell(sock: socket.socket) -> bool:
    """Is the socket bound to all addresses, on a system that reports which one was used?"""
    host = sock.getsockname()[0]
    return sys.platform == "linux" and host in ("0.0.0.0", "::")


class LocalAddresses:
    """The local addresses that one socket's peers send to. `noticed(peer, local, again)` is called
    when a peer uses another address of ours than the system would send from, with "" once it uses
    the system's choice again; `again`: the peer had used another one before.

    Each table drops its oldest entry when it is full, so that strangers, who may have any number of
    ports, cannot empty it at once. The peers in `unlike` are dropped only for others like them."""

    def __init__(self, sock: socket.socket, noticed: Noticed) -> None:
        self.family = sock.family
        self.field = FIELD[self.family]
        self._noticed = noticed
        # The packed local address by peer. (A dict would search for its oldest entry, past all
        # that were deleted; an OrderedDict does not.)
        self.known: OrderedDict[Address, bytes] = OrderedDict()
        # Peers to which the system would send from another address: ancillary data for sendmsg.
        self.unlike: OrderedDict[Address, list[Ancillary]] = OrderedDict()
        self._usual: OrderedDict[str, str] = OrderedDict()  # the system's choice by peer's host
        sock.setsockopt(*OPTION[self.family], 1)

    def note(self, source: Address, packed: bytes) -> None:
        """Notes that a peer has sent to this address of ours, and not to the one it used before."""
        if len(packed) != self.field.stop - self.field.start:
            return
        again = source in self.known
        self.known[source] = packed
        if len(self.known) > MAX_PEERS:
            self.known.popitem(last=False)
        local, host = socket.inet_ntop(self.family, packed), source[0]
        usual = self._usual.get(host) or usual_towards(host)
        self._usual[host] = usual
        if len(self._usual) > MAX_PEERS:
            self._usual.popitem(last=False)
        before = self.unlike.pop(source, None)
        if local == usual or not usual:
            if before:
                self._noticed(source, "", True)
            return
        told = self.unlike[source] = [self._ancillary(packed)]  # the newest again
        if len(self.unlike) > MAX_PEERS:
            forgotten, _ = self.unlike.popitem(last=False)
            self.known.pop(forgotten, None)  # so that its next datagram is noted
        self._noticed(source, local, again or before not in (None, told))

    def note_ancillary(self, source: Address, told: list[Ancillary]) -> None:
        """Notes the address in the ancillary data that recvmsg returned."""
        for _, _, data in told:
            packed = data[self.field.start - HEADER : self.field.stop - HEADER]
            if self.known.get(source) != packed:
                self.note(source, packed)

    def _ancillary(self, packed: bytes) -> Ancillary:
        """The ancillary data that makes sendmsg send from this address."""
        if self.family == socket.AF_INET:
            return socket.IPPROTO_IP, IP_PKTINFO, bytes(4) + packed + bytes(4)
        return socket.IPPROTO_IPV6, IPV6_PKTINFO, packed + bytes(4)


def usual_towards(host: str) -> str:
    """The address that the system sends from to a peer; loopback's if no route leads there; "" if
    there is no file descriptor left to ask with. Connecting a UDP socket makes the system choose,
    and sends nothing."""
    try:
        sock = socket.socket(family_of(host), socket.SOCK_DGRAM)
    except OSError:
        return ""
    with sock:
        try:
            sock.connect((host, 9))
        except OSError:
            return "::1" if ":" in host else "127.0.0.1"
        return str(sock.getsockname()[0])
