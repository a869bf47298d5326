"""OPTIONS pings: a SIP request that asks a server whether it lives, many times a second. (Settings
and log lines call them heartbeats.)

Any response proves life; 503 means alive, but no new calls. A response counts only for `patience`
seconds after its request, so that the answers which a frozen server sends when it continues prove
nothing. The header field Failover-Role tells a server that wants to know it whether new calls go to
it; all others ignore it (RFC 3261 8.2.2).
"""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from ipaddress import ip_address
from typing import NamedTuple

from failover.net.own_address import is_here
from plumbing.address import Address, format_address
from plumbing.udp_socket import bind_udp, connect_udp
from sip import VERSION
from sip.errors import RemoteProtocolError
from sip.message import Response, parse

MAX_DATAGRAM = 65_535  # octets
MAX_PER_TURN = 64  # datagrams read before other sockets have their turn
SILENCE_SHARE = 0.3  # of `patience`, which is a little more than the time until a server is DOWN
# what a send fails with until the forwarder has noticed that its virtual address is gone
ADDRESS_HAS_LEFT = {errno.EADDRNOTAVAIL, errno.EINVAL, errno.ENETUNREACH}
SERVICE_UNAVAILABLE = 503  # RFC 3261 21.5.4: the server is up and accepts no new calls


class Answer(NamedTuple):
    asked: float  # when the request was sent
    status: int


class OptionsPing:
    """Writes the requests and recognises the responses; no socket. `token` makes the Call-ID
    unguessable; `max_forwards`: how many proxies may pass the request on."""

    def __init__(self, server: Address, own: Address, token: str, max_forwards: int = 70) -> None:
        self._call_id = f"{token}@{own[0]}"
        self._head = (
            f"OPTIONS sip:{format_address(server)} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {format_address(own)};rport;branch=z9hG4bK{token}"
        )
        self._tail = (
            f"Max-Forwards: {max_forwards}\r\n"
            f"From: <sip:forwarder@{format_address(own)}>;tag={token[:8]}\r\n"
            f"To: <sip:{format_address(server)}>\r\n"
            f"Call-ID: {self._call_id}\r\n"
            f"User-Agent: call-failover/{VERSION}\r\n"
        )
        self._cseq = 0
        self._pending: dict[int, float] = {}  # CSeq -> when sent

    def request(self, now: float, patience: float, role: str = "") -> bytes:
        """The next request. Requests older than `patience` seconds are forgotten."""
        self._pending = {cseq: at for cseq, at in self._pending.items() if now - at <= patience}
        self._cseq += 1
        self._pending[self._cseq] = now
        role_line = f"Failover-Role: {role}\r\n" if role else ""
        return (
            f"{self._head}.{self._cseq}\r\n{self._tail}CSeq: {self._cseq} OPTIONS\r\n"
            f"{role_line}Content-Length: 0\r\n\r\n"
        ).encode("ascii")

    def response(self, data: bytes, now: float, patience: float) -> Answer | None:
        """The first response to a pending request; None for any other datagram."""
        try:
            message = parse(data)
            if not isinstance(message, Response) or message.call_id != self._call_id:
                return None
            asked = self._pending.pop(message.cseq.number, None)
        except RemoteProtocolError:
            return None
        if asked is None or now - asked > patience:
            return None
        return Answer(asked, message.status)


class PingSockets:
    """The one or two sockets over which one server is pinged.

    A server's firewall may admit only the address that the forwarder listens on, so pings leave
    from there. But a virtual address may be on two computers while they do not hear each other, and
    then the answers may go to the other one. So, while the first socket gets no answer, every
    second ping leaves from the second one, which is bound to the address that the system prefers;
    and so does one that the first socket cannot send because its address has left.
    """

    def __init__(self, server: Address, token: str, listen_host: str) -> None:
        """Raises OSError where the server's address cannot be reached."""
        self.socks = _connected(listen_host, server)
        self._ping = OptionsPing(server, self.socks[0].getsockname()[:2], token)
        self._silent_since: float | None = None  # of the first socket
        self._turn = 0

    @property
    def host(self) -> str:
        """The source address of the first socket."""
        return str(self.socks[0].getsockname()[0])

    def send(self, now: float, patience: float, role: str) -> None:
        """Raises OSError (ConnectionError: the server's computer has refused an earlier one)."""
        since = self._silent_since
        silent = since is not None and now - since > patience * SILENCE_SHARE
        self._turn = (self._turn + 1) % len(self.socks) if silent else 0
        if since is None:
            self._silent_since = now
        request = self._ping.request(now, patience, role)
        try:
            self.socks[self._turn].send(request)
        except OSError as error:
            if error.errno not in ADDRESS_HAS_LEFT or self._turn == len(self.socks) - 1:
                raise
            self.socks[-1].send(request)

    def receive(self, now: float, patience: float) -> list[Answer]:
        """The answers that have come. Raises OSError as `send` does."""
        answers = []
        for sock in self.socks:
            for _ in range(MAX_PER_TURN):
                try:
                    data = sock.recv(MAX_DATAGRAM)
                except BlockingIOError:
                    break
                answer = self._ping.response(data, now, patience)
                if answer:
                    answers.append(answer)
                    if sock is self.socks[0]:
                        self._silent_since = None
        return answers


def _connected(listen_host: str, server: Address) -> list[socket.socket]:
    """A socket bound to `listen_host`, if that is this computer's and reaches the server; and one
    bound to the address that the system prefers, if that is another and may be needed."""
    wildcard = "::" if ":" in server[0] else "0.0.0.0"
    first = None
    if is_here(listen_host):  # binding alone proves nothing (net.ipv4.ip_nonlocal_bind)
        with suppress(OSError):
            first = connect_udp(bind_udp((listen_host, 0)), server)
    if first and ip_address(listen_host).is_loopback:
        return [first]
    try:
        second = connect_udp(bind_udp((wildcard, 0)), server)
    except OSError:
        if not first:
            raise
        return [first]
    if first and first.getsockname()[0] == second.getsockname()[0]:
        second.close()
        return [first]
    return [first, second] if first else [second]
