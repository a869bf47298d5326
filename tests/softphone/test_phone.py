"""Real phones over loopback sockets: threads, timers, sound. What is said in detail is tested in
test_agent.py."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest
from phone_kit import LOCAL, Owner

from plumbing.event_loop import LoopStopped
from sip.message import parse, reply
from softphone.local_host import own_host
from softphone.media.session import MediaSession
from softphone.phone import Account, Phone
from softphone.ua.address_comparison import is_literal
from softphone.ua.client_request import Actions, Send
from softphone.ua.events import (
    CallState,
    DigitPassed,
    ProbeAnswered,
    RegistrationState,
)

SDP = (
    b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    b"m=audio 40010 RTP/AVP 0\r\n"
)


@pytest.fixture
def talking(owners, eventually):
    alice, bob = owners("alice"), owners("bob")
    alice.phone.call(bob.uri)
    eventually(lambda: bob.state is CallState.INCOMING)
    bob.phone.answer()
    eventually(lambda: alice.state is bob.state is CallState.TALKING)
    return alice, bob


def test_two_phones_call_talk_and_hang_up(talking, eventually):
    alice, bob = talking
    for owner in talking:
        eventually(lambda owner=owner: owner.phone.media_stats().packets_received > 10)
    assert alice.phone.media_stats().codec == "PCMU"
    bob.phone.hang_up()
    eventually(lambda: alice.state is bob.state is CallState.ENDED)
    assert (alice.sentence, bob.sentence) == ("Bob hung up", "You hung up")
    assert not [t.name for t in threading.enumerate() if t.name.startswith("media")], (
        "sound ends with the call"
    )
    assert alice.phone.media_stats().packets_received > 10, (
        "the last call's figures can still be read"
    )
    for owner in talking:
        shown = owner.phone.snapshot()
        assert shown.retransmissions == 0 and [call.state for call in shown.calls] == [
            CallState.ENDED
        ]


def test_hold_stops_the_sound_and_resume_brings_it_back(talking, eventually):
    alice, bob = talking
    eventually(lambda: bob.phone.media_stats().packets_received > 5)
    alice.phone.hold()
    eventually(lambda: bob.sentence == "Alice has put the call on hold")
    eventually(lambda: alice.sentence == "Bob is on hold")
    alice.phone.resume()
    eventually(lambda: bob.sentence == "Talking with Alice")
    before = bob.phone.media_stats().packets_received
    eventually(lambda: bob.phone.media_stats().packets_received > before + 5)


def test_a_probe_is_answered_within_the_call(talking, eventually):
    alice, _ = talking
    alice.phone.probe()
    probe = eventually(lambda: [e for e in alice.events if isinstance(e, ProbeAnswered)])[0]
    assert probe.status == 200 and 0 < probe.at - probe.sent_at < 1.0


def test_digits_and_mute_do_no_harm_with_and_without_a_call(talking, owners, eventually):
    alone = owners("carol")
    for phone in (alone.phone, talking[0].phone):
        phone.mute(True)
        phone.dtmf("5")
        phone.dtmf("nonsense")
        phone.mute(False)
    assert talking[0].phone.snapshot().calls[0].state is CallState.TALKING
    assert alone.phone.snapshot().calls == ()


def test_digits_are_told_once_they_have_left_and_when_they_come(talking, eventually):
    alice, bob = talking
    for digit in "11#":
        alice.phone.dtmf(digit)
    eventually(lambda: digits(bob, sent=False) == "11#")
    eventually(lambda: digits(alice, sent=True) == "11#")
    bob.phone.hold()
    eventually(lambda: bob.sentence == "Alice is on hold")
    bob.phone.dtmf("7")
    bob.phone.resume()
    eventually(lambda: digits(alice, sent=False) == "7")


def digits(owner: Owner, sent: bool) -> str:
    return "".join(e.digit for e in owner.events if isinstance(e, DigitPassed) and e.sent is sent)


def test_a_sound_device_that_does_not_let_go_does_not_keep_the_call_from_ending(
    talking, eventually, monkeypatch
):
    alice, bob = talking
    stop = MediaSession.stop

    def stuck(session, timeout=1.0):
        stop(session, timeout)
        raise RuntimeError("media-1 has not ended within 1.0 s")

    monkeypatch.setattr(MediaSession, "stop", stuck)
    alice.phone.hang_up()
    eventually(lambda: alice.state is bob.state is CallState.ENDED)


def test_stop_in_mid_call_hangs_up_and_leaves_nothing(talking, eventually):
    alice, bob = talking
    alice.phone.stop()
    assert alice.state is CallState.ENDED
    eventually(lambda: bob.sentence == "Alice hung up")
    alice.phone.stop()
    with pytest.raises(LoopStopped):
        alice.phone.snapshot()
    alice.phone.call("bob")
    again = Phone(Account("x", "failover.test"), None, alice.phone.address, register=False)
    again.start()
    again.stop()


def test_stop_while_ringing_cancels(owners, eventually):
    alice, bob = owners("alice"), owners("bob")
    alice.phone.call(bob.uri)
    eventually(lambda: alice.state is CallState.RINGING)
    alice.phone.stop()
    eventually(lambda: bob.state is CallState.ENDED)
    assert bob.sentence == "Missed call from Alice"


def test_stop_with_nobody_answering_keeps_to_its_time(owners, eventually):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(LOCAL)
        alice = owners("alice", proxy=deaf.getsockname(), register=True)
        alice.phone.call("bob")
        eventually(lambda: alice.state is CallState.CALLING)
        began = time.monotonic()
        alice.phone.stop(timeout=0.5)
        assert time.monotonic() - began < 0.6


def test_a_phone_may_be_stopped_from_its_own_event(eventually):
    phones: list[Phone] = []
    phone = Phone(
        Account("alice", "failover.test"),
        None,
        LOCAL,
        lambda event: phones[0].stop(),
        register=False,
    )
    phones.append(phone)
    phone.start()
    phone.call("not an address")
    eventually(lambda: not [t for t in threading.enumerate() if t.name == "sip-alice"])


def test_a_phone_that_was_never_started_stops():
    phone = Phone(Account("alice", "failover.test"), None)
    phone.stop()
    with pytest.raises(RuntimeError):
        phone.start()


def test_an_address_in_use_is_named():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(LOCAL)
        port = other.getsockname()[1]
        phone = Phone(Account("alice", "failover.test"), None, ("127.0.0.1", port))
        with pytest.raises(OSError, match=f"127.0.0.1:{port}"):
            phone.start()
        phone.stop()


def test_an_event_handler_that_fails_does_not_stop_the_phone(eventually, caplog):
    def fail(event: object) -> None:
        raise ValueError("the window is gone")

    phone = Phone(Account("alice", "failover.test"), None, LOCAL, fail, register=False)
    phone.start()
    phone.call("not an address")
    eventually(lambda: phone.snapshot().calls)
    phone.stop()
    assert "telling CallChanged failed" in caplog.text


def test_a_phone_registers_and_takes_it_back(owners, eventually):
    asked: list[tuple[str, str]] = []

    def serve(sock: socket.socket) -> None:
        while (packet := sock.recvfrom(65535))[0]:  # an empty one ends it
            request, source = parse(packet[0]), packet[1]
            asked.append((request.method, request.get("Contact")))
            request.replace_top("Via", str(request.via.with_source(*source)))
            answer = reply(request, 200, to_tag="r", fields=[("Contact", request.get("Contact"))])
            sock.sendto(answer.to_bytes(), source)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as registrar:
        registrar.bind(LOCAL)
        server = threading.Thread(target=serve, args=(registrar,))
        server.start()
        # Bound to all addresses, the phone names the one towards its proxy.
        alice = owners("alice", proxy=registrar.getsockname(), register=True, listen=("0.0.0.0", 0))
        eventually(
            lambda: alice.phone.snapshot().registration.state is RegistrationState.REGISTERED
        )
        alice.phone.stop()
        registrar.sendto(b"", registrar.getsockname())
        server.join(2.0)
    port = alice.phone.address[1]
    assert asked[0] == ("REGISTER", f"<sip:alice@127.0.0.1:{port}>;expires=300")
    assert asked[1] == ("REGISTER", f"<sip:alice@127.0.0.1:{port}>;expires=0")


def test_phones_talk_over_ipv6(owners, eventually):
    try:
        alice, bob = (owners(user, listen=("::1", 0)) for user in ("alice", "bob"))
    except OSError:
        pytest.skip("this computer has no IPv6 loopback")
    port = bob.phone.address[1]
    alice.phone.call(f"sip:bob@[::1]:{port}")
    eventually(lambda: bob.state is CallState.INCOMING)
    bob.phone.answer()
    eventually(lambda: alice.state is CallState.TALKING)
    eventually(lambda: bob.phone.media_stats().packets_received > 5)


def test_a_server_that_cannot_be_found_is_named(monkeypatch):
    def find_nothing(*_args):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", find_nothing)
    phone = Phone(Account("alice", "failover.test"), ("no-such-server.invalid", 5060), LOCAL)
    with pytest.raises(OSError, match=r"no-such-server\.invalid cannot be found"):
        phone.start()
    phone.stop()


def test_localhost_is_found_in_the_family_of_the_phone(owners):
    alice = owners("alice", proxy=("localhost", 9), register=False)
    assert alice.phone.snapshot().calls == ()


def test_an_error_in_one_timer_does_not_end_the_phone_s_timers(owners):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as registrar:
        registrar.bind(LOCAL)
        registrar.settimeout(5.0)
        alice = owners("alice", proxy=registrar.getsockname(), register=True)
        on_deadline, failed = alice.phone._agent.on_deadline, []

        def fails_once(now):
            if not failed:
                failed.append(now)
                raise ValueError("a defect")
            return on_deadline(now)

        alice.phone._agent.on_deadline = fails_once
        said = [registrar.recv(65_535) for _ in range(2)]
        assert failed and said[0].startswith(b"REGISTER") and len(set(said)) == 1, (
            "it is said again, as ever"
        )


SCOPES = ["fe80::1%\udcff", "fe80::1%\0"]  # ipaddress reads them, no socket takes them


@pytest.mark.parametrize("host", SCOPES)
def test_a_scope_that_no_socket_takes_makes_no_address(host):
    assert is_literal("fe80::1%eth0") and not is_literal(host)
    assert own_host("::", (host, 5060)) is None and own_host("0.0.0.0", (host, 5060)) is not None


@pytest.mark.parametrize("host", SCOPES)
def test_what_cannot_be_sent_keeps_nothing_from_being_told(owners, monkeypatch, host):
    alice = owners("alice")
    phone, unreachable = alice.phone, []
    monkeypatch.setattr(
        phone._agent, "on_unreachable", lambda to, now: unreachable.append(to) or Actions()
    )
    phone._loop.ask(lambda: phone._perform(Actions([Send(b"x", (host, 5060))], ["news"])), 5.0)
    phone.snapshot()
    assert alice.events == ["news"] and unreachable == [(host, 5060)]

    def fails(send):
        raise RuntimeError("a defect")

    with monkeypatch.context() as defect, contextlib.suppress(RuntimeError):
        defect.setattr(phone, "_send", fails)
        phone._loop.ask(lambda: phone._perform(Actions([Send(b"x", LOCAL)], ["more"])), 5.0)
    assert alice.events == ["news", "more"]


@pytest.mark.parametrize("scope", [b"\xff", b"\0"])
def test_a_caller_whose_contact_names_no_address_is_left_and_the_sound_ends(
    owners, eventually, scope
):
    bob = owners("bob")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as eve:
        eve.bind(LOCAL)
        eve.settimeout(5.0)
        port = eve.getsockname()[1]

        def says(method: str, to_tag: str = "", body: bytes = b"") -> None:
            head = (
                f"{method} {bob.uri} SIP/2.0\r\nVia: SIP/2.0/UDP "
                f"127.0.0.1:{port};branch=z9hG4bK{method}\r\n"
                f"Max-Forwards: 70\r\nFrom: <sip:eve@127.0.0.1:{port}>;tag=e\r\nTo: "
                f"<{bob.uri}>{to_tag}\r\n"
                f"Call-ID: scope\r\nCSeq: 1 {method}\r\nContent-Type: application/sdp\r\n"
                f"Contact: <sip:eve@127.0.0.1:{port};maddr=fe80::1%"
            ).encode()
            eve.sendto(head + scope + b">\r\n\r\n" + body, bob.phone.address)

        def hears(start: str):
            while not (data := eve.recv(65_535)).startswith(start.encode()):
                pass
            return parse(data)

        says("INVITE", body=SDP)
        eventually(lambda: bob.state is CallState.INCOMING)
        bob.phone.answer()
        says("ACK", f";tag={hears('SIP/2.0 200').to.tag}")
        eventually(lambda: bob.state is CallState.TALKING)
        eventually(lambda: bob.phone.media_stats().packets_sent > 2)
        bob.phone.hang_up()
        assert hears("BYE").method == "BYE"
        eventually(lambda: bob.state is CallState.ENDING)
    eventually(lambda: not [t for t in threading.enumerate() if t.name.startswith("media")])


def test_verbose_logs_each_message_and_to_whom_it_went(owners, caplog, eventually):
    caplog.set_level("DEBUG", "softphone.phone")
    owners("alice", proxy=("127.0.0.1", 9)).phone.register()
    eventually(lambda: "REGISTER sip:failover.test to 127.0.0.1:9" in caplog.messages)
