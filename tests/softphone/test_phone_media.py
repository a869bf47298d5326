"""The sound of a real phone beside a scripted one: what is sent when, and to whom."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from phone_kit import LOCAL, QUICKLY, Owner

from sip.message import Request, Response, parse, reply
from softphone.media.rtp import Packet
from softphone.ua.events import CallState

QUIET = b"\xff" * 160  # silence in PCMU
SDP = (
    "v=0\r\no=- 1 {version} IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=audio {port} RTP/AVP 0\r\n"
)


class Scripted:
    """A phone of which every message and every packet is a test's. `heard`: packets, by socket."""

    def __init__(self) -> None:
        self.sip = self._socket()
        self.media = [self._socket() for _ in range(2)]
        self.seen: list[Request | Response] = []
        self.heard: list[list[Packet]] = [[], []]
        self._source = LOCAL
        self._stopping = False
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    @staticmethod
    def _socket() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind(LOCAL)
        made.settimeout(0.005)
        return made

    def _listen(self) -> None:
        while not self._stopping:
            for index, each in enumerate((self.sip, *self.media)):
                try:
                    data, source = each.recvfrom(65535)
                except TimeoutError:
                    continue
                if index:
                    self.heard[index - 1].append(Packet.parse(data))
                else:
                    self._source = source
                    self.seen.append(parse(data))

    def stop(self) -> None:
        self._stopping = True
        self._thread.join()
        for each in (self.sip, *self.media):
            each.close()

    @property
    def port(self) -> int:
        return self.sip.getsockname()[1]

    def sdp(self, number: int = 0, version: int = 1) -> bytes:
        return SDP.format(port=self.media[number].getsockname()[1], version=version).encode()

    def request(self, method: str) -> Request | None:
        found = [m for m in self.seen if isinstance(m, Request) and m.method == method]
        return found[-1] if found else None

    def answer(self, request: Request, status: int) -> None:
        fields = [
            ("Contact", f"<sip:bob@127.0.0.1:{self.port}>"),
            ("Content-Type", "application/sdp"),
        ]
        response = reply(request, status, to_tag="b", fields=fields, body=self.sdp())
        self.sip.sendto(response.to_bytes(), self._source)

    def moves(self, invite: Request) -> None:
        """A re-INVITE that wants media at the second socket."""
        fields = [
            ("Via", f"SIP/2.0/UDP 127.0.0.1:{self.port};branch=z9hG4bKmove"),
            ("From", f"{invite.get('To')};tag=b"),
            ("To", invite.get("From")),
            ("Call-ID", invite.call_id),
            ("CSeq", "1 INVITE"),
            ("Contact", f"<sip:bob@127.0.0.1:{self.port}>"),
            ("Content-Type", "application/sdp"),
        ]
        uri = str(invite.contacts[0].uri)
        self.sip.sendto(Request("INVITE", uri, fields, self.sdp(1, 2)).to_bytes(), self._source)

    def says(self, number: int, sequence: int, to: tuple[str, int]) -> None:
        packet = Packet(0, sequence, 160 * sequence, 7 + number, QUIET)
        self.media[number].sendto(packet.to_bytes(), to)


@pytest.fixture
def pair() -> Iterator[tuple[Owner, Scripted]]:
    alice, bob = Owner("alice"), Scripted()
    yield alice, bob
    alice.phone.stop(QUICKLY)
    bob.stop()


Eventually = Callable[..., object]


def test_before_the_answer_nobody_hears_the_microphone(pair, eventually: Eventually) -> None:
    alice, bob = pair
    alice.phone.call(f"sip:bob@127.0.0.1:{bob.port}")
    invite = eventually(lambda: bob.request("INVITE"))
    bob.answer(invite, 183)
    eventually(lambda: len(bob.heard[0]) > 20)
    assert {packet.payload for packet in bob.heard[0]} == {QUIET}
    early = len(bob.heard[0])
    bob.answer(invite, 200)
    eventually(lambda: alice.state is CallState.TALKING)
    eventually(lambda: any(packet.payload != QUIET for packet in bob.heard[0][early:]))


def test_media_that_moves_is_served_at_once_and_late_packets_change_nothing(
    pair, eventually: Eventually
) -> None:
    alice, bob = pair
    alice.phone.call(f"sip:bob@127.0.0.1:{bob.port}")
    invite = eventually(lambda: bob.request("INVITE"))
    bob.answer(invite, 200)
    eventually(lambda: len(bob.heard[0]) > 5)
    to = ("127.0.0.1", alice.phone._sound._session.port)
    for sequence in range(5):
        bob.says(0, sequence, to)
    bob.moves(invite)
    eventually(lambda: len(bob.heard[1]) > 5)
    before = len(bob.heard[0]), alice.phone.media_stats().packets_received
    for sequence in (5, 6):
        bob.says(0, sequence, to)
    for sequence in range(7, 42):  # the old stream goes on beside the new one
        bob.says(0, sequence, to)
        bob.says(1, sequence, to)
        heard = len(bob.heard[1])
        eventually(lambda heard=heard: len(bob.heard[1]) > heard)
    assert len(bob.heard[0]) == before[0], "nothing goes back to the address that was left"
    eventually(lambda: alice.phone.media_stats().packets_received == before[1] + 35)
