"""A server registers itself: what it says to forwarders, and what it still does once it has taken
leave."""

from __future__ import annotations

import random
import signal
import subprocess
from collections import Counter

import pytest
from forwarder_kit import KEY, answer, field, head
from program_kit import HELLO
from slee_kit import answer as phone_answer
from slee_kit import invite, register

from failover.config.networks import LOOPBACK
from failover.config.properties import decode
from failover.config.properties import parse as parse_properties
from failover.upstream.server_registration import Registration
from plumbing.udp_socket import bind_udp
from sip.message import parse, reply
from slee_mock.container.events import Outcome, Send
from slee_mock.mobicents_heartbeat import Heartbeats, _escaped
from slee_mock.node import MOST_PENDING, PendingTransactions
from slee_mock.settings import SettingsError, parse_arguments

SERVER, OWN, DESK = ("127.0.0.1", 5070), ("127.0.0.1", 40_000), ("127.0.0.1", 5065)


def make():
    return Heartbeats("server1", SERVER, DESK, OWN, "0123456789abcdef")


def said(data):
    return {
        entry.key: entry.value
        for entry in parse_properties(decode(data.partition(b"\r\n\r\n")[2]))[0]
    }


# -- what is said ----------------------------------------------------------------------------------


def test_a_heartbeat_is_what_mobicents_forwarders_understand():
    data = make().next()
    assert head(data)[0] == "OPTIONS sip:127.0.0.1:5065 SIP/2.0"
    assert field(data, "Mobicents-Heartbeat") == "1" and field(data, "CSeq") == "1 OPTIONS"
    assert said(data) == {"hostname": "server1", "ip": "127.0.0.1", "udpPort": "5070"}
    parse(data).check()


def test_the_forwarder_s_table_takes_it_and_its_leave_and_its_next_life_and_no_replay():
    table = Registration(KEY, LOOPBACK, False, (), Counter())
    first = make()
    beats = [first.next(), first.next(), first.next(leaving=True)]
    second = Heartbeats("server1", SERVER, DESK, OWN, "fedcba9876543210").next()
    story = [*beats, second, beats[2], beats[0]]
    assert [table.receive(data, OWN, 100.0 + n).kind for n, data in enumerate(story)] == [
        "arrived",
        "beat",
        "leaving",
        "back",
        "replayed",
        "replayed",
    ]


def test_a_leave_says_graceful_shutdown_and_the_cseq_grows():
    script = make()
    script.next()
    data = script.next(leaving=True)
    assert said(data)["GRACEFUL_SHUTDOWN"] == "true" and field(data, "CSeq") == "2 OPTIONS"


def test_only_the_answer_to_the_last_heartbeat_counts():
    script = make()
    first, last = script.next(), script.next()
    assert script.answer(answer(first)) is None
    assert script.answer(answer(last, "100 Trying")) is None
    assert script.answer(answer(last).replace(b"0123456789abcdef@", b"somebody.else@")) is None
    assert script.answer(b"noise") is None and script.answer(last) is None
    assert script.answer(answer(last, "403 Forbidden")).status == 403


@pytest.mark.parametrize("name", ["server1", "a b = c: d", "\\u0041", "Grüße 🚀", "#!", " x "])
def test_any_name_survives_the_properties_text(name):
    assert said(Heartbeats(name, SERVER, DESK, OWN, "token").next())["hostname"] == name


def test_any_text_survives_escaping():
    dice = random.Random(1)
    for _ in range(500):
        text = "".join(chr(dice.randrange(1, 0xD800)) for _ in range(dice.randrange(1, 10)))
        assert parse_properties(f"k={_escaped(text)}")[0][0].value == text


# -- what is owed ----------------------------------------------------------------------------------


def test_a_request_that_was_passed_on_is_owed_until_its_final_answer():
    pending, request = PendingTransactions(), invite()
    pending.note(request, Outcome(sends=(Send(request.to_bytes()),)))
    for status, left in ((100, 1), (180, 1), (200, 0)):
        response = reply(request, status)
        pending.note(response, Outcome(sends=(Send(response.to_bytes()),)))
        assert len(pending) == left


def test_what_was_answered_here_or_needs_no_answer_is_not_owed():
    pending, request = PendingTransactions(), invite()
    pending.note(request, Outcome(sends=(Send(reply(request, 401).to_bytes()),)))
    pending.note(request, Outcome(sends=()))
    ack = parse(request.to_bytes().replace(b"INVITE", b"ACK"))
    pending.note(ack, Outcome(sends=(Send(ack.to_bytes()),)))
    assert len(pending) == 0


def test_what_is_owed_is_bounded():
    pending, data = PendingTransactions(), invite().to_bytes()
    for n in range(MOST_PENDING + 50):
        request = parse(data.replace(b"Call-ID: c1", b"Call-ID: c%d" % n))
        pending.note(request, Outcome(sends=(Send(data),)))
    assert len(pending) == MOST_PENDING


# -- real processes --------------------------------------------------------------------------------


class Desk:
    """The registration address of a forwarder that the test plays."""

    def __init__(self, port):
        self.sock = bind_udp(("127.0.0.1", port))
        self.sock.settimeout(HELLO)

    def hear(self, status="200 OK"):
        """The next heartbeat, answered."""
        data, source = self.sock.recvfrom(65_535)
        if status:
            self.sock.sendto(answer(data, status), source)
        return data

    def hear_leave(self, status="200 OK"):
        while "GRACEFUL_SHUTDOWN" not in said(data := self.hear(status)):
            continue
        return data


@pytest.fixture
def desks(free_port):
    made = []

    def make():
        port = free_port()
        made.append(Desk(port))
        return made[-1], f"127.0.0.1:{port}"

    yield make
    for desk in made:
        desk.sock.close()


def test_it_beats_at_once_and_again_at_every_forwarder_and_takes_leave_at_each(program, desks):
    (one, first), (two, second) = desks(), desks()
    server = program("server1", "--register", f"{first},{second}", "--beat", "0.1").start()
    for desk in (one, two):
        numbers = [int(field(desk.hear(), "CSeq").split()[0]) for _ in range(3)]
        assert numbers[0] == 1 and numbers == sorted(set(numbers))
    server.process.send_signal(signal.SIGTERM)
    assert one.hear_leave(status="") and one.hear_leave(), "an unanswered leave is said again"
    two.hear_leave()
    assert server.process.wait(HELLO) == 0


def test_a_leaving_server_answers_heartbeats_with_503_serves_on_and_goes_when_nothing_is_owed(
    forwarder, program, desks
):
    desk, address = desks()
    server = program("server1", "--register", address, "--beat", "0.1").start()
    assert forwarder.ask(register(), server).status == 200
    offered = forwarder.ask(invite(), server)
    server.process.send_signal(signal.SIGTERM)
    desk.hear_leave()
    heartbeat = parse(invite().to_bytes().replace(b"INVITE", b"OPTIONS").replace(b"bob@", b""))
    assert forwarder.ask(heartbeat, server).status == 503
    ringing = forwarder.ask(phone_answer(offered, 180), server)
    assert ringing.status == 180
    with pytest.raises(subprocess.TimeoutExpired):
        server.process.wait(0.8)  # longer than it waits when nothing is owed
    assert forwarder.ask(phone_answer(offered, 200), server).status == 200
    assert server.process.wait(HELLO) == 0


def test_whoever_asks_twice_is_in_a_hurry_and_a_phone_that_never_answers_holds_nobody_for_ever(
    forwarder, program, desks
):
    desk, address = desks()
    server = program("server1", "--register", address).start()
    assert forwarder.ask(register(), server).status == 200
    forwarder.ask(invite(), server)
    server.process.send_signal(signal.SIGTERM)
    desk.hear_leave()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(1.5) == 0


@pytest.mark.long
def test_a_forwarder_that_refuses_or_is_not_there_is_told_once_to_the_operator(
    program, desks, free_port
):
    (desk, address), nobody = desks(), f"127.0.0.1:{free_port()}"
    server = program("server1", "--register", f"{address},{nobody}", "--beat", "0.1").start()
    for _ in range(5):
        desk.hear("403 Forbidden")
    desk.hear()
    desk.hear()
    server.process.send_signal(signal.SIGTERM)
    desk.hear_leave()
    assert server.process.wait(HELLO) == 0
    lines = [line.partition("forwarder at ")[2] for line in server.log.read_text().splitlines()]
    assert lines.count(f"{nobody} does not answer registrations") == 1
    assert lines.count(f"{address} refuses registrations: 403 Forbidden") == 1
    assert f"{address} knows this server" in lines


@pytest.mark.parametrize(
    "arguments, fault",
    [
        (["--register", "127.0.0.1"], "--register: '127.0.0.1' has no port"),
        (["--register", "127.0.0.1:1,"], "--register: '' is not host:port"),
        (["--register", "balancer:5065"], "--register: 'balancer' is not an IP address"),
        (["--beat", "soon"], "--beat: 'soon' is not a time in seconds from 0.05 to 3600"),
    ],
)
def test_what_is_wrong_with_the_options_is_a_sentence(arguments, fault):
    with pytest.raises(SettingsError, match=fault):
        parse_arguments(arguments)


def test_the_options_have_defaults_and_take_several_forwarders():
    settings = parse_arguments([])
    assert (settings.register, settings.beat) == ((), 2.0)
    settings = parse_arguments(["--register", "127.0.0.1:5065, [::1]:5065", "--beat", "5"])
    assert (settings.register, settings.beat) == ((("127.0.0.1", 5065), ("::1", 5065)), 5.0)
