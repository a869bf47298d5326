"""The forwarder's SIP sockets: one for the phones, and one connected to each server.

All of them are bound to the same address (on Linux):

  1. The phones' socket is bound exclusively, so that a second forwarder fails to bind, and gets
     SO_REUSEADDR after that.
  2. A server's socket is bound with SO_REUSEADDR and connected to its server. The kernel delivers
     to a connected socket what its peer sends, and to the phones' socket everything else.

So the socket tells the direction of a message, nobody can send from another address in a server's
name, and the ICMP error of a killed server arrives on its own socket as ConnectionRefusedError.

Traps

  Between its bind and its connect, a server's socket may receive a phone's datagram: open_side
  returns what has come until then. If the listen address cannot reach the server (loopback, for a
  server elsewhere), or on other systems, a server's socket has a port of its own; then the server's
  requests arrive on the phones' socket and are recognised by their source address (relay.py).
"""

from __future__ import annotations

import errno
import socket
import sys
import time
from collections.abc import Callable
from typing import TypeVar

from failover.net.options_ping import PingSockets
from failover.upstream.check_schedule import CheckSchedule
from failover.upstream.server_table import Server
from plumbing.address import Address, format_address
from plumbing.udp_batch import Channel, Datagram
from plumbing.udp_socket import bind_udp, connect_udp, family_of

SHARES_PORTS = sys.platform == "linux"
# Octets. A larger buffer loses as many messages under overload, and delays the others until their
# senders repeat them (T1, 0.5 s). Measured at twice the load that can be served: the median answer
# took 0.05 s with 1 MB, 0.2 to 0.33 s with 4 MB.
PHONES_BUFFER = 1 << 20
MAX_DATAGRAM = 65_535  # octets
# Linux: IP_RECVERR and IPV6_RECVERR
RECEIVE_ERRORS = {
    socket.AF_INET: (socket.IPPROTO_IP, 11),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 25),
}
MAX_ICMP_ERRORS = 256  # read at once
MIN_QUOTED = 8  # octets of the datagram in an ICMP error (RFC 792)
MAX_QUOTED = 2048  # more than any ICMP error quotes (RFC 1812 4.3.2.3)
EXTRA_PORTS = 9  # above the configured one, tried by a second forwarder on the same computer
T = TypeVar("T")


class ServerLink:
    """The sockets of one server, and when to ping it (health_checker.py).

    `ping` and `channel` are None while they cannot be opened; server_links.py tries again, and the
    server is DOWN meanwhile. `channel`, the server's side, is open only while the forwarder is
    active.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.schedule = CheckSchedule(time.monotonic())
        self.ping: PingSockets | None = None
        self.channel: Channel | None = None
        self.handled = 0  # server.handled when it last sent something
        self.error = ""  # the last one of opening or using the sockets; "" after an answered ping
        # A ping could not be sent, or the shared address has come or gone: the sockets may be bound
        # to an address that this computer no longer has.
        self.rebind = False


def first_free(wanted: Address, extra: int, open_at: Callable[[Address], T]) -> T:
    """Opens the first free port, the wanted one or one of `extra` above it, by `open_at`, and
    returns its result. Raises OSError, as `open_at` does."""
    host, port = wanted
    last = min(port + extra, 65_535)
    while True:
        try:
            return open_at((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or port >= last:
                raise
        port += 1


def open_phones(listen: Address) -> socket.socket:
    """The phones' socket. Raises OSError naming the address, as when another program has it."""
    sock = bind_udp(listen, receive_buffer=PHONES_BUFFER)
    if SHARES_PORTS:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(*RECEIVE_ERRORS[sock.family], 1)
    return sock


def icmp_errors(sock: socket.socket) -> list[Datagram]:
    """The beginnings of sent datagrams that a peer's computer refused, or a router could not
    deliver, each with its target. From Linux's error queue (ip(7), IP_RECVERR); empty elsewhere."""
    found: list[Datagram] = []
    # Two calls for each entry, since the system may raise the error before it returns the entry.
    # The number is bounded, too, because a closed socket raises for ever.
    for _ in range(2 * MAX_ICMP_ERRORS if SHARES_PORTS else 0):
        try:
            data, _, _, target = sock.recvmsg(
                MAX_QUOTED, MAX_QUOTED, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT
            )
        except BlockingIOError:
            break
        except OSError:
            continue
        if len(data) >= MIN_QUOTED:
            found.append((data, target[:2]))
    return found


def open_side(listen: Address, server: Address) -> tuple[socket.socket, list[Datagram]]:
    """A socket connected to the server, and the datagrams from others that it received before it
    was connected. Raises OSError where the server's address cannot be reached."""
    if SHARES_PORTS:
        try:
            return _connected(bind_udp(listen, share=True), server)
        except OSError:
            pass  # the listen address cannot reach the server
    return _connected(bind_udp(("::" if ":" in server[0] else "0.0.0.0", 0)), server)


def check_family(listen: Address, server: Address) -> None:
    """Raises OSError unless both are IPv4 or both IPv6: the server's answers would go to an address
    where nobody listens."""
    if family_of(listen[0]) != family_of(server[0]):
        text = f"not of the family of {format_address(listen)} ({format_address(server)})"
        raise OSError(errno.EAFNOSUPPORT, text)


def _connected(sock: socket.socket, server: Address) -> tuple[socket.socket, list[Datagram]]:
    connect_udp(sock, server)
    landed: list[Datagram] = []
    while True:
        try:
            data, source = sock.recvfrom(MAX_DATAGRAM)
        except (BlockingIOError, ConnectionError):
            return sock, landed
        landed.append((data, source[:2]))


def queued(sock: socket.socket, most: int) -> list[Datagram]:
    """The datagrams that a socket has received, without the errors between them."""
    found: list[Datagram] = []
    for _ in range(most):
        try:
            data, source = sock.recvfrom(MAX_DATAGRAM)
        except BlockingIOError:
            break
        except OSError:
            continue
        found.append((data, source[:2]))
    return found
