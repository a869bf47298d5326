"""Heartbeats: SIP OPTIONS to a server on a connected socket of its own, many times a second.

Any SIP response to one is life; 503 is life that wants no new calls. A response counts while its heartbeat is young, so
that what a frozen server says about old ones when it thaws proves nothing. A header field of its own, Failover-Role,
tells a server that wants to know whether new calls go to it; all others ignore it (RFC 3261 8.2.2).
"""

from __future__ import annotations

import socket
from typing import NamedTuple

from failover.legs import is_here
from plumbing.address import Address, format_address
from plumbing.udp import bind_udp
from sip import VERSION
from sip.errors import RemoteProtocolError
from sip.message import Response, parse

MAX_DATAGRAM = 65_535
BURST = 64  # datagrams taken at once before others have their turn
NOT_NOW = 503  # RFC 3261 21.5.4: the server is up and wants no more work


class Answer(NamedTuple):
    """`asked` is when the heartbeat that this answers was sent."""

    asked: float
    status: int


class Script:
    """What is said and what counts as an answer; no socket. `token` makes the Call-ID one that cannot be guessed;
    `hops`: how far it may be passed on."""

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
        """The next heartbeat, which tells the server its role. Those asked more than `patience` seconds ago no longer
        count."""
        self._asked = {number: at for number, at in self._asked.items() if now - at <= patience}
        self._number += 1
        self._asked[self._number] = now
        told = f"Failover-Role: {role}\r\n" if role else ""
        cseq = f"CSeq: {self._number} OPTIONS\r\n"
        return f"{self._head}.{self._number}\r\n{self._tail}{cseq}{told}Content-Length: 0\r\n\r\n".encode("ascii")

    def answer(self, data: bytes, now: float, patience: float) -> Answer | None:
        """What a datagram answers; None for anything but the first answer to a heartbeat that still counts."""
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
    """The script on a socket. A computer that refuses shows as ConnectionError, out of either method."""

    def __init__(self, server: Address, token: str, host: str) -> None:
        """`host`: what the forwarder listens on. Heartbeats leave from there, for a server's firewall
        may let in nothing else; from the system's choice where `host` is every address, or cannot
        reach the server, or is another computer's now. Raises OSError where the server's address
        cannot be reached."""
        self.sock = _connected(host, server)
        self._script = Script(server, self.sock.getsockname()[:2], token)

    def ask(self, now: float, patience: float, role: str) -> None:
        """Sends the next one. Raises OSError (ConnectionError where the server's computer refuses)."""
        self.sock.send(self._script.ask(now, patience, role))

    def hear(self, now: float, patience: float) -> list[Answer]:
        """What has come. Raises OSError as `ask` does."""
        answers = []
        for _ in range(BURST):
            try:
                data = self.sock.recv(MAX_DATAGRAM)
            except BlockingIOError:
                break
            answer = self._script.answer(data, now, patience)
            if answer:
                answers.append(answer)
        return answers

    def close(self) -> None:
        self.sock.close()


def _connected(host: str, server: Address) -> socket.socket:
    """A socket at any port of `host`, or else of any address."""
    if is_here(host):  # where addresses that are not may be bound, answers would go to another computer
        try:
            return _connected_at(host, server)
        except OSError:
            pass
    return _connected_at("::" if ":" in server[0] else "0.0.0.0", server)


def _connected_at(host: str, server: Address) -> socket.socket:
    sock = bind_udp((host, 0))
    try:
        sock.connect(server)
    except OSError:
        sock.close()
        raise
    return sock
