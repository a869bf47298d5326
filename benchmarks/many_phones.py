"""Requests of many different phones, each from a port of its own, as a forwarder before real phones
sees them.

A forwarder that remembers what senders or messages looked like is fast for a few trunks; here
nearly every message has another sender, length and order of header lines than the one before.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from benchmarks.load import METHODS, Address, Burst, burst, open_socket

AGENTS = ("Deskphone 410/12.3.1", "SoftClient/4.2.0", "ATA-2 (fw 1.0.9)", "GW7")
ORDERS = (  # of header lines, one for each make
    ("Via", "Max-Forwards", "From", "To", "Call-ID", "CSeq", "Contact", "User-Agent"),
    ("Via", "From", "To", "Call-ID", "CSeq", "User-Agent", "Contact", "Max-Forwards"),
    ("Via", "To", "From", "Call-ID", "CSeq", "Max-Forwards", "Contact", "User-Agent"),
    ("Via", "User-Agent", "Max-Forwards", "To", "From", "Contact", "Call-ID", "CSeq"),
)
SPREAD = 2_654_435_761  # a large prime, which takes neighbours far apart
DESCRIPTORS = 64  # that this process needs besides
BACKLOG = 64 << 10  # octets; a phone has one request or two under way


def texts(number: int, own: str, word: str) -> list[bytes]:
    """The requests of phone `number` at `own`, one for each of METHODS; the request's number is
    left out three times. Every other phone registers with a digest (RFC 2617)."""
    make, line = number % 4, number * SPREAD % 65_521
    user = f"{'ferdinandmaria'[: 3 + line % 9]}{number}"
    return [_text(method, make, line, user, own, f"{word}n{number}") for method in METHODS]


def _text(method: str, make: int, line: int, user: str, own: str, word: str) -> bytes:
    register = method == "REGISTER"
    callee = user if register else f"+49{line:0{6 + line % 5}d}"
    body = _offer(own.partition(":")[0], line, make) if method == "INVITE" else ""
    name = f'"Line {line}" ' if make % 2 else ""
    values = {
        "Via": f"SIP/2.0/UDP {own};{'rport;' if make != 2 else ''}branch=z9hG4bK{word}x%d",
        "Max-Forwards": "70",
        "From": f"{name}<sip:{user}@failover.test>;tag=t%d",
        "To": f"<sip:{callee}@failover.test>",
        "Call-ID": f"{word}x%d{'@' + own if make == 3 else ''}",
        "CSeq": f"{1 + line} {method}",
        "Contact": f"<sip:{user}@{own}>",
        "User-Agent": AGENTS[make],
    }
    lines = [f"{name}: {values[name]}" for name in ORDERS[make]]
    if register and line % 2:
        lines.append(
            f'Authorization: Digest username="{user}", realm="failover.test", nonce="{line:032x}", '
            f'uri="sip:failover.test", response="{line * 7919:032x}", qop=auth, '
            f'cnonce="{line:08x}", nc={line:08x}'
        )
    lines += ["Content-Type: application/sdp"] if body else []
    first = f"{method} sip:{'' if register else callee + '@'}failover.test SIP/2.0"
    return "\r\n".join([first, *lines, f"Content-Length: {len(body)}", "", body]).encode()


def _offer(host: str, line: int, make: int) -> str:
    lines = ["v=0", f"o=- {line} {line} IN IP4 {host}", "s=-", f"c=IN IP4 {host}", "t=0 0"]
    lines += [
        f"m=audio {10_000 + line % 40_000} RTP/AVP {'8 0 101' if make % 2 else '0 8'}",
        "a=rtpmap:8 PCMA/8000",
    ]
    lines += ["a=rtpmap:101 telephone-event/8000", "a=fmtp:101 0-15"] if make % 2 else []
    return "".join(f"{each}\r\n" for each in lines)


@contextmanager
def descriptors(count: int) -> Iterator[None]:
    """This process may have so many sockets more. Raises RuntimeError where the system does not
    allow it."""
    import resource  # POSIX alone

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + DESCRIPTORS
    if hard not in (-1, resource.RLIM_INFINITY) and wanted > hard:
        raise RuntimeError(
            f"{count} phones need {wanted} open files, and ulimit -Hn is {hard}; take fewer "
            "(--phones)"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def crowd(target: Address, phones: int, seconds: float, window: int, lull: float) -> Burst:
    """Each request from another phone than the one before. After `lull` seconds without an answer
    what is missing counts as lost."""
    with ExitStack() as ending:
        ending.enter_context(descriptors(phones))
        poll = ending.enter_context(select.epoll())
        word = f"crowd{time.monotonic_ns()}"
        senders: list[tuple[socket.socket, list[bytes]]] = []
        by_descriptor: dict[int, socket.socket] = {}
        for number in range(phones):
            sock = ending.enter_context(open_socket(("127.0.0.1", 0), BACKLOG))
            sock.connect(target)
            senders.append((sock, texts(number, "{}:{}".format(*sock.getsockname()), word)))
            by_descriptor[sock.fileno()] = sock
            poll.register(sock, select.EPOLLIN)

        def send(number: int) -> None:
            sock, kinds = senders[number * SPREAD % phones]
            sock.send(kinds[(number // phones + number) & 3] % (number, number, number))

        def receive() -> tuple[int, int]:
            ready = poll.poll(lull)
            answers = (by_descriptor[descriptor].recv(65_535) for descriptor, _ in ready)
            return len(ready), sum(answer.startswith(b"SIP/2.0 200 ") for answer in answers)

        return burst(send, receive, seconds, window)
