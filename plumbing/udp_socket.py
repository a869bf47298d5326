"""UDP sockets with the options that all our programs use."""

from __future__ import annotations

import contextlib
import socket
import sys

from plumbing.address import Address, format_address

RECEIVE_BUFFER = 4 << 20  # octets; the default buffer lost 2-3 % of a burst, this one none
SO_RCVBUFFORCE = 33  # Linux, socket(7): exceeds net.core.rmem_max, for root


def family_of(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def bind_udp(
    address: Address, share: bool = False, receive_buffer: int = RECEIVE_BUFFER
) -> socket.socket:
    """A non-blocking UDP socket bound to `address`; `share` lets other sockets of the same address
    join (SO_REUSEADDR).

    Raises OSError whose text names the address.
    """
    sock = socket.socket(family_of(address[0]), socket.SOCK_DGRAM)
    try:
        if share:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        elif hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows, where the default is to share
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        _set_receive_buffer(sock, receive_buffer)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise OSError(
            error.errno, f"{error.strerror or error} ({format_address(address)})"
        ) from error
    return sock


def connect_udp(sock: socket.socket, peer: Address) -> socket.socket:
    """Connects the socket, so that it receives from `peer` only, and returns it. Where no route
    leads there, closes it and raises OSError."""
    try:
        sock.connect(peer)
    except OSError:
        sock.close()
        raise
    return sock


def _set_receive_buffer(sock: socket.socket, octets: int) -> None:
    """Sets the receive buffer to `octets`, or to as many as the system allows."""
    for option in (
        (SO_RCVBUFFORCE, socket.SO_RCVBUF) if sys.platform == "linux" else (socket.SO_RCVBUF,)
    ):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, option, octets)
            return
