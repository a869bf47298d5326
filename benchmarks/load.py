"""The load of the benchmarks: a server that only answers, as a process, and a phone that asks at a
steady rate.

    python benchmarks/load.py HOST:PORT NAME      the server; it puts its name in X-Server

Everything stays on loopback. The phone is one loop over one socket and takes what comes as it
comes; a request that has no answer after T1 is retransmitted, as RFC 3261 17.1 has it, and that is
counted.
"""

from __future__ import annotations

import heapq
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

Address = tuple[str, int]
METHODS = ("INVITE", "OPTIONS", "INVITE", "REGISTER")
T1 = 0.5  # seconds
BUFFER = 4 << 20
ANSWERED = re.compile(
    rb"SIP/2\.0 (\d{3}).*?branch=z9hG4bKload\w*?x(\d+)\b(?:.*?\r\nX-Server: (\w+))?", re.DOTALL
)
COPIED = (b"via:", b"from:", b"call-id:", b"cseq:", b"record-route:")


def open_socket(address: Address, buffer: int = BUFFER) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    sock.bind(address)
    return sock


# -- the server ------------------------------------------------------------------------------------


def serve(address: Address, name: str) -> None:
    with open_socket(address) as sock:
        print("ready: ", flush=True)
        while True:
            with suppress(OSError):  # who asked is gone, or the way there
                data, source = sock.recvfrom(65_535)
                if not data.startswith((b"ACK ", b"SIP/")):
                    sock.sendto(answer(data, name.encode()), source)


def answer(request: bytes, name: bytes) -> bytes:
    """The 200 of a server called `name`: the request with another first line, for this is to cost
    next to nothing."""
    before, to, behind = request.partition(b"\r\n")[2].partition(b"\r\nTo: ")
    if not to:  # written in another way, as heartbeats may be
        return _answer(request, name)
    whom, _, rest = behind.partition(b"\r\n")
    tag = b"" if b";tag=" in whom else b";tag=" + name
    return b"SIP/2.0 200 OK\r\n%s\r\nTo: %s%s\r\nX-Server: %s\r\n%s" % (
        before,
        whom,
        tag,
        name,
        rest,
    )


def _answer(request: bytes, name: bytes) -> bytes:
    lines = [b"SIP/2.0 200 OK"]
    for line in request.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]:
        start = line[:13].lower()
        if start.startswith(COPIED):
            lines.append(line)
        elif start.startswith(b"to:"):
            lines.append(line if b";tag=" in line else line + b";tag=" + name)
    return b"\r\n".join([*lines, b"X-Server: " + name, b"Content-Length: 0", b"", b""])


class Server:
    """The above as a process of its own. `prefix`: a command that the process is run by."""

    prefix: tuple[str, ...] = ()

    def __init__(self, name: str, address: Address) -> None:
        self.name, self.address = name, address
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, wait: bool = True) -> None:
        host, port = self.address
        argv = [sys.executable, "-S", str(Path(__file__).resolve()), f"{host}:{port}", self.name]
        self._process = subprocess.Popen(
            [*self.prefix, *argv], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        assert self._process.stdout is not None
        if wait and not self._process.stdout.readline():
            raise RuntimeError(f"{self.name} does not start")

    def kill(self) -> None:
        """kill -9. What it was sent from then on is refused by the kernel."""
        self._signal(signal.SIGKILL)

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def restart(self) -> None:
        """After kill(); does not wait until it listens."""
        self.stop()
        self.start(wait=False)

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def _signal(self, number: int) -> None:
        if self._process and self._process.poll() is None:
            os.kill(self._process.pid, number)


# -- as many as go through -------------------------------------------------------------------------


class Burst(NamedTuple):
    """`seconds`: from the first request to the last answer."""

    sent: int
    answered: int
    seconds: float


def burst(
    send: Callable[[int], object],
    receive: Callable[[], tuple[int, int]],
    seconds: float,
    window: int,
) -> Burst:
    """So many requests wait for their answers all the time; the next leaves when one has come.
    `send(number)` sends one; `receive()` waits for answers: how many have come, and how many of
    these are 200. None for a while (0, 0): then what is missing counts as lost."""
    sent = answered = 0
    began = ended = time.monotonic()
    end, more = began + seconds, window
    while more or answered < sent:
        for number in range(sent, sent + more):
            send(number)
        sent += more
        came, good = receive()
        if not came:
            if time.monotonic() > end:
                break
            more = window
            continue
        answered += good
        ended = time.monotonic()
        more = came if ended < end else 0
    return Burst(sent, answered, ended - began)


# -- the phone -------------------------------------------------------------------------------------


def request(method: str, own: str, caller: str, callee: str, word: str, tag: str) -> bytes:
    """A request of a phone at `own`; `word` is its Call-ID, and the end of its branch."""
    uri = "sip:failover.test" if method == "REGISTER" else "sip:bob@failover.test"
    lines = (
        f"{method} {uri} SIP/2.0",
        f"Via: SIP/2.0/UDP {own};rport;branch=z9hG4bK{word}",
        "Max-Forwards: 70",
        f"From: <sip:{caller}@failover.test>;tag={tag}",
        f"To: <sip:{callee}@failover.test>",
        f"Call-ID: {word}",
        f"CSeq: 1 {method}",
        f"Contact: <sip:user@{own}>",
        "Content-Length: 0",
    )
    return "\r\n".join([*lines, "", ""]).encode()


@dataclass
class Asked:
    """One request. Times are monotonic seconds; `answered` None: never. `answers`: when, status and
    by which server, all that came."""

    sent: float
    transmissions: int = 1
    answers: list[tuple[float, int, str]] = field(default_factory=list)

    @property
    def answered(self) -> float | None:
        return self.answers[0][0] if self.answers else None


class Load:
    """`run()` sends `rate` requests a second for so many seconds, does what is planned at its time
    (seconds after the first request, function), and waits up to `patience` seconds for what is
    still unanswered."""

    def __init__(self, target: Address, rate: float, host: str = "127.0.0.1") -> None:
        self.target, self.rate = target, rate
        self.asked: list[Asked] = []
        self.began = 0.0
        self._sock = open_socket((host, 0))
        self._sock.setblocking(False)
        self._own = "{}:{}".format(*self._sock.getsockname())
        self._word = f"load{os.getpid()}p{self._sock.getsockname()[1]}"
        self._again: list[tuple[float, int, float]] = []  # due, number, seconds waited for

    def run(
        self,
        seconds: float,
        plan: Sequence[tuple[float, Callable[[], object]]] = (),
        patience: float = 1.0,
    ) -> list[Asked]:
        self.began = time.monotonic()
        end, last = self.began + seconds, self.began + seconds + patience
        todo = sorted(
            ((self.began + at, number) for number, (at, _) in enumerate(plan)), reverse=True
        )
        with self._sock:
            while (now := time.monotonic()) < end or (
                now < last and any(not asked.answers for asked in self.asked)
            ):
                while todo and todo[-1][0] <= now:
                    plan[todo.pop()[1]][1]()
                self._send_due(min(now, end))
                self._send_again(now)
                following = self.began + len(self.asked) / self.rate if now < end else now + 0.01
                wait = min(
                    [
                        following,
                        *(at for at, _ in todo[-1:]),
                        *(due for due, _, _ in self._again[:1]),
                    ]
                )
                if select.select([self._sock], [], [], max(0.0, wait - time.monotonic()))[0]:
                    self._receive()
        return self.asked

    def _send_due(self, now: float) -> None:
        while len(self.asked) < (now - self.began) * self.rate:
            number = len(self.asked)
            at = time.monotonic()
            self.asked.append(Asked(at))
            self._sock.sendto(self._request(number), self.target)
            heapq.heappush(self._again, (at + T1, number, T1))

    def _send_again(self, now: float) -> None:
        while self._again and self._again[0][0] <= now:
            _, number, waited = heapq.heappop(self._again)
            if not self.asked[number].answers:
                self.asked[number].transmissions += 1
                self._sock.sendto(self._request(number), self.target)
                heapq.heappush(self._again, (now + 2 * waited, number, 2 * waited))

    def _receive(self) -> None:
        while True:
            try:
                data = self._sock.recv(65_535)
            except BlockingIOError:
                return
            except ConnectionError:
                continue
            found = ANSWERED.match(data)
            if found and int(found[1]) >= 200:
                told = (time.monotonic(), int(found[1]), (found[3] or b"").decode())
                self.asked[int(found[2])].answers.append(told)

    def _request(self, number: int) -> bytes:
        user, method = f"user{number % 97}", METHODS[number % len(METHODS)]
        return request(method, self._own, user, user, f"{self._word}x{number}", f"t{number}")


# -- what it means ---------------------------------------------------------------------------------


def gap(asked: Sequence[Asked], begin: float, end: float) -> float:
    """The longest time between two first answers by a server (not 503), in seconds, from `begin` to
    `end`."""
    times = sorted(a.answers[0][0] for a in asked if a.answers and a.answers[0][1] < 300)
    points = [begin, *(at for at in times if begin < at < end), end]
    return max(after - before for before, after in pairwise(points))


def repeated(asked: Sequence[Asked]) -> int:
    """Requests that their sender had to retransmit."""
    return sum(request.transmissions > 1 for request in asked)


def lost(asked: Sequence[Asked]) -> int:
    """Requests that no server ever answered."""
    return sum(not any(status < 300 for _, status, _ in request.answers) for request in asked)


def stale(asked: Sequence[Asked], thawed: float, name: str, margin: float = 0.4) -> int:
    """Messages of a thawed server that reached the phone about what was asked `margin` seconds
    before it thawed, or earlier. What the phone itself has asked again since then may well be
    answered by that server."""
    return sum(
        at >= thawed
        and server == name
        and (one.transmissions == 1 or any(by != name for _, _, by in one.answers[:n]))
        for one in asked
        if one.sent < thawed - margin
        for n, (at, _, server) in enumerate(one.answers)
    )


def calm(asked: Sequence[Asked], begin: float, end: float, most: float = 0.015) -> bool:
    """Was everything that was asked in this time answered at once? Where not, the computer is busy
    with other things, and what is measured says more about those."""
    return all(
        one.answered is not None and one.answered - one.sent < most
        for one in asked
        if begin <= one.sent < end
    )


if __name__ == "__main__":
    host, _, port = sys.argv[1].rpartition(":")
    with suppress(KeyboardInterrupt):
        serve((host, int(port)), sys.argv[2])
