"""What real networks do to a message's addresses, and the forwarder all the same. Literals."""

from __future__ import annotations

import contextlib
import socket
import sys

import pytest
from forwarder_kit import (
    ALICE,
    BOB,
    KEY,
    SERVERS,
    answer,
    config,
    fake_servers,
    field,
    head,
    make_core,
    make_table,
    plain_phone,
    request,
    running,
)

from failover.config.settings import PHONES, read
from failover.forwarder import Forwarder
from failover.net.own_address import OwnAddress
from failover.net.sockets import icmp_errors
from failover.proxy.core import Core
from failover.upstream.health import REFUSED
from plumbing.address import format_address
from plumbing.udp_batch import DatagramIO
from sip.uri import Uri

S1 = SERVERS["server1"]
CONTACT = f"sip:bob@{BOB[0]}:{BOB[1]}"
BEHIND_NAT = "Via: SIP/2.0/UDP 10.1.1.1:5060;rport;branch=z9hG4bKinv1"


def via_of(data):
    return field(data, "Via")


def branch_of(data):
    return via_of(data).partition(";branch=")[2].partition(";")[0]


# -- a NAT that gives each message another port ----------------------------------------------------


def test_cancel_and_ack_meet_their_invite_though_they_come_from_another_port():
    core = make_core()
    invite = core.receive(request(via=BEHIND_NAT), PHONES, ("198.51.100.9", 6001), 1.0).sends[0]
    cancel = core.receive(
        request("CANCEL", via=BEHIND_NAT), PHONES, ("198.51.100.9", 6009), 2.0
    ).sends[0]
    again = core.receive(request(via=BEHIND_NAT), PHONES, ("198.51.100.9", 6013), 2.5).sends[0]
    ack = core.receive(
        request("ACK", via=BEHIND_NAT, to_tag="b"), PHONES, ("198.51.100.10", 6017), 3.0
    ).sends[0]
    assert len({branch_of(send.data) for send in (invite, cancel, again, ack)}) == 1
    assert {send.to for send in (invite, cancel, again, ack)} == {"server1"}


def test_the_answer_to_each_goes_where_that_one_came_from():
    core = make_core()
    asked = {
        port: core.receive(request(method, via=BEHIND_NAT), PHONES, ("198.51.100.9", port), 1.0)
        .sends[0]
        .data
        for method, port in (("INVITE", 6001), ("CANCEL", 6009))
    }
    for port, data in asked.items():
        (back,) = core.receive(answer(data), "server1", S1, 2.0).sends
        assert back.target == ("198.51.100.9", port)


def test_and_nobody_can_send_it_elsewhere():
    """`received` and `rport` are no part of the branch any more; they are signed all the same."""
    core = make_core()
    asked = core.receive(request(via=BEHIND_NAT), PHONES, ("198.51.100.9", 6001), 1.0).sends[0].data
    for forged in (
        answer(asked).replace(b"received=198.51.100.9", b"received=203.0.113.66"),
        answer(asked).replace(b"rport=6001", b"rport=6002"),
        answer(asked).replace(b";received=198.51.100.9", b""),
        answer(asked).replace(b";back=", b";x="),
        answer(asked).replace(b";rport=6001", b""),
    ):
        assert forged != answer(asked)
        for side, source in (("server1", S1), (PHONES, BOB)):
            assert core.quick(forged, side, source, 2.0) is None
            assert core.receive(forged, side, source, 2.0).sends == ()
    assert core.receive(answer(asked), "server1", S1, 2.0).sends


def test_a_retransmission_by_another_port_is_known_where_the_calls_are_spread():
    core = make_core("call-id")
    first = core.receive(request(via=BEHIND_NAT), PHONES, ("198.51.100.9", 6001), 1.0).sends[0]
    other = next(server for server in core.table.servers if server.name != first.to)
    branch = branch_of(first.data).encode()
    assert core.pending.server_of(branch, branch + b"INVITE") == first.to != other.name


def test_a_refused_call_s_ack_finds_its_server_by_another_port_too():
    core = make_core("call-id")
    calls = [f"call-{n}" for n in range(8)]
    for n, call_id in enumerate(calls):
        via = f"Via: SIP/2.0/UDP 10.1.1.1:5060;rport;branch=z9hG4bKi{n}"
        invite = core.receive(
            request(via=via, call_id=call_id), PHONES, ("198.51.100.9", 6001), 1.0
        ).sends[0]
        busy = answer(invite.data, "486 Busy Here")
        core.receive(busy, invite.to, SERVERS[invite.to], 1.1)
        ack = request("ACK", via=via, call_id=call_id, to_tag="b")
        assert core.receive(ack, PHONES, ("198.51.100.9", 7000 + n), 1.2).sends[0].to == invite.to


# -- an address to be reached at that is not the one it sends from ---------------------------------


def test_our_via_asks_peers_to_answer_to_where_the_request_came_from():
    core = make_core()
    to_server = core.receive(request(), PHONES, ALICE, 1.0).sends[0].data
    assert via_of(to_server).endswith(";rport")
    to_phone = (
        core.receive(request("MESSAGE", CONTACT, source=S1), "server1", S1, 1.0).sends[0].data
    )
    assert via_of(to_phone).endswith(";rport")
    told = answer(to_server).replace(b";rport\r\n", b";rport=5060;received=192.0.2.1\r\n", 1)
    assert core.receive(told, "server1", S1, 1.1).sends[0].target == ALICE


def test_an_answer_in_which_that_is_filled_in_takes_the_quick_way():
    core = make_core()
    for n in range(5):
        data = request("OPTIONS", branch=f"z9hG4bKx{n}")
        send = (
            core.quick(data, PHONES, ALICE, 1.0) or core.receive(data, PHONES, ALICE, 1.0).sends[0]
        )
        told = answer(send.data).replace(b";rport\r\n", b";rport=5060;received=192.0.2.1\r\n", 1)
        back = core.quick(told, "server1", S1, 1.0)
        if not back:
            (back,) = core.receive(told, "server1", S1, 1.0).sends
            assert n == 0
        assert back.target == ALICE


# -- its own addresses -----------------------------------------------------------------------------


def own_core(listen, advertise=None, names=()):
    own = OwnAddress(listen, advertise, names)
    table = make_table(servers={"server1": ("127.0.0.1", 5070), "server2": ("127.0.0.1", 5080)})
    return Core(table, KEY, own.towards_phone, is_own=own.is_own, advertised_to_server=own.towards)


@pytest.mark.parametrize(
    "listen, advertise, names, route",
    [
        (("127.0.0.1", 5060), ("203.0.113.9", 5060), "", "127.0.0.1:5060"),
        (("127.0.0.1", 5060), ("203.0.113.9", 5060), "", "203.0.113.9:5060"),
        (("127.0.0.1", 5060), ("203.0.113.9", 5060), "", "203.0.113.9"),
        (("127.0.0.1", 5064), ("203.0.113.9", 5062), "", "127.0.0.1:5064"),
        (("0.0.0.0", 5060), None, "", "127.0.0.1:5060"),
        (("0.0.0.0", 5060), None, "", "127.0.0.2"),
        (("0.0.0.0", 5060), ("203.0.113.9", 5060), "", "127.0.0.1"),
        (("127.0.0.1", 5060), None, "sip.example.com, 192.0.2.1:5062", "sip.example.com"),
        (("127.0.0.1", 5060), None, "sip.example.com, 192.0.2.1:5062", "SIP.Example.COM:5060"),
        (("127.0.0.1", 5060), None, "sip.example.com, 192.0.2.1:5062", "192.0.2.1:5062"),
        (("127.0.0.1", 5064), None, "sip.example.com", "sip.example.com"),
    ],
)
def test_a_route_with_any_of_its_addresses_is_its_own_from_the_first_message_on(
    listen, advertise, names, route
):
    names = read(f"server1=127.0.0.1:5070\nforwarder.names={names}", "test").names
    asked = request(
        uri="sip:bob@127.0.0.9:6002",
        source=("127.0.0.1", 5070),
        extra=(f"Route: <sip:{route};lr>",),
    )
    at = "server1", ("127.0.0.1", 5070), 1.0
    (send,) = own_core(listen, advertise, names).receive(asked, *at).sends
    assert send.to == PHONES and send.target == ("127.0.0.9", 6002), head(send.data)[0]
    assert field(send.data, "Route") is None
    core = own_core(listen, advertise, names)
    for n in range(4):  # the quick way agrees, which learns from the second on
        asked = asked.replace(b"z9hG4bK", b"z9hG4bKx", 1)
        quick = core.quick(asked, *at) or core.receive(asked, *at).sends[0]
        assert quick.target == ("127.0.0.9", 6002), n


@pytest.mark.parametrize(
    "route", ["127.0.0.1:5061", "sip.example.org", "sip.example.com:5062", "192.0.2.1:5060"]
)
def test_any_other_route_is_somebody_else_s(route):
    names = read(
        "server1=127.0.0.1:5070\nforwarder.names=sip.example.com, 192.0.2.1:5062", "test"
    ).names
    core = own_core(("127.0.0.1", 5060), names=names)
    asked = request(
        uri="sip:bob@127.0.0.9:6002",
        source=("127.0.0.1", 5070),
        extra=(f"Route: <sip:{route};lr>",),
    )
    (send,) = core.receive(asked, "server1", ("127.0.0.1", 5070), 1.0).sends
    assert send.target != ("127.0.0.9", 6002)


# -- one address, written in many ways -------------------------------------------------------------

LONG_LOOPBACK = "[0:0:0:0:0:0:0:1]:5060"


@pytest.mark.parametrize(
    "written", ["[::1]:5060", LONG_LOOPBACK, "[0::0001]:5060", "[::0.0.0.1]:5060"]
)
def test_ipv6_addresses_are_compared_as_addresses(written):
    own, server, bob = ("::1", 5060), ("2001:db8::a", 5070), ("2001:db8::b", 5060)
    core = Core(
        make_table(servers={"server1": server}),
        KEY,
        lambda host: own,
        is_own=lambda each: each == own,
    )
    asked = request(
        uri="sip:bob@[2001:DB8:0:0::b]", source=server, extra=(f"Route: <sip:{written};lr>",)
    )
    (send,) = core.receive(asked, "server1", server, 1.0).sends
    assert send.target == bob and field(send.data, "Route") is None
    to_server = request("MESSAGE", "sip:bob@[2001:db8:0:0:0:0:0:A]:5070", source=bob)
    (passed,) = core.receive(to_server, PHONES, bob, 1.0).sends
    assert passed.to == "server1"
    core.failover.signal("server1", REFUSED, 2.0, "refused")
    assert core.table.by_address[server].name == "server1"


def test_a_dead_server_s_address_is_written_over_however_it_is_spelled():
    servers = {"server1": ("2001:db8::a", 5070), "server2": ("2001:db8::c", 5070)}
    core = Core(make_table(servers=servers), KEY, lambda host: ("2001:db8::1", 5060))
    core.failover.signal("server1", REFUSED, 2.0, "refused")
    bye = request(
        "BYE", "sip:bob@[2001:DB8:0:0:0:0:0:a]:5070", source=("2001:db8::b", 5060), to_tag="b"
    )
    (passed,) = core.receive(bye, PHONES, ("2001:db8::b", 5060), 3.0).sends
    assert (
        passed.to == "server2" and head(passed.data)[0] == "BYE sip:bob@[2001:db8::c]:5070 SIP/2.0"
    )


def test_an_answer_finds_its_server_however_that_one_writes_itself_into_its_via():
    server, bob = ("2001:db8::a", 5070), ("2001:db8::b", 5060)
    core = Core(make_table(servers={"server1": server}), KEY, lambda host: ("2001:db8::1", 5060))
    via = "Via: SIP/2.0/UDP [2001:DB8:0:0:0:0:0:A]:5070;branch=z9hG4bKs"
    (send,) = core.receive(
        request("OPTIONS", "sip:bob@[2001:db8::b]", via=via), "server1", server, 1.0
    ).sends
    assert ";received" not in head(send.data)[2], "it is where it says"
    (back,) = core.receive(answer(send.data), PHONES, bob, 1.0).sends
    assert back.to == "server1"


def test_two_uris_with_one_address_name_the_same():
    one, other = (
        Uri.parse("sip:bob@[2001:DB8:0:0::1]:5060"),
        Uri.parse("sip:bob@[2001:db8::1]:5060"),
    )
    assert one.same_as(other) and one.aor() == other.aor() and one.address() == other.address()


# -- no stricter than the job needs ----------------------------------------------------------------


@pytest.mark.parametrize(
    "old, new",
    [
        ("CSeq: 1 INVITE", "CSeq: 1\tINVITE"),
        ("CSeq: 1 INVITE", "CSeq:\t1 \t INVITE "),
        ("Max-Forwards: 70", "Max-Forwards:\t70\t"),
        (
            "From: Alice <sip:alice@failover.test>;tag=a",
            'From: "Alice <sip:alice@failover.test>;tag=a',
        ),
        (
            "From: Alice <sip:alice@failover.test>;tag=a",
            "From: Alice <<sip:alice@failover.test;tag=a",
        ),
        ("Content-Length: 0", "Content-Length: 0\r\nSubject no colon here"),
        ("Content-Length: 0", "Content-Length: 0\r\nSome Header: of two words"),
        ("Content-Length: 0", "Content-Length: 0\r\n: no name"),
        ("Content-Length: 0", 'Content-Length: 0\r\nContact: "Bob <sip:a@b'),
        ("Content-Length: 0", "Content-Length: 0\r\nRecord-Route: <sip:not an address"),
        (
            "Content-Length: 0",
            "Content-Length: 0\r\nDate: yesterday\r\nExpires: soon\r\nTimestamp: x",
        ),
    ],
)
def test_what_is_not_needed_may_be_broken_and_goes_on_as_it_came(old, new):
    core, asked = make_core(), request().replace(old.encode(), new.encode())
    assert asked != request()
    (send,) = core.receive(asked, PHONES, ALICE, 1.0).sends
    assert send.to == "server1" and (
        new.rpartition("\n")[2].encode() in send.data or "Max-Forwards" in new
    )
    (back,) = core.receive(answer(send.data), "server1", S1, 1.1).sends
    assert back.target == ALICE
    for place in (b"Record-Route: ", b"Content-Length: "):
        told = answer(send.data).replace(place, b"Subject no colon here\r\n" + place, 1)
        (back,) = core.receive(told, "server1", S1, 1.2).sends
        assert b"\r\nSubject no colon here\r\n" in back.data


def test_a_carriage_return_inside_a_line_is_refused_for_the_next_reader_may_take_it_for_two():
    asked = request(extra=("Subject: x\rRoute: <sip:203.0.113.66>",))
    assert head(make_core().receive(asked, PHONES, ALICE, 1.0).sends[0].data)[0].startswith(
        "SIP/2.0 400"
    )


@pytest.mark.parametrize("size", [17_000, 40_000])
@pytest.mark.parametrize("where", ["one line", "many lines"])
def test_a_header_that_is_too_large_is_told_so(size, where):
    many = tuple(f"X-{n}: {'x' * 90}" for n in range(size // 100))
    lines = (f"X-Long: {'x' * size}",) if where == "one line" else many
    for asked in (
        request(extra=lines),
        request().replace(b"Content-Length", "\r\n".join((*lines, "C")).encode(), 1),
    ):
        core = make_core()
        (refused,) = core.receive(
            asked.replace(b"\r\nC: ", b"\r\nContent-Length: "), PHONES, ALICE, 1.0
        ).sends
        assert head(refused.data)[0].startswith("SIP/2.0 513") and refused.target == ALICE
        assert len(refused.data) < 1000


STUN = bytes.fromhex("000100002112a442") + b"transaction."
OLD_STUN = bytes.fromhex("0001000400000000") + b"transaction." + b"1234"


@pytest.mark.parametrize(
    "data",
    [
        b"jaK",
        b"\r\n\r\n",
        b"\r\n",
        b"\0",
        b"\0\0\0\0",
        b"  ",
        b"\t",
        b"hi",
        STUN,
        OLD_STUN,
        b"\0\x11" + STUN[2:],
    ],
)
def test_what_keeps_a_nat_open_is_counted_as_that(data):
    core = make_core()
    outcome = core.receive(data, PHONES, ALICE, 1.0)
    assert outcome.sends == () and outcome.events == ()
    assert core.counters == {"keepalives": 1}


@pytest.mark.parametrize(
    "data", [b"hello", STUN + b"x", b"\0\x01\0\x08" + STUN[4:], b"GET / HTTP/1.0\r\n\r\n"]
)
def test_and_nothing_else_is(data):
    core = make_core()
    core.receive(data, PHONES, ALICE, 1.0)
    assert core.counters["keepalives"] == 0 and core.counters["dropped.malformed"] == 1


# -- what the system will not send, or a phone's computer refuses ----------------------------------


@pytest.fixture
def scene(free_port):
    """(the forwarder, its address, its two servers, a phone), on loopback."""
    with fake_servers(free_port) as servers, plain_phone() as phone:
        listen = ("127.0.0.1", free_port())
        with running(config(listen[1], servers)) as forwarder:
            yield forwarder, listen, servers, phone


def server_asks(server, listen, host, port, method="INVITE", n=1, **options):
    data = request(
        method,
        f"sip:bob@{host}:{port}",
        source=server.address,
        branch=f"z9hG4bKs{n}",
        call_id=f"call-{n}",
        **options,
    )
    server.send(data, listen)


def answers(server, call_id="call-1"):
    return [
        head(data)[0]
        for data in server.heard
        if data.startswith(b"SIP/2.0") and field(data, "Call-ID") == call_id
    ]


@pytest.mark.skipif(
    sys.platform != "linux", reason="other systems have no queue of refusals to be read"
)
def test_a_phone_whose_port_is_closed_is_told_to_the_one_who_calls_it_at_once(
    scene, free_port, eventually
):
    forwarder, listen, servers, _ = scene
    server_asks(servers[0], listen, "127.0.0.1", free_port())
    eventually(lambda: answers(servers[0]) == ["SIP/2.0 503 Service Unavailable"])
    assert forwarder.status()["counters"]["refused"] == 1


@pytest.mark.skipif(
    sys.platform != "linux", reason="other systems have no queue of refusals to be read"
)
def test_its_refusals_cost_no_other_phone_a_datagram(scene, free_port, eventually):
    _, listen, servers, phone = scene
    closed, (host, port) = free_port(), phone.getsockname()
    got = 0
    for n in range(1, 101):
        server_asks(servers[0], listen, "127.0.0.1", closed, n=2 * n)
        server_asks(servers[0], listen, host, port, "MESSAGE", n=2 * n + 1)
        got += phone.recv(65_535).startswith(b"MESSAGE")
    assert got == 100
    eventually(lambda: all(answers(servers[0], f"call-{2 * n}") for n in range(1, 101)))


@pytest.mark.skipif(
    sys.platform != "linux", reason="other systems have no queue of refusals to be read"
)
def test_a_refusal_that_comes_while_the_address_is_given_up_holds_nobody_up(scene):
    """The look at what was refused waits in the loop's queue while the socket is closed."""
    forwarder, _, _, _ = scene

    def give_up():
        phones = forwarder._relay.phones
        forwarder._loop.post(lambda: forwarder._relay._handle_icmp_errors(phones))
        forwarder.release_address()
        assert icmp_errors(phones.sock) == []

    forwarder._loop.ask(give_up)
    assert forwarder.status()["errors"] == 0


@pytest.mark.skipif(
    sys.platform != "linux", reason="other systems have no queue of refusals to be read"
)
def test_a_caller_who_gives_up_after_the_called_phone_has_crashed_hears_so_at_once(
    scene, free_port, eventually
):
    """The final answer to the INVITE ends the call (RFC 3261 9.1), and only the phone could give
    it."""
    _, listen, servers, _ = scene
    server_asks(servers[0], listen, "127.0.0.1", free_port(), "CANCEL")
    eventually(lambda: len(answers(servers[0])) == 2)
    numbers = [field(data, "CSeq") for data in servers[0].heard if data.startswith(b"SIP/2.0")]
    assert list(zip(answers(servers[0]), numbers, strict=True)) == [
        ("SIP/2.0 200 OK", "1 CANCEL"),
        ("SIP/2.0 503 Service Unavailable", "1 INVITE"),
    ]


def test_a_bye_to_a_phone_that_is_gone_is_not_refused(scene, free_port, eventually):
    _, listen, servers, _ = scene
    server_asks(servers[0], listen, "127.0.0.1", free_port(), "BYE", to_tag="b")
    server_asks(servers[0], listen, "127.0.0.1", free_port(), "ACK", n=2, to_tag="b")
    server_asks(servers[0], listen, "127.0.0.1", free_port(), "INVITE", n=3)
    eventually(lambda: answers(servers[0], "call-3"))
    assert answers(servers[0]) == answers(servers[0], "call-2") == []


def test_nor_is_an_answer_to_one_told_to_anybody_however_odd_it_is(scene, free_port, eventually):
    forwarder, listen, servers, _ = scene
    servers[0].odd, servers[0].late = b"X-Odd without a colon\r\n", 0.2  # when the phone is gone
    with plain_phone() as gone:
        gone.sendto(request("OPTIONS", source=gone.getsockname()), listen)
    eventually(lambda: forwarder.status()["counters"].get("refused"))
    assert forwarder.status()["errors"] == 0


def test_where_no_route_leads_its_sender_hears_503_at_once(scene, eventually):
    """From an address of loopback nothing can leave this computer, so the system refuses and sends
    nothing."""
    forwarder, listen, servers, _ = scene
    server_asks(servers[0], listen, "192.0.2.9", 5060)
    eventually(lambda: answers(servers[0]) == ["SIP/2.0 503 Service Unavailable"])
    assert forwarder.status()["counters"]["trouble.send"] == 1


def test_what_has_grown_too_large_for_a_datagram_is_told_so_and_owed_by_nobody(scene):
    forwarder, listen, _, phone = scene
    large = request("MESSAGE", source=phone.getsockname()).replace(
        b"Content-Length: 0", b"Content-Length: 65200"
    )
    phone.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    phone.sendto(large + b"x" * 65_200, listen)
    assert head(phone.recv(65_535))[0].startswith("SIP/2.0 513")
    assert forwarder.status()["in_flight"] == 0


# -- several addresses of one computer -------------------------------------------------------------


@pytest.fixture(params=["batches", "one by one"])
def everywhere(request, free_port, monkeypatch):
    """(its port, its server) of a forwarder that listens on every address."""
    if request.param == "one by one":
        monkeypatch.setattr("failover.forwarder.fastest_io", DatagramIO)
    with fake_servers(free_port) as servers:
        port = free_port()
        listed = [f"{each.name}={format_address(each.address)}" for each in servers]
        settings = read(
            "\n".join([f"forwarder.listen=0.0.0.0:{port}", "admin.listen=", *listed]), "test"
        )
        forwarder = Forwarder(settings)
        forwarder.start()
        try:
            yield port, servers[0]
        finally:
            forwarder.stop()


linux = pytest.mark.skipif(
    sys.platform != "linux", reason="other systems do not say which address was meant"
)


@linux
def test_each_phone_is_answered_from_the_address_that_it_has_asked(everywhere):
    port, server = everywhere
    for n in range(1, 41):
        host = f"127.0.0.{1 + n % 3}"
        with plain_phone() as phone:
            phone.sendto(
                request("OPTIONS", source=phone.getsockname(), branch=f"z9hG4bK{n}"), (host, port)
            )
            data, source = phone.recvfrom(65_535)
            assert data.startswith(b"SIP/2.0 200") and source == (host, port)
            own = f"SIP/2.0/UDP 127.0.0.1:{port}"
            assert via_of(server.heard[-1]).startswith(own), (
                "towards the server the one that it uses"
            )
            phone.sendto(
                request("INVITE", source=phone.getsockname(), branch=f"z9hG4bKi{n}"), (host, port)
            )
            phone.recv(65_535)
            assert field(server.heard[-1], "Record-Route").startswith(f"<sip:{host}:{port};lr")


@linux
def test_many_phones_at_once_are_too(everywhere):
    port, _ = everywhere
    with contextlib.ExitStack() as stack:
        phones = [stack.enter_context(plain_phone()) for _ in range(60)]
        for n, phone in enumerate(phones):
            asked = request("OPTIONS", source=phone.getsockname(), branch=f"z9hG4bK{n}")
            phone.sendto(asked, (f"127.0.0.{n % 7 + 1}", port))
        assert [phone.recvfrom(65_535)[1][0] for phone in phones] == [
            f"127.0.0.{n % 7 + 1}" for n in range(60)
        ]


@linux
def test_a_phone_is_called_from_the_address_that_it_has_registered_at(everywhere):
    port, server = everywhere
    with plain_phone() as phone:
        phone.sendto(request("REGISTER", source=phone.getsockname()), ("127.0.0.2", port))
        phone.recv(65_535)
        server_asks(server, ("127.0.0.1", port), *phone.getsockname())
        data, source = phone.recvfrom(65_535)
        assert data.startswith(b"INVITE") and source == ("127.0.0.2", port)
        assert via_of(data).startswith(f"SIP/2.0/UDP 127.0.0.2:{port}")
        phone.sendto(
            request("REGISTER", source=phone.getsockname(), branch="z9hG4bKr2"), ("127.0.0.1", port)
        )
        assert phone.recvfrom(65_535)[1] == ("127.0.0.1", port), "it has changed its mind"
