"""The local host for a phone: its own IP address, the look-up of names, and the detection of a
suspend."""

from __future__ import annotations

import socket
import time

from plumbing.address import Address
from plumbing.udp_socket import family_of

ASLEEP = 5.0  # seconds by which another clock must gain on ours to call it a sleep


def resolved(address: Address, family: socket.AddressFamily) -> Address:
    """A proxy may be named; its address is looked up once, here, and never on the message path."""
    host, port = address
    try:
        found = socket.getaddrinfo(host, port, family, socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:  # the latter: an empty or too long part of the name
        reason = getattr(error, "strerror", None) or error
        sentence = f"the server {host} cannot be found from here ({reason})"
        raise OSError(socket.EAI_NONAME, sentence) from error
    return str(found[0][4][0]), port


def own_host(bound: str, towards: Address | None) -> str | None:
    """The host others can send to. Bound to all addresses, it is the one this computer would use
    towards the proxy or the other phone; None while there is no way there, as before the network
    is up."""
    if bound not in ("0.0.0.0", "::"):
        return bound
    there = towards if towards and family_of(towards[0]) is family_of(bound) else None
    there = there or (("192.0.2.1", 5060) if bound == "0.0.0.0" else ("2001:db8::1", 5060))
    with socket.socket(family_of(bound), socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(there)  # UDP: nothing is sent
        except (OSError, TypeError, ValueError):  # the latter two: no address that could be written
            return None
        return str(sock.getsockname()[0])


def nowhere(bound: str) -> str:
    """The own host of a computer without a network."""
    return "::1" if ":" in bound else "127.0.0.1"


class SuspendDetector:
    """Notices that the computer has slept: the clock of our timers stands still meanwhile, the time
    of day goes on. (That somebody sets the time of day forward counts as sleep, which does no
    harm.)"""

    def __init__(self) -> None:
        self._ahead = time.time() - time.monotonic()

    def slept(self) -> bool:
        """Has it slept since this was last asked?"""
        before, self._ahead = self._ahead, time.time() - time.monotonic()
        return self._ahead - before > ASLEEP
