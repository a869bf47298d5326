"""One mock SLEE server on one core: how many calls a second it sets up and ends.

    python -m benchmarks.slee [--rate 1000] [--seconds 10] [--at-once 64] [--port 22960] [--json]

This program takes the place of the forwarder and of both phones, and has calls placed, answered,
acknowledged and ended, one message after the other: for some seconds as many as the server can do
with so many calls at once, then at a steady rate. What stays without effect for T1 is said again
(RFC 3261 17.1) and counted. Exit status 1 if a call was lost, a message had to be said again at the
steady rate, or a bill is missing; 2 if it could not be measured. Needs nothing but Python;
everything stays on 127.0.0.1. On Linux the server has one core for itself and this program another.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import os
import re
import select
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.calls import Program, read_bills, server_argv, wait_until
from benchmarks.command import Parser, print_json
from benchmarks.load import T1, Address, open_socket
from plumbing.address import format_address

ROOT = Path(__file__).resolve().parent.parent
WARM = 2.0  # seconds at full speed before it counts
PATIENCE = 5.0  # seconds for the last calls to end
SDP = (
    b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4002 "
    b"RTP/AVP 0 8 101\r\n"
    b"a=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\n"
    b"a=sendrecv\r\n"
)

# -- the messages, as they leave the forwarder -----------------------------------------------------

BOB, BOBS_PHONE = "sip:bob@failover.test", "sip:bob@127.0.0.1:4100"
NUMBER = re.compile(rb"\r\nCall-ID: (\d+)-")
COPIED = re.compile(rb"(?:Via|Record-Route|From|Call-ID|CSeq): [^\r]*\r\n")
TO = re.compile(rb"\r\n(To: [^\r]*)")
# The message that is sent, and the beginning of the server's.
STEPS = (
    ("INVITE", b"INVITE "),
    (b"180 Ringing", b"SIP/2.0 180 "),
    (b"200 OK", b"SIP/2.0 200 "),
    ("ACK", b"ACK "),
    ("BYE", b"BYE "),
    (b"200 OK", b"SIP/2.0 200 "),
)


def request(method: str, n: int, run: str, forwarder: str) -> bytes:
    """A request of Alice's phone in call `n`."""
    is_invite, cseq = method == "INVITE", 2 if method == "BYE" else 1
    body = SDP if is_invite else b""
    contact = (
        "Contact: <sip:alice@127.0.0.1:4000>\r\nContent-Type: application/sdp\r\n"
        if is_invite
        else ""
    )
    lines = (
        f"{method} {BOB if is_invite else BOBS_PHONE} SIP/2.0\r\n"
        f"Via: SIP/2.0/UDP {forwarder};branch=z9hG4bK{os.urandom(16).hex()}\r\n"
        f"Record-Route: <sip:{forwarder};lr;hint=server1.c0ffee00c0ffee00>\r\n"
        "Via: SIP/2.0/UDP "
        f"127.0.0.1:4000;rport=4000;received=127.0.0.1;branch=z9hG4bK-{run}-{n}-{method}\r\n"
        f'Max-Forwards: 69\r\nFrom: "Alice" <sip:alice@failover.test>;tag=a{n}\r\n'
        f"To: <{BOB}>{'' if is_invite else f';tag=b{n}'}\r\nCall-ID: {n}-{run}@127.0.0.1\r\nCSeq: "
        f"{cseq} {method}\r\n"
        f"{contact}Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE\r\nSupported: timer\r\n"
        "User-Agent: phone/1.0\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return lines.encode() + body


def answer(asked: bytes, status: bytes, n: int) -> bytes:
    """The answer of Bob's phone to a request that the server has sent on."""
    body = SDP if status == b"200 OK" and asked.startswith(b"INVITE ") else b""
    to = TO.search(asked)
    assert to is not None
    tagged = to[1] if b"tag=" in to[1] else b"%b;tag=b%d" % (to[1], n)
    kind = b"Content-Type: application/sdp\r\n" if body else b""
    return (
        b"SIP/2.0 %b\r\n%b%b\r\nContact: <%b>\r\nAllow: INVITE, ACK, CANCEL, BYE, OPTIONS, "
        b"UPDATE\r\n"
        b"Supported: timer\r\n%bContent-Length: %d\r\n\r\n%b"
    ) % (
        status,
        b"".join(COPIED.findall(asked)),
        tagged,
        BOBS_PHONE.encode(),
        kind,
        len(body),
        body,
    )


def step(at: int, n: int, run: str, forwarder: str, heard: bytes) -> bytes:
    """The message of STEPS[at]; `heard`: the last request that Bob's phone got."""
    said = STEPS[at][0]
    return request(said, n, run, forwarder) if isinstance(said, str) else answer(heard, said, n)


def register(forwarder: str, run: str) -> bytes:
    return (
        "REGISTER sip:failover.test SIP/2.0\r\nVia: SIP/2.0/UDP "
        f"{forwarder};branch=z9hG4bK{run}f\r\n"
        f"Via: SIP/2.0/UDP 127.0.0.1:4100;branch=z9hG4bK{run}\r\nMax-Forwards: 69\r\nFrom: "
        f"<{BOB}>;tag=r\r\n"
        f"To: <{BOB}>\r\nCall-ID: r-{run}\r\nCSeq: 1 REGISTER\r\nContact: <{BOBS_PHONE}>\r\n"
        "Content-Length: 0\r\n\r\n"
    ).encode()


# -- on sockets ------------------------------------------------------------------------------------


@dataclass
class Pace:
    """The result of one run. CPU in microseconds a call, the setting up of a call (INVITE to its
    200) in milliseconds."""

    placed: int
    completed: int
    again: int  # messages said again
    seconds: float
    cpu: float
    p50: float
    p99: float

    @property
    def rate(self) -> float:
        return self.completed / self.seconds


@dataclass(slots=True)
class Talk:
    """One call under way: the step it is at, what was said last, what Bob's phone heard last."""

    at: int
    said: bytes
    began: float
    heard: bytes = b""


class Phones:
    """Both phones and the forwarder between them and the server at `server`."""

    def __init__(self, own: Address, server: Address) -> None:
        self._sock, self._server = open_socket(own), server
        self._sock.setblocking(False)
        self._own = f"{own[0]}:{own[1]}"
        self._run = os.urandom(4).hex()
        self._numbers = itertools.count()
        self._talks: dict[int, Talk] = {}
        # when to say it again, call, step, seconds waited for
        self._due: list[tuple[float, int, int, float]] = []
        self._setups: list[float] = []
        self.completed: set[str] = set()  # Call-IDs
        self.again = 0

    def close(self) -> None:
        self._sock.close()

    def register(self) -> bool:
        self._sock.sendto(register(self._own, self._run), self._server)
        return bool(select.select([self._sock], [], [], 0.5)[0]) and self._sock.recv(
            65_535
        ).startswith(b"SIP/2.0 200 ")

    def run(self, server: Program, seconds: float, at_once: int = 0, rate: float = 0.0) -> Pace:
        """Places `rate` calls a second, or keeps so many going."""
        self._setups, self.again, before = [], 0, len(self.completed)
        used, began, placed = server_cpu(server), time.monotonic(), 0
        end, last = began + seconds, began + seconds + PATIENCE
        while (now := time.monotonic()) < end or (self._talks and now < last):
            if now < end:
                wanted = int((now - began) * rate) - placed if rate else at_once - len(self._talks)
                placed += max(0, wanted)
                for _ in range(wanted):
                    number = next(self._numbers)
                    self._say(number, Talk(0, b"", now))
            self._say_again(now)
            if select.select(
                [self._sock], [], [], max(0.0, min(end - now, 0.01, 0.2 / rate if rate else 1.0))
            )[0]:
                self._hear()
        took, lost = time.monotonic() - began, len(self._talks)
        self._talks.clear()
        done = len(self.completed) - before
        cpu = (server_cpu(server) - used) * 1e6 / max(1, done)
        cuts = statistics.quantiles(self._setups, n=100) if len(self._setups) > 1 else [0.0] * 99
        return Pace(placed, placed - lost, self.again, took, cpu, cuts[49] * 1000, cuts[98] * 1000)

    def _say(self, number: int, talk: Talk) -> None:
        talk.said = step(talk.at, number, self._run, self._own, talk.heard)
        self._talks[number] = talk
        heapq.heappush(self._due, (time.monotonic() + T1, number, talk.at, T1))
        self._sock.sendto(talk.said, self._server)

    def _say_again(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            _, number, at, waited = heapq.heappop(self._due)
            talk = self._talks.get(number)
            if talk and talk.at == at:
                self.again += 1
                heapq.heappush(self._due, (now + 2 * waited, number, at, 2 * waited))
                self._sock.sendto(talk.said, self._server)

    def _hear(self) -> None:
        while True:
            try:
                data = self._sock.recv(65_535)
            except OSError:
                return
            found = NUMBER.search(data)
            number = int(found[1]) if found else -1
            talk = self._talks.get(number)
            if talk and data.startswith(STEPS[talk.at][1]):
                self._go_on(number, talk, data)

    def _go_on(self, number: int, talk: Talk, data: bytes) -> None:
        if not data.startswith(b"SIP/"):
            talk.heard = data
        if talk.at == 2:
            self._setups.append(time.monotonic() - talk.began)
        talk.at += 1
        if talk.at < len(STEPS):
            self._say(number, talk)
        else:
            self.completed.add(f"{number}-{self._run}@127.0.0.1")
            del self._talks[number]


def server_cpu(server: Program) -> float:
    """Seconds that the server's process has used."""
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def on_sockets(folder: Path, options: argparse.Namespace) -> tuple[Pace, Pace, int]:
    """At full speed, at the steady rate, and how many bills are missing or have no end."""
    own, server = ("127.0.0.1", options.port), ("127.0.0.1", options.port + 1)
    store = folder / "cluster.db"
    with ExitStack() as ending:
        phones = Phones(own, server)
        ending.callback(phones.close)
        argv = server_argv("server1", format_address(server), format_address(own), store)
        program = Program("server1", argv, folder)
        ending.callback(program.stop)
        _have_a_core_each(program.pid)
        wait_until(phones.register, 15.0, "a phone is registered")
        phones.run(program, WARM, at_once=options.at_once)
        full = phones.run(program, options.seconds, at_once=options.at_once)
        steady = phones.run(program, options.seconds, rate=options.rate)
        program.stop()
    bills = read_bills(str(store))
    closed = {
        call_id
        for call_id, bill in bills.items()
        if bill.answered is not None and bill.ended is not None
    }
    return full, steady, len(phones.completed - closed)


def _have_a_core_each(pid: int) -> None:
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
    if len(cores) > 1:
        os.sched_setaffinity(pid, {cores[0]})
        os.sched_setaffinity(0, {cores[1]})


# -- what is told ----------------------------------------------------------------------------------


def paced(pace: Pace, what: str) -> str:
    return (
        f"{what:32}{pace.rate:.0f} calls/s for {pace.seconds:.1f} s, "
        f"{pace.placed - pace.completed} lost, "
        f"{pace.again} messages said again\n{'':32}server's CPU {pace.cpu:.0f} us a call; "
        f"INVITE to 200 {pace.p50:.1f} ms, 99 % in {pace.p99:.1f} ms"
    )


def parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(__doc__, 22960, "the next")
    parser.number("--rate", 1000, 5000, "calls a second")
    parser.number("--seconds", 10, 120, "of each of the two runs")
    parser.number("--at-once", 64, 2000, "calls at full speed")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    options = parse(argv)
    with tempfile.TemporaryDirectory(prefix="slee-") as folder:
        try:
            full, steady, missing = on_sockets(Path(folder), options)
        except (OSError, RuntimeError) as error:
            print(f"cannot measure: {error}", file=sys.stderr)
            return 2
    good = not (
        missing or steady.again or any(pace.completed < pace.placed for pace in (full, steady))
    )
    if options.json:
        print_json(options, good=good, full=asdict(full), steady=asdict(steady), missing=missing)
    else:
        print(paced(full, f"as fast as it can, {options.at_once} at once"))
        print(paced(steady, f"{options.rate} calls/s"))
        print(f"{'bills':32}{missing} missing")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
