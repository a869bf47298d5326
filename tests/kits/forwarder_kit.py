"""What the forwarder's tests share: a core with two servers, the messages of a small call, and
servers that answer."""

from __future__ import annotations

import socket
import time
from contextlib import contextmanager

from failover.config.settings import FIRST_LIVE, ServerLine, read
from failover.forwarder import Forwarder
from failover.net.active_standby import ACTIVE, BOUND, HaState
from failover.proxy.core import Core
from failover.upstream.health import UP, Health
from failover.upstream.server_table import Server, ServerTable
from plumbing.address import format_address
from plumbing.event_loop import Loop
from plumbing.udp_socket import bind_udp, family_of

KEY = b"a key for the tests only"
OWN = ("192.0.2.1", 5060)
ALICE = ("192.0.2.7", 5060)
BOB = ("192.0.2.8", 5060)
ACTIVE_ONE = HaState(format_address(OWN), ACTIVE, 0.0, "was free at the start", BOUND)
SERVERS = {"server1": ("192.0.2.11", 5070), "server2": ("192.0.2.12", 5080)}


def make_table(policy=FIRST_LIVE, servers=SERVERS):
    """All servers up, as heartbeats have shown."""
    table = ServerTable(
        [Server(ServerLine(*line), Health(UP, 0.0, ""), KEY) for line in servers.items()], policy
    )
    for server in table.servers:
        server.ever_answered = True
    return table


def make_core(policy=FIRST_LIVE, servers=SERVERS):
    return Core(make_table(policy, servers), KEY, lambda host: OWN)


def lines(*text, body=b""):
    return "".join(line + "\r\n" for line in (*text, "")).encode() + body


def request(
    method="INVITE",
    uri="sip:bob@failover.test",
    source=ALICE,
    branch="z9hG4bKa1",
    extra=(),
    to_tag="",
    call_id="call-1",
    via="",
    hops="Max-Forwards: 70",
    cseq=1,
):
    """A request as `source` would write it."""
    return lines(
        f"{method} {uri} SIP/2.0",
        via or f"Via: SIP/2.0/UDP {format_address(source[:2])};branch={branch}",
        *extra,
        *([hops] if hops else []),
        "From: Alice <sip:alice@failover.test>;tag=a",
        "To: <sip:bob@failover.test>" + (f";tag={to_tag}" if to_tag else ""),
        f"Call-ID: {call_id}",
        f"CSeq: {cseq} {method}",
        "Content-Length: 0",
    )


def answer(data, status="200 OK", to_tag="b"):
    """The response that whoever got this request would send: the same Vias, From, To, Call-ID and
    CSeq."""
    copied = ("Via", "Record-Route", "From", "Call-ID", "CSeq")
    kept = [line for line in head(data)[1:] if line.partition(":")[0] in copied]
    to = next(line for line in head(data) if line.startswith("To:"))
    return lines(
        f"SIP/2.0 {status}",
        *kept,
        to if ";tag=" in to else f"{to};tag={to_tag}",
        "Content-Length: 0",
    )


def answerable(data):
    """Whether `answer` can make one of it: what the dice broke may have lost its To, or have it in
    the body."""
    return data.isascii() and any(line.startswith("To:") for line in head(data)[1:])


def head(data):
    return data.partition(b"\r\n\r\n")[0].decode(errors="replace").split("\r\n")


def field(data, name):
    """The first value of that name, or None."""
    return next(
        (line.partition(": ")[2] for line in head(data) if line.startswith(f"{name}:")), None
    )


def changes(before, after):
    """What forwarding did to a message: ({lines that are gone}, {lines that are new}); checks that
    the order stayed."""
    old, new = head(before), head(after)
    kept = [line for line in new if line in old]
    assert kept == [line for line in old if line in new], "the order of the lines changed"
    assert before.partition(b"\r\n\r\n")[2] == after.partition(b"\r\n\r\n")[2], "the body changed"
    return {line for line in old if line not in new}, {line for line in new if line not in old}


class FakeServer:
    """A server on loopback that answers whatever it is asked, heartbeats too, with its name in
    X-Server."""

    def __init__(self, name, address):
        self.name, self.address = name, address
        self.heard = []  # requests that were no heartbeats, newest last
        self.heartbeat = "200 OK"
        self.replies = True
        self.late = 0.0  # seconds until it answers, heartbeats excepted
        self.odd = b""  # a line that its answers begin with
        self._loop = Loop(name)
        self._sock = bind_udp(address)
        self._loop.watch(self._sock, self._ready)
        self._loop.start()

    def _ready(self):
        data, source = self._sock.recvfrom(65_535)
        if b"@" not in data.partition(b"\r\n")[0] and not data.startswith(b"SIP/"):
            self._sock.sendto(answer(data, self.heartbeat), source)
            return
        self.heard.append(data)
        if self.replies and not data.startswith((b"ACK", b"SIP/")):
            told = answer(data).replace(
                b"\r\nCSeq", f"\r\nX-Server: {self.name}\r\nCSeq".encode(), 1
            )
            told = told.replace(b"\r\n", b"\r\n" + self.odd, 1)
            if self.late:
                self._loop.at(time.monotonic() + self.late, lambda: self._sock.sendto(told, source))
            else:
                self._sock.sendto(told, source)

    def freeze(self):
        self._loop.ask(lambda: self._loop.unwatch(self._sock))

    def thaw(self):
        self._loop.ask(lambda: self._loop.watch(self._sock, self._ready))

    def send(self, data, target):
        self._sock.sendto(data, target)

    def kill(self):
        """Its port is closed from now on, as after kill -9."""
        self._loop.stop()
        self._sock.close()


@contextmanager
def fake_servers(free_port, count=2, host="127.0.0.1"):
    """So many of them, called server1, server2 ..."""
    servers = [FakeServer(f"server{n + 1}", (host, free_port())) for n in range(count)]
    try:
        yield servers
    finally:
        for server in servers:
            server.kill()


@contextmanager
def plain_phone(host="127.0.0.1"):
    """A UDP socket that waits at most two seconds."""
    with socket.socket(family_of(host), socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        sock.settimeout(2.0)
        yield sock


def ask(phone, forwarder, branch, method="OPTIONS", **options):
    """Sends a request from a phone and returns the response."""
    phone.sendto(request(method, source=phone.getsockname(), branch=branch, **options), forwarder)
    return phone.recv(65_535)


def config(port, servers, *more, host="127.0.0.1"):
    named = [f"{server.name}={format_address(server.address)}" for server in servers]
    return read(
        "\n".join(
            [f"forwarder.listen={format_address((host, port))}", "admin.listen=", *named, *more]
        ),
        "test",
    )


@contextmanager
def running(settings):
    forwarder = Forwarder(settings)
    forwarder.start()
    try:
        yield forwarder
    finally:
        forwarder.stop()


def state_of(forwarder, name):
    return next(
        server["state"] for server in forwarder.status()["servers"] if server["name"] == name
    )


def is_state(forwarder, name, state):
    return lambda: state_of(forwarder, name) == state
