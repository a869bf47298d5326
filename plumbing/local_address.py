"""Which of this computer's addresses a peer uses, on a socket that is bound to all of them.

The system sends from the address it likes best, which is not always the one that the peer has sent
to; an answer must come from there (RFC 3581 4), and NATs and firewalls drop any other. Linux tells
the address with each datagram, and takes one for each that is sent (ip(7) IP_PKTINFO, RFC 3542 6).
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

IP_PKTINFO = 8  # of Linux: struct in_pktinfo; Python names it since 3.14 only
IPV6_RECVPKTINFO, IPV6_PKTINFO = 49, 50  # struct in6_pktinfo
OPTION = {
    socket.AF_INET: (socket.IPPROTO_IP, IP_PKTINFO),
    socket.AF_INET6: (socket.IPPROTO_IPV6, IPV6_RECVPKTINFO),
}
CONTROL = 64  # octets for one of either kind with its header
HEADER = struct.calcsize("@Nii")  # struct cmsghdr
# Where the local address stands behind that header: spec_dst, and addr.
FIELD = {
    socket.AF_INET: slice(HEADER + 4, HEADER + 8),
    socket.AF_INET6: slice(HEADER, HEADER + 16),
}
MAX_PEERS = 65_536


def can_tell(sock: socket.socket) -> bool:
    """Is the socket bound to every address, on a system that tells which one was meant?"""
    host = sock.getsockname()[0]
    return sys.platform == "linux" and host in ("0.0.0.0", "::")


class LocalAddresses:
    """Of one socket's peers. `noticed(peer, local, again)` hears of a peer that uses another
    address of ours than the system would, or "" once it uses the system's again; `again`: it has
    used another one before.

    Of each thing the oldest is forgotten where there are too many, so that strangers, who may have
    any number of ports, do not make it forget all peers at once. Those that need the address are
    apart from the others, and are forgotten only for more of their kind."""

    def __init__(self, sock: socket.socket, noticed: Noticed) -> None:
        self.family = sock.family
        self.field = FIELD[self.family]
        self._noticed = noticed
        # By peer: the local address, packed. An OrderedDict finds its oldest at once, however many
        # are gone.
        self.known: OrderedDict[Address, bytes] = OrderedDict()
        # Those the system would send from elsewhere.
        self.unlike: OrderedDict[Address, list[Ancillary]] = OrderedDict()
        self._usual: OrderedDict[str, str] = OrderedDict()
        sock.setsockopt(*OPTION[self.family], 1)

    def note(self, source: Address, packed: bytes) -> None:
        """A peer has sent to this address of ours, which it did not the last time."""
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
        """The same out of recvmsg's second value."""
        for _, _, data in told:
            packed = data[self.field.start - HEADER : self.field.stop - HEADER]
            if self.known.get(source) != packed:
                self.note(source, packed)

    def _ancillary(self, packed: bytes) -> Ancillary:
        """For sendmsg: have it leave from there."""
        if self.family == socket.AF_INET:
            return socket.IPPROTO_IP, IP_PKTINFO, bytes(4) + packed + bytes(4)
        return socket.IPPROTO_IPV6, IPV6_PKTINFO, packed + bytes(4)


def usual_towards(host: str) -> str:
    """The address that the system uses towards a peer, that of loopback if no route leads there;
    "" if it has no descriptor to be asked with. Connecting a UDP socket sends nothing; it makes the
    system choose."""
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
