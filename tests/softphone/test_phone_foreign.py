"""A real phone over sockets, and a peer that a test plays with its own bytes."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from phone_kit import LOCAL

from sip.message import Message, Request, Response, parse, reply
from softphone import phone as phone_module
from softphone.media import levels
from softphone.media.levels import SilenceMeter
from softphone.options import parse_phones, parser
from softphone.phone import Phone
from softphone.ua.events import CallState


class Peer:
    """A socket, and what a phone says to it."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(LOCAL)
        self.socket.settimeout(5.0)
        self.address = self.socket.getsockname()

    @property
    def sdp(self) -> bytes:
        return (
            f"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
            f"m=audio {self.address[1]} RTP/AVP 0\r\n"
        ).encode()

    def hears(self, wanted: str) -> Message:
        """The next message of that name; RTP and others are passed over."""
        while True:
            data = self.socket.recvfrom(65535)[0]
            if data[:1].isalpha():
                message = parse(data)
                name = (
                    message.method
                    if isinstance(message, Request)
                    else f"{message.status} {message.cseq.method}"
                )
                if name == wanted:
                    return message

    def says(self, message: Message, to: tuple[str, int]) -> None:
        self.socket.sendto(message.to_bytes(), to)

    def request(
        self,
        method: str,
        phone: Phone,
        number: int,
        to: str,
        *fields: tuple[str, str],
        body: bytes = b"",
    ):
        host, port = self.address
        head = [
            ("Via", f"SIP/2.0/UDP {host}:{port};branch=z9hG4bK{number}"),
            ("From", f"<sip:gw@{host}>;tag=g"),
        ]
        head += [
            ("To", to),
            ("Call-ID", "gw"),
            ("CSeq", f"{number} {method}"),
            ("Contact", f"<sip:gw@{host}:{port}>"),
        ]
        head += [*fields, *([("Content-Type", "application/sdp")] if body else [])]
        return Request(method, f"sip:alice@127.0.0.1:{phone.address[1]}", head, body)


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.socket.close()


@pytest.fixture
def alice(owners):
    return owners("alice")


def test_a_gateway_that_wants_our_offer_while_it_rings_gets_the_port_at_which_we_then_listen(
    peer, alice, eventually
):
    phone = alice.phone
    invite = peer.request("INVITE", phone, 1, "<sip:alice@failover.test>", ("Require", "100rel"))
    peer.says(invite, phone.address)
    ringing = peer.hears("180 INVITE")
    assert ringing.values("Require") == ["100rel"] and b"m=audio " in ringing.body
    port = int(ringing.body.split(b"m=audio ")[1].split()[0])
    to = ringing.get("To")
    peer.says(
        peer.request(
            "PRACK", phone, 2, to, ("RAck", f"{ringing.get('RSeq')} 1 INVITE"), body=peer.sdp
        ),
        phone.address,
    )
    peer.hears("200 PRACK")
    phone.answer()
    ok = peer.hears("200 INVITE")
    assert isinstance(ok, Response) and ok.body == b""
    peer.says(peer.request("ACK", phone, 1, to), phone.address)
    eventually(lambda: alice.state is CallState.TALKING)
    packet = bytes([0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7]) + b"\xff" * 160
    peer.socket.sendto(packet, ("127.0.0.1", port))
    eventually(lambda: phone.media_stats().packets_received == 1)


def test_a_call_without_sound_says_so_in_the_window(peer, alice, eventually, monkeypatch):
    monkeypatch.setattr(phone_module, "LOOK_AGAIN", 0.05)
    monkeypatch.setattr(levels, "SILENCE_STEP", 1)
    phone = alice.phone
    phone.call(f"sip:bob@127.0.0.1:{peer.address[1]}")
    invite = peer.hears("INVITE")
    fields = [
        ("Contact", f"<sip:bob@127.0.0.1:{peer.address[1]}>"),
        ("Content-Type", "application/sdp"),
    ]
    peer.says(reply(invite, 200, to_tag="b", fields=fields, body=peer.sdp), phone.address)
    peer.hears("ACK")
    eventually(lambda: alice.sentence == "Talking with bob; nothing has been heard for 1 s")
    packet = bytes([0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7]) + b"\xff" * 160
    port = int(invite.body.split(b"m=audio ")[1].split()[0])
    peer.socket.sendto(packet, ("127.0.0.1", port))
    eventually(lambda: alice.sentence == "Talking with bob")


def test_a_silence_is_told_in_steps_and_none_is_where_no_sound_is_due():
    watch = SilenceMeter()
    assert [watch.look(10, True, at) for at in (0.0, 4.9, 5.0, 9.0, 10.5)] == [0, 0, 5, 5, 10]
    assert watch.look(11, True, 11.0) == 0
    assert [watch.look(11, False, at) for at in (12.0, 30.0)] == [0, 0]
    assert [watch.look(11, True, at) for at in (34.0, 35.5)] == [0, 5]


def test_a_stranger_does_not_ring_a_phone_that_has_a_server(peer, owners, eventually):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as proxy:
        proxy.bind(LOCAL)
        alice = owners("alice", proxy=proxy.getsockname())
        phone = alice.phone
        invite = peer.request("INVITE", phone, 1, "<sip:alice@failover.test>", body=peer.sdp)
        peer.says(invite, phone.address)
        peer.hears("403 INVITE")
        assert alice.states == []
        assert phone.snapshot().dropped == {"a call that did not come from the server": 1}
        proxy.sendto(
            invite.to_bytes().replace(b"z9hG4bK1", b"z9hG4bKp").replace(b"gw\r\n", b"gw2\r\n"),
            phone.address,
        )
        eventually(lambda: alice.state is CallState.INCOMING)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ([], (False, 15.0, ())),
        (["--direct"], (True, 15.0, ())),
        (["--keep-alive", "0"], (False, 0.0, ())),
        (
            ["--user", "alice", "--keep-alive", "25", "--realm", "a.test", "--realm", "b"],
            (False, 25.0, ("a.test", "b")),
        ),
    ],
)
def test_the_options_say_whom_the_phone_trusts_and_how_often_it_is_heard(given, wanted):
    for wish in parse_phones(parser().parse_args(given)):
        assert (wish.direct, wish.keep_alive, wish.account.realms) == wanted


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--user", "sips:alice@example.org"], "encryption"),
        (["--keep-alive", "1"], "--keep-alive"),
        (["--keep-alive", "nan"], "--keep-alive"),
        (["--realm", "x"], "--realm is for one phone"),
        (["--server", "192.0.2.1"], "--server is for one phone"),
        (["--user", "alice", "--server", "sip.example.org"], "--server"),
    ],
)
def test_an_option_that_makes_no_sense_is_told(given, told):
    with pytest.raises(ValueError, match=told):
        parse_phones(parser().parse_args(given))


def test_more_servers_of_the_account_are_named_by_address():
    given = ["--user", "alice", "--server", "192.0.2.1", "--server", "[2001:db8::1]:5070"]
    (wish,) = parse_phones(parser().parse_args(given))
    assert wish.account.servers == (("192.0.2.1", 5060), ("2001:db8::1", 5070))
