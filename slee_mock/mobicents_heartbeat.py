"""The client of Mobicents' SIP heartbeat: registers this server at forwarders, and tells them when
it leaves.

OPTIONS with `Mobicents-Heartbeat: 1` and a Java properties text, every few seconds, to each
registration address; with GRACEFUL_SHUTDOWN=true once the server leaves. Works on the `sip` thread,
each forwarder on a socket of its own.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Sequence

from plumbing.address import Address, format_address
from plumbing.event_loop import Loop
from plumbing.udp_socket import bind_udp, connect_udp
from sip import VERSION
from sip.errors import RemoteProtocolError
from sip.message import Request, Response, parse

log = logging.getLogger(__name__)

REPEAT_LEAVE_SECONDS = 0.25  # after which a leave that was not answered is said again
UNANSWERED_LEAVE_SECONDS = 1.5  # after which a forwarder that answers no leave is taken for gone


class Heartbeats:
    """The heartbeats for one forwarder; no socket. They share a Call-ID and their CSeq grows, so
    the forwarder recognises one that the network delivers late."""

    def __init__(
        self, name: str, server: Address, forwarder: Address, own: Address, token: str
    ) -> None:
        self._name, self._server, self._forwarder = name, server, forwarder
        self._own, self._token = own, token
        self._number = 0

    def next(self, leaving: bool = False) -> bytes:
        """Makes the next heartbeat."""
        self._number += 1
        there, own = format_address(self._forwarder), format_address(self._own)
        fields = [
            ("Via", f"SIP/2.0/UDP {own};rport;branch=z9hG4bK{self._token}.{self._number}"),
            ("Max-Forwards", "70"),
            ("From", f"<sip:server@{own}>;tag={self._token[:8]}"),
            ("To", f"<sip:{there}>"),
            ("Call-ID", f"{self._token}@{self._own[0]}"),
            ("CSeq", f"{self._number} OPTIONS"),
            ("User-Agent", f"call-failover-slee/{VERSION}"),
            ("Mobicents-Heartbeat", "1"),
            ("Content-Type", "text/plain"),
        ]
        lines = [
            f"hostname={_escaped(self._name)}",
            f"ip={self._server[0]}",
            f"udpPort={self._server[1]}",
        ]
        if leaving:
            lines.append("GRACEFUL_SHUTDOWN=true")
        body = "".join(f"{line}\n" for line in lines).encode("ascii")
        return Request("OPTIONS", f"sip:{there}", fields, body).to_bytes()

    def answer(self, data: bytes) -> Response | None:
        """The final response to the last heartbeat, if that is what came."""
        try:
            message = parse(data)
            known = (f"{self._token}@{self._own[0]}", self._number)
            if (message.call_id, message.cseq.number) != known:
                return None
        except RemoteProtocolError:
            return None
        return message if isinstance(message, Response) and message.status >= 200 else None


class _Link:
    """The socket to one forwarder. `answered`: its last heartbeat was; `state`: as logged last."""

    def __init__(self, name: str, server: Address, forwarder: Address) -> None:
        self.forwarder = forwarder
        self.sock = connect_udp(bind_udp((server[0], 0)), forwarder)
        own = self.sock.getsockname()[:2]
        self.heartbeats = Heartbeats(name, server, forwarder, own, secrets.token_hex(16))
        self.answered = True
        self.state = ""

    def beat(self, leaving: bool) -> None:
        if not self.answered:
            self._note(logging.WARNING, "does not answer registrations")
        self.answered = False
        try:
            self.sock.send(self.heartbeats.next(leaving))
        except OSError:  # nobody listens there yet, or the network is away: the next one tells
            return

    def hear(self) -> None:
        try:
            answer = self.heartbeats.answer(self.sock.recv(65_535))
        except OSError:
            return
        if answer:
            self.answered = True
            if answer.status == 200:
                self._note(logging.WARNING if self.state else logging.INFO, "knows this server")
            else:
                self._note(
                    logging.WARNING, f"refuses registrations: {answer.status} {answer.reason}"
                )

    def _note(self, level: int, state: str) -> None:
        """Logs a change, once."""
        if state != self.state:
            self.state = state
            log.log(level, "the forwarder at %s %s", format_address(self.forwarder), state)


class HeartbeatClient:
    """Sends the heartbeats, on the loop's thread. `server`: where the forwarders are to send to."""

    def __init__(
        self, loop: Loop, name: str, server: Address, forwarders: Sequence[Address], interval: float
    ) -> None:
        self._loop, self._interval = loop, interval
        self._left: float | None = None  # monotonic
        self._links: list[_Link] = []
        try:
            for forwarder in forwarders:
                self._links.append(_Link(name, server, forwarder))
        except OSError:
            self.close()
            raise

    def start(self) -> None:
        for link in self._links:
            self._loop.watch(link.sock, link.hear)
        self._beat()

    def leave(self) -> None:
        """Sends GRACEFUL_SHUTDOWN now, and again until it is answered."""
        self._left = time.monotonic()
        self._say_leave(self._links)

    def has_left(self) -> bool:
        """Has every forwarder answered the last heartbeat, or gone?"""
        if all(link.answered for link in self._links):
            return True
        return self._left is not None and time.monotonic() - self._left > UNANSWERED_LEAVE_SECONDS

    def close(self) -> None:
        for link in self._links:
            link.sock.close()

    def _beat(self) -> None:
        if self._left is None:
            self._loop.at(time.monotonic() + self._interval, self._beat)
            for link in self._links:
                link.beat(leaving=False)

    def _say_leave(self, links: Sequence[_Link]) -> None:
        for link in links:
            link.beat(leaving=True)
        self._loop.at(time.monotonic() + REPEAT_LEAVE_SECONDS, self._leave_again)

    def _leave_again(self) -> None:
        self._say_leave([link for link in self._links if not link.answered])


def _escaped(text: str) -> str:
    """Escapes a value of a properties text, in ASCII (java.util.Properties.load)."""
    units = text.replace("\\", "\\\\").encode("utf-16-be", "replace")
    codes = [int.from_bytes(units[at : at + 2], "big") for at in range(0, len(units), 2)]
    return "".join(chr(code) if 32 < code < 127 else f"\\u{code:04x}" for code in codes)
