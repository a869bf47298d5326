"""The messages of ordinary calls, made by hand, for what is measured inside one process.

`play` takes a batch of calls through a forwarder's core, step by step: what phones and servers send is made of what the
core has sent them. The server is a proxy that adds its Via and asks the called phone; its own time is nobody's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from failover.core import Core
from failover.health import UP, Health
from failover.settings import FIRST_LIVE, PHONES, ServerLine
from failover.table import Server, ServerTable
from plumbing.address import Address, format_address

KEY = b"a key for benchmarks only"
OWN = ("192.0.2.1", 5060)
ALICE, BOB = ("192.0.2.7", 5060), ("192.0.2.8", 5062)
SERVER = "server1"
SDP = (
    "v=0\r\no=- 3906 1 IN IP4 192.0.2.7\r\ns=-\r\nc=IN IP4 192.0.2.7\r\nt=0 0\r\nm=audio 40000 RTP/AVP 8 0 101\r\n"
    "a=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\n"
    "a=ptime:20\r\na=sendrecv\r\n"
)
COPIED = (b"Via:", b"Record-Route:", b"From:", b"To:", b"Call-ID:", b"CSeq:", b"X-")


class Step(NamedTuple):
    """A kind of message and where it comes from."""

    kind: str
    leg: str
    source: Address

    @property
    def is_answer(self) -> bool:
        return self.kind[0].isdigit()

    def __str__(self) -> str:
        return f"{self.kind}, from a {'phone' if self.leg == PHONES else 'server'}"


Through = Callable[[Step, list[bytes]], list[bytes]]


def make_core(servers: int = 2, policy: str = FIRST_LIVE) -> Core:
    """So many servers, all up."""
    lines = [ServerLine(f"server{n + 1}", ("192.0.2.11", 5070 + n)) for n in range(servers)]
    table = ServerTable([Server(line, Health(UP, 0.0, ""), KEY) for line in lines], policy)
    return Core(table, KEY, lambda host: OWN)


# -- what phones say --------------------------------------------------------------------------------------------------


def request(method: str, number: int, cseq: int = 1, to_tag: str = "", vias: int = 1, lines: int = 0, body: str = "",
            routes: Sequence[bytes] = ()) -> bytes:  # fmt: skip
    """Alice's; `vias` of them if proxies stand before her, `lines` more that nobody here knows."""
    uri = f"sip:bob@{format_address(BOB)}" if to_tag else "sip:failover.test" if method == "REGISTER" else BOBS
    whom = ALICES if method == "REGISTER" else BOBS
    beneath = (f"Via: SIP/2.0/UDP 198.51.100.{n}:5060;branch=z9hG4bKproxy{n}x{number}\r\n" for n in range(vias - 1))
    return (
        f"{method} {uri} SIP/2.0\r\n"
        f"Via: SIP/2.0/UDP {format_address(ALICE)};rport;branch=z9hG4bK{method.lower()}{cseq}x{number}\r\n"
        f"{''.join(beneath)}{''.join('Route: ' + route.decode() + CRLF for route in routes)}"
        f"Max-Forwards: 70\r\nFrom: Alice <{ALICES}>;tag=a{number}\r\nTo: <{whom}>{to_tag and ';tag=' + to_tag}\r\n"
        f"Call-ID: {number}@192.0.2.7\r\nCSeq: {cseq} {method}\r\nContact: <sip:alice@{format_address(ALICE)}>\r\n"
        "User-Agent: softphone/0.1\r\nAllow: INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE\r\nSupported: timer\r\n"
        f"{''.join(f'X-Line-{n}: something that somebody once wanted to be told{CRLF}' for n in range(lines))}"
        f"{'Content-Type: application/sdp' + CRLF if body else ''}Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


CRLF = "\r\n"
ALICES, BOBS = "sip:alice@failover.test", "sip:bob@failover.test"


def answered(asked: bytes, status: str, body: str = "") -> bytes:
    """The response to what has arrived."""
    kept = [line for line in asked.partition(b"\r\n\r\n")[0].split(b"\r\n") if line.startswith(COPIED)]
    tagged = [line + b";tag=b" if line.startswith(b"To:") and b";tag=" not in line else line for line in kept]
    sdp = f"Content-Type: application/sdp{CRLF}" if body else ""
    rest = f"Contact: <sip:bob@{format_address(BOB)}>\r\n{sdp}Content-Length: {len(body)}\r\n\r\n{body}"
    return b"\r\n".join([f"SIP/2.0 {status}".encode(), *tagged, rest.encode()])


# -- what a server does -----------------------------------------------------------------------------------------------


def asked_on(data: bytes) -> bytes:
    """Passes a request on to Bob, its own Via on top."""
    start, _, rest = data.partition(b"\r\n")
    above, via, beneath = rest.partition(b"Via: ")
    branch = beneath.partition(b";branch=")[2].partition(b";")[0]
    uri = f"sip:bob@{format_address(BOB)}".encode()
    own = b"Via: SIP/2.0/UDP 192.0.2.11:5070;branch=" + branch + b"s\r\n"
    return b"".join([start.partition(b" ")[0], b" ", uri, b" SIP/2.0\r\n", above, own, via, beneath])


def handed_back(data: bytes) -> bytes:
    """Passes a response on, its own Via taken away."""
    before, _, behind = data.partition(b"\r\nVia: ")
    return before + b"\r\n" + behind.partition(b"\r\n")[2]


# -- all of it --------------------------------------------------------------------------------------------------------


def play(core: Core, through: Through, numbers: Sequence[int], vias: int = 1, lines: int = 0, body: str = SDP) -> None:
    """Takes calls with these numbers, and as many registrations and OPTIONS, through `through`, which gives what the
    core made of each message."""
    server = core.table.by_name[SERVER].address

    def phone(kind: str, source: Address, messages: list[bytes]) -> list[bytes]:
        return through(Step(kind, PHONES, source), messages)

    def by_server(kind: str, messages: list[bytes]) -> list[bytes]:
        return through(Step(kind, SERVER, server), messages)

    def asks(method: str, **more: object) -> list[bytes]:
        return [request(method, number, vias=vias, lines=lines, **more) for number in numbers]  # type: ignore[arg-type]

    def there(method: str, messages: list[bytes]) -> list[bytes]:
        return by_server(method, [asked_on(data) for data in phone(method, ALICE, messages)])

    def back(kind: str, arrived: list[bytes], status: str, body: str = "") -> list[bytes]:
        to_server = phone(kind, BOB, [answered(data, status, body) for data in arrived])
        return by_server(kind, [handed_back(data) for data in to_server])

    for method in ("REGISTER", "OPTIONS"):
        by_server(f"200 ({method})", [answered(data, "200 OK") for data in phone(method, ALICE, asks(method))])
    rings = there("INVITE", asks("INVITE", body=body))
    back("180 (INVITE)", rings, "180 Ringing")
    accepted = back("200 (INVITE)", rings, "200 OK", body)
    routes = [data.partition(b"\r\nRecord-Route: ")[2].partition(b"\r\n")[0] for data in accepted]

    def within(method: str, cseq: int) -> list[bytes]:
        return [request(method, number, cseq, "b", vias, lines, routes=[route])
                for number, route in zip(numbers, routes, strict=True)]  # fmt: skip

    there("ACK", within("ACK", 1))
    back("200 (BYE)", there("BYE", within("BYE", 2)), "200 OK")
