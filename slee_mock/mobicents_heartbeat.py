"""Tells forwarders that this server is there, and when it leaves: Mobicents' SIP heartbeat, from
the server's side.

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

LEAVING_AGAIN = 0.25  # seconds after which a leave that was not answered is said again
MOST_OWED = 10_000


class Script:
    """What is said to one forwarder; no socket. One Call-ID for a server's life, in which the CSeq
    grows: so an old datagram of ours that comes again is known as one."""

    def __init__(
        self, name: str, server: Address, forwarder: Address, own: Address, token: str
    ) -> None:
        self._name, self._server, self._forwarder, self._own, self._token = (
            name,
            server,
            forwarder,
            own,
            token,
        )
        self._number = 0

    def beat(self, leaving: bool = False) -> bytes:
        """The next heartbeat."""
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
        said = {"hostname": _escaped(self._name), "ip": self._server[0], "udpPort": self._server[1]}
        lines = [f"{key}={value}" for key, value in said.items()] + [
            "GRACEFUL_SHUTDOWN=true"
        ] * leaving
        return Request(
            "OPTIONS", f"sip:{there}", fields, "\n".join([*lines, ""]).encode("ascii")
        ).to_bytes()

    def answer(self, data: bytes) -> Response | None:
        """The response to the last heartbeat, if that is what came."""
        try:
            message = parse(data)
            if (
                isinstance(message, Response)
                and message.cseq.number == self._number
                and message.status >= 200
            ):
                return message if message.call_id == f"{self._token}@{self._own[0]}" else None
        except RemoteProtocolError:
            pass
        return None


class _Line:
    """The way to one forwarder. `answered`: its last heartbeat was; `state`: what was logged
    last."""

    def __init__(self, name: str, server: Address, forwarder: Address) -> None:
        self.forwarder = forwarder
        self.sock = connect_udp(bind_udp((server[0], 0)), forwarder)
        own = self.sock.getsockname()[:2]
        # A server that listens on every address names the one from which the forwarder hears it.
        host = own[0] if server[0] in ("0.0.0.0", "::") else server[0]
        self.script = Script(name, (host, server[1]), forwarder, own, secrets.token_hex(16))
        self.answered = True
        self.state = ""

    def beat(self, leaving: bool) -> None:
        if not self.answered:
            self._note(logging.WARNING, "does not answer registrations")
        self.answered = False
        try:
            self.sock.send(self.script.beat(leaving))
        except OSError:  # nobody listens there yet, or the network is away: the next one tells
            return

    def hear(self) -> None:
        try:
            answer = self.script.answer(self.sock.recv(65_535))
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
        """What has changed, once."""
        if state != self.state:
            self.state = state
            log.log(level, "the forwarder at %s %s", format_address(self.forwarder), state)


class Enrolment:
    """Owned by the loop's thread. `server` is where the forwarders are to send to."""

    def __init__(
        self, loop: Loop, name: str, server: Address, forwarders: Sequence[Address], interval: float
    ) -> None:
        self._loop, self._interval = loop, interval
        self._leaving = False
        self._lines: list[_Line] = []
        try:
            for forwarder in forwarders:
                self._lines.append(_Line(name, server, forwarder))
        except OSError:
            self.close()
            raise

    def start(self) -> None:
        for line in self._lines:
            self._loop.watch(line.sock, line.hear)
        self._beat()

    def leave(self) -> None:
        """Says so at once, and again until it is answered."""
        if not self._leaving:
            self._leaving = True
            for line in self._lines:
                line.beat(leaving=True)
            self._loop.at(time.monotonic() + LEAVING_AGAIN, self._leave_again)

    @property
    def heard(self) -> bool:
        """Every forwarder has answered the last heartbeat."""
        return all(line.answered for line in self._lines)

    def close(self) -> None:
        for line in self._lines:
            line.sock.close()

    def _beat(self) -> None:
        if not self._leaving:
            self._loop.at(time.monotonic() + self._interval, self._beat)
            for line in self._lines:
                line.beat(leaving=False)

    def _leave_again(self) -> None:
        self._loop.at(time.monotonic() + LEAVING_AGAIN, self._leave_again)
        for line in self._lines:
            if not line.answered:
                line.beat(leaving=True)


class Owed:
    """Requests that were passed on and have no final answer yet: what a server that leaves waits
    for. Pure."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, int, str], None] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def note(self, message: Request | Response, sends: Sequence[bytes]) -> None:
        """`sends` is what the message caused. A request that was answered here, or not at all, is
        not owed."""
        key = (message.call_id, message.cseq.number, message.cseq.method)
        if isinstance(message, Response):
            if message.status >= 200:
                self._waiting.pop(key, None)
        elif message.method != "ACK" and any(not data.startswith(b"SIP/2.0") for data in sends):
            self._waiting[key] = None
            if len(self._waiting) > MOST_OWED:
                del self._waiting[next(iter(self._waiting))]


def _escaped(text: str) -> str:
    """A value of a properties text, in ASCII (java.util.Properties.load)."""
    units = text.replace("\\", "\\\\").encode("utf-16-be", "replace")
    codes = [int.from_bytes(units[at : at + 2], "big") for at in range(0, len(units), 2)]
    return "".join(chr(code) if 32 < code < 127 else f"\\u{code:04x}" for code in codes)
