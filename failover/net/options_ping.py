"""Heartbeats: SIP OPTIONS to a server on a connected socket of its own, many times a second.

Any SIP response to one is life; 503 is life that wants no new calls. A response counts while its
heartbeat is young, so that what a frozen server says about old ones when it thaws proves nothing. A
header field of its own, Failover-Role, tells a server that wants to know whether new calls go to
it; all others ignore it (RFC 3261 8.2.2).
"""

from __future__ import annotations

import socket
from contextlib import suppress
from ipaddress import ip_address
from typing import NamedTuple

from failover.net.sockets import is_here
from plumbing.address import Address, format_address
from plumbing.udp_socket import bind_udp, connect_udp
from sip import VERSION
from sip.errors import RemoteProtocolError
from sip.message import Response, parse

MAX_DATAGRAM = 65_535
DOUBT = 0.3  # of the patience, which is a little more than until a silent server is down
BURST = 64  # datagrams taken at once before others have their turn
NOT_NOW = 503  # RFC 3261 21.5.4: the server is up and wants no more work


class Answer(NamedTuple):
    """`asked` is when the heartbeat that this answers was sent."""

    asked: float
    status: int


class Script:
    """What is said and what counts as an answer; no socket. `token` makes the Call-ID one that
    cannot be guessed; `hops`: how far it may be passed on."""

    def __init__(self, server: Address, own: Address, token: str, hops: int = 70) -> None:
        self._call_id = f"{token}@{own[0]}"
        self._head = (
            f"OPTIONS sip:{format_address(server)} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {format_address(own)};rport;branch=z9hG4bK{token}"
        )
        self._tail = (
            f"Max-Forwards: {hops}\r\n"
            f"From: <sip:forwarder@{format_address(own)}>;tag={token[:8]}\r\n"
            f"To: <sip:{format_address(server)}>\r\n"
            f"Call-ID: {self._call_id}\r\n"
            f"User-Agent: call-failover/{VERSION}\r\n"
        )
        self._number = 0
        self._asked: dict[int, float] = {}

    def ask(self, now: float, patience: float, role: str = "") -> bytes:
        """The next heartbeat, which tells the server its role. Those asked more than `patience`
        seconds ago no longer count."""
        self._asked = {number: at for number, at in self._asked.items() if now - at <= patience}
        self._number += 1
        self._asked[self._number] = now
        told = f"Failover-Role: {role}\r\n" if role else ""
        cseq = f"CSeq: {self._number} OPTIONS\r\n"
        said = f"{self._head}.{self._number}\r\n{self._tail}{cseq}{told}Content-Length: 0\r\n\r\n"
        return said.encode("ascii")

    def answer(self, data: bytes, now: float, patience: float) -> Answer | None:
        """What a datagram answers; None for anything but the first answer to a heartbeat that still
        counts."""
        try:
            message = parse(data)
            if not isinstance(message, Response) or message.call_id != self._call_id:
                return None
            asked = self._asked.pop(message.cseq.number, None)
        except RemoteProtocolError:
            return None
        if asked is None or now - asked > patience:
            return None
        return Answer(asked, message.status)


class Heartbeat:
    """The script on its sockets, `socks`. A computer that refuses shows as ConnectionError, out of
    either method.

    They leave from the address that the forwarder listens on, as all else does, for a server's
    firewall may let in nothing else. An address that may be another computer's as well (a virtual
    one, of which both hosts are sure while they do not hear each other) may be heard from and get
    no answer: then every second one leaves from the system's choice, until the first is answered
    again.
    """

    def __init__(self, server: Address, token: str, host: str) -> None:
        """`host`: what the forwarder listens on. Where that is every address, or cannot reach the
        server, or is another computer's now, the system chooses. Raises OSError where the server's
        address cannot be reached."""
        self.socks = _connected(host, server)
        self._script = Script(server, self.socks[0].getsockname()[:2], token)
        self._silent: float | None = None  # since when the first has no answer
        self._turn = 0

    @property
    def host(self) -> str:
        """Where they leave from."""
        return str(self.socks[0].getsockname()[0])

    def ask(self, now: float, patience: float, role: str) -> None:
        """Sends the next one. Raises OSError (ConnectionError where the server's computer
        refuses)."""
        silent = self._silent is not None and now - self._silent > patience * DOUBT
        self._turn = (self._turn + 1) % len(self.socks) if silent else 0
        if self._silent is None:
            self._silent = now
        self.socks[self._turn].send(self._script.ask(now, patience, role))

    def hear(self, now: float, patience: float) -> list[Answer]:
        """What has come. Raises OSError as `ask` does."""
        answers = []
        for sock in self.socks:
            for _ in range(BURST):
                try:
                    data = sock.recv(MAX_DATAGRAM)
                except BlockingIOError:
                    break
                answer = self._script.answer(data, now, patience)
                if answer:
                    answers.append(answer)
                    self._silent = None if sock is self.socks[0] else self._silent
        return answers

    def close(self) -> None:
        for sock in self.socks:
            sock.close()


def _connected(host: str, server: Address) -> list[socket.socket]:
    """One at any port of `host`, if that can be, and one of the system's choice, if that may be
    needed."""
    anywhere = "::" if ":" in server[0] else "0.0.0.0"
    first = None
    # where addresses that are not may be bound, answers would go to another computer
    if is_here(host):
        with suppress(OSError):
            first = connect_udp(bind_udp((host, 0)), server)
    if first and ip_address(host).is_loopback:
        return [first]
    try:
        second = connect_udp(bind_udp((anywhere, 0)), server)
    except OSError:
        if not first:
            raise
        return [first]
    if first and first.getsockname()[0] == second.getsockname()[0]:
        second.close()
        return [first]
    return [first, second] if first else [second]
