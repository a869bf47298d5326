"""Loops and spirals (RFC 5393): a request that comes again asked for the same is refused with 482;
one that passes twice or more because each time somebody changed it goes on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from forwarder_kit import (
    ALICE,
    BOB,
    KEY,
    SERVERS,
    answer,
    field,
    head,
    make_core,
    make_table,
    plain_phone,
    request,
)

from failover.config.settings import FIRST_LIVE, PHONES, ServerLine, read
from failover.forwarder import Forwarder
from failover.proxy.core import Core

S1 = SERVERS["server1"]
CONTACT = f"sip:bob@{BOB[0]}:{BOB[1]}"
FORWARDERS = {name: (f"192.0.2.{n}", 5060) for n, name in enumerate(("f", "g", "h"), 101)}


def sent(outcome):
    (send,) = outcome.sends
    return send


def through_server(data, uri=None, branch="z9hG4bKproxy", where=S1):
    """What a server makes of a request: its Via on top, and another Request-URI if it has one."""
    first, rest = data.split(b"\r\n", 1)
    method, was, version = first.decode().split()
    via = f"Via: SIP/2.0/UDP {where[0]}:{where[1]};branch={branch}\r\n"
    return f"{method} {uri or was} {version}\r\n{via}".encode() + rest


def test_a_call_passes_twice_once_in_each_direction():
    core = make_core()
    first = sent(core.receive(request(), PHONES, ALICE, 1.0)).data
    again = sent(core.receive(through_server(first, CONTACT), "server1", S1, 1.0))
    assert again.target == BOB and core.counters["dropped.loop"] == 0


def test_a_proxy_that_leaves_the_request_uri_alone_is_no_loop():
    core = make_core()
    first = sent(core.receive(request(uri=CONTACT), PHONES, ALICE, 1.0)).data
    assert sent(core.receive(through_server(first), "server1", S1, 1.0)).target == BOB


def test_a_spiral_goes_on_while_each_round_asks_for_something_else():
    core = make_core()
    data = request(uri="sip:one@failover.test")
    for n, uri in enumerate(
        ["sip:two@failover.test", "sip:three@failover.test", "sip:four@failover.test"]
    ):
        data = sent(core.receive(data, PHONES, ALICE, 1.0)).data
        data = through_server(data, uri, f"z9hG4bKspiral{n}", where=("192.0.2.50", 5060))
    assert sent(core.receive(data, PHONES, ("192.0.2.50", 5060), 1.0)).to == "server1"
    assert core.counters["dropped.loop"] == 0


def test_a_retransmission_is_no_loop():
    core = make_core()
    vias = {field(sent(core.receive(request(), PHONES, ALICE, 1.0)).data, "Via") for _ in range(3)}
    assert len(vias) == 1


@pytest.mark.parametrize("side, source", [("server1", S1), (PHONES, ("192.0.2.50", 5060))])
def test_what_comes_straight_back_is_a_loop_whoever_sends_it(side, source):
    core = make_core()
    first = sent(core.receive(request(uri=CONTACT), PHONES, ALICE, 1.0)).data
    refused = sent(core.receive(first, side, source, 1.0))
    assert head(refused.data)[0] == "SIP/2.0 482 Loop Detected"
    assert core.counters["dropped.loop"] == core.counters["answered.482"] == 1


def test_the_same_request_from_the_same_side_again_is_a_loop():
    core = make_core()
    first = sent(core.receive(request(), PHONES, ALICE, 1.0)).data
    stranger = ("192.0.2.50", 5060)
    again = sent(core.receive(through_server(first, where=stranger), PHONES, stranger, 1.0))
    assert head(again.data)[0] == "SIP/2.0 482 Loop Detected" and again.target == stranger


def test_a_forged_loop_mark_counts_nothing():
    core = make_core()
    first = sent(core.receive(request(), PHONES, ALICE, 1.0)).data
    word = field(first, "Via").partition(";loop=")[2]
    via = f"Via: SIP/2.0/UDP 192.0.2.7:5060;branch=z9hG4bKa;loop={word}"
    forged = request(via=f"{via}\r\n{via}")
    assert sent(core.receive(forged, PHONES, ALICE, 1.0)).to == "server1"


def test_cancel_and_ack_keep_the_branch_of_their_invite_however_they_spell_its_uri():
    core = make_core()
    first = field(sent(core.receive(request(), PHONES, ALICE, 1.0)).data, "Via")
    for method in ("CANCEL", "ACK"):
        other = request(method, uri="sip:bob@FAILOVER.test", to_tag="b" if method == "ACK" else "")
        via = field(sent(core.receive(other, PHONES, ALICE, 1.0)).data, "Via")
        assert via.partition(";loop=")[0] == first.partition(";loop=")[0]


def test_the_answer_to_what_passed_twice_finds_its_way_back():
    core = make_core()
    first = sent(core.receive(request(), PHONES, ALICE, 1.0)).data
    ringing = sent(core.receive(through_server(first, CONTACT), "server1", S1, 1.0)).data
    to_server = sent(core.receive(answer(ringing), PHONES, BOB, 1.1))
    assert to_server.to == "server1"
    popped = to_server.data.replace(f"Via: {field(to_server.data, 'Via')}\r\n".encode(), b"", 1)
    back = sent(core.receive(popped, "server1", S1, 1.2))
    assert back.target == ALICE and field(back.data, "Via") == field(request(), "Via")


@pytest.mark.parametrize("names", [("f",), ("f", "g"), ("f", "g", "h")])
@pytest.mark.parametrize(
    "uri", ["sip:bob@failover.test", CONTACT, "sip:192.0.2.101", "sip:192.0.2.102"]
)
def test_a_ring_of_forwarders_ends_within_two_rounds(names, uri):
    """Each has the next as its only server; the last has the first. Each with a secret of its
    own."""
    cores = {}
    for n, name in enumerate(names):
        following = names[(n + 1) % len(names)]
        table = make_table(FIRST_LIVE, {following: FORWARDERS[following]})
        cores[name] = Core(table, KEY + name.encode(), lambda host, name=name: FORWARDERS[name])
    flying, hops = [(request("MESSAGE", uri=uri), ALICE, FORWARDERS["f"])], 0
    while flying:
        data, source, target = flying.pop()
        name = next((name for name in names if FORWARDERS[name] == target), None)
        if name is None:
            continue  # it left the ring: to Alice, or where the Request-URI says
        hops += 1
        assert hops < 20, "it goes round and round"
        core = cores[name]
        side = next((line.name for line in core.table.servers if line.address == source), PHONES)
        for send in core.receive(data, side, source, 1.0).sends:
            flying.append((send.data, target, send.target or FORWARDERS[send.to]))


def test_a_server_line_that_points_at_the_forwarder_itself_melts_nothing(free_port, eventually):
    """The file refuses such a line; here it is smuggled in."""
    port = free_port()
    settings = read(
        f"forwarder.listen=127.0.0.1:{port}\nadmin.listen=\nme=127.0.0.1:{free_port()}", "test"
    )
    forwarder = Forwarder(replace(settings, servers=(ServerLine("me", ("127.0.0.1", port)),)))
    forwarder.start()
    try:
        with plain_phone() as phone:
            for n in range(20):
                phone.sendto(
                    request("INVITE", source=phone.getsockname(), branch=f"z9hG4bK{n}"),
                    ("127.0.0.1", port),
                )
            answers = [head(phone.recv(65_535))[0] for _ in range(20)]
        assert set(answers) <= {"SIP/2.0 482 Loop Detected", "SIP/2.0 503 Service Unavailable"}
        passed = forwarder.status()["counters"].get("passed.requests", 0)
        assert passed < 1000, "the phone's, and a few for each heartbeat"
    finally:
        forwarder.stop()


def test_two_forwarders_that_point_at_each_other_melt_nothing(free_port):
    ports = free_port(), free_port()
    texts = [
        f"forwarder.listen=127.0.0.1:{one}\nadmin.listen=\nother=127.0.0.1:{two}"
        for one, two in (ports, ports[::-1])
    ]
    pair = [Forwarder(read(text, "test")) for text in texts]
    try:
        for forwarder in pair:
            forwarder.start()
        with plain_phone() as phone:
            for n in range(20):
                phone.sendto(
                    request("INVITE", source=phone.getsockname(), branch=f"z9hG4bK{n}"),
                    ("127.0.0.1", ports[0]),
                )
            answers = {head(phone.recv(65_535))[0] for _ in range(20)}
        assert answers <= {
            f"SIP/2.0 {answer}"
            for answer in ("482 Loop Detected", "502 Bad Gateway", "503 Service Unavailable")
        }
        assert (
            sum(forwarder.status()["counters"].get("passed.requests", 0) for forwarder in pair)
            < 2000
        )
    finally:
        for forwarder in pair:
            forwarder.stop()
