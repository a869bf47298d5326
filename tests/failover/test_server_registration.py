"""The registration table with literals: one datagram, the table, the time -> what it means."""

from __future__ import annotations

from collections import Counter

import pytest
from forwarder_kit import KEY, field, head
from fuzz_kit import broken, noise
from heartbeat_kit import beat, body

from failover.config.networks import LOOPBACK, Networks
from failover.config.settings import ServerLine
from failover.upstream.health import DOWN, RECOVERING, UP, Health
from failover.upstream.server_registration import (
    MAX_REFUSALS,
    MAX_REPLAY_CALL_IDS,
    MAX_REPLAY_SERVERS,
    MAX_SERVERS,
    Registration,
)
from plumbing.address import format_address

SENDER = ("127.0.0.1", 40_000)
FILE = (ServerLine("server1", ("127.0.0.1", 5070)),)
NET = Networks.parse("10.0.0.0/8")


@pytest.fixture
def table():
    return make()


def make(allow=LOOPBACK, foreign=False, static=FILE, own=("127.0.0.1", 5060)):
    return Registration(KEY, allow, foreign, static, Counter(), lambda address: address == own)


def shown(registration):
    return [(line.name, format_address(line.address)) for line in registration.lines()]


def refused(registration):
    return [(refusal.reason, refusal.times) for refusal in registration.refusals.values()]


def status(verdict):
    return int(head(verdict.answer)[0].split()[1]) if verdict.answer else None


# -- coming, beating, leaving ----------------------------------------------------------------------


@pytest.mark.parametrize("method", ["OPTIONS", "INFO"])
@pytest.mark.parametrize(
    "mark", ["Mobicents-Heartbeat: 1", "Restcomm-Heartbeat: 1", "mobicents-heartbeat :  1 "]
)
def test_a_heartbeat_registers_its_server_and_is_answered_200(table, method, mark):
    verdict = table.receive(beat(method=method, mark=mark), SENDER, 100.0)
    assert (verdict.kind, verdict.name, verdict.target) == (
        "arrived",
        "server2",
        ("127.0.0.1", 5080),
    )
    assert head(verdict.answer)[0] == "SIP/2.0 200 OK"
    assert field(verdict.answer, "CSeq") == f"1 {method}" and ";tag=" in field(verdict.answer, "To")
    assert shown(table) == [("server2", "127.0.0.1:5080")]
    assert table.receive(beat(number=2, method=method, mark=mark), SENDER, 105.0).kind == "beat"
    assert len(table.servers) == 1


def test_servers_stand_in_the_order_of_their_arrival_and_one_that_comes_again_is_the_last(table):
    for n in (3, 1, 2):
        table.receive(
            beat(body(port=5070 + n, hostname=f"s{n}"), call_id=f"life-{n}"), SENDER, 100.0 + n
        )
    assert [name for name, _ in shown(table)] == ["s3", "s1", "s2"]
    alive = {name: health for name, health in answering(table).items() if name != "s3"}
    assert [each.line.name for each, _ in table.sweep(109.0, 5.0, alive)] == ["s3"]
    table.receive(beat(body(port=5073, hostname="s3"), 2, "life-3"), SENDER, 110.0)
    assert [name for name, _ in shown(table)] == ["s1", "s2", "s3"]


def test_graceful_shutdown_is_a_leave_and_a_new_life_at_the_address_takes_it_back(table):
    table.receive(beat(), SENDER, 100.0)
    leave = body("127.0.0.1", 5080, "server2", "GRACEFUL_SHUTDOWN=true")
    assert table.receive(beat(leave, 2), SENDER, 101.0).kind == "leaving"
    assert table.receive(beat(leave, 3), SENDER, 102.0).kind == "beat", "it has said so before"
    assert table.servers[0].leaving
    assert table.receive(beat(call_id="life-2"), SENDER, 103.0).kind == "back"
    assert not table.servers[0].leaving


def test_an_answer_goes_to_the_sender_s_own_address_and_to_the_port_that_rfc_3581_names(table):
    for via, port in (
        ("192.0.2.66:5099", 5099),
        ("192.0.2.66:5099;rport", 40_000),
        ("a.example", 5060),
    ):
        verdict = table.receive(beat(via=via, call_id=via), SENDER, 100.0)
        assert verdict.target == ("127.0.0.1", port)
        assert "received=127.0.0.1" in field(verdict.answer, "Via")


def test_whoever_is_silent_for_the_timeout_is_out_and_whoever_answers_probes_is_not(table):
    for n in (1, 2, 3):
        table.receive(
            beat(body(port=5080 + n, hostname=f"s{n}"), call_id=f"life-{n}"), SENDER, 100.0
        )
    health = {
        "s1": Health(UP, 100.1, ""),
        "s2": Health(DOWN, 104.0, ""),
        "s3": Health(RECOVERING, 99.0, ""),
    }
    assert table.sweep(110.0, 10.0, health) == []
    gone = table.sweep(110.5, 10.0, health)
    assert [(each.line.name, why) for each, why in gone] == [
        ("s3", "neither beat nor answered heartbeats for 10 s")
    ]
    assert [each.line.name for each, _ in table.sweep(114.5, 10.0, health)] == ["s2"], (
        "last heard at 104"
    )
    assert shown(table) == [("s1", "127.0.0.1:5081")] and table.sweep(1000.0, 10.0, health) == []


def test_whoever_took_leave_is_out_as_soon_as_it_has_gone(table):
    table.receive(beat(), SENDER, 100.0)
    table.receive(
        beat(body("127.0.0.1", 5080, "server2", "GRACEFUL_SHUTDOWN=TRUE"), 2), SENDER, 101.0
    )
    assert table.sweep(101.1, 10.0, {"server2": Health(UP, 100.1, "")}) == []
    assert [why for _, why in table.sweep(101.2, 10.0, {"server2": Health(DOWN, 101.15, "")})] == [
        "took leave and has gone"
    ]


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hostname, name",
    [
        ("alpha.example-1", "alpha.example-1"),
        ("", "127.0.0.1:5080"),
        ("server1", "127.0.0.1:5080"),  # the file's
        ("phones", "127.0.0.1:5080"),  # the other side's
        ('a"} 1\\n# evil', "a-1-evil"),
        ("../../status", "status"),
        ("x" * 100, "x" * 40),
        ("\\u00fc\\u0000", "127.0.0.1:5080"),
    ],
)
def test_a_name_is_the_hostname_as_far_as_it_fits_and_is_free_else_the_address(
    table, hostname, name
):
    table.receive(beat(body(hostname=hostname)), SENDER, 100.0)
    assert shown(table) == [(name, "127.0.0.1:5080")]


def test_two_servers_of_one_computer_with_one_hostname_are_told_apart(table):
    table.receive(beat(body(port=5081, hostname="host")), SENDER, 100.0)
    table.receive(beat(body(port=5082, hostname="host"), call_id="life-2"), SENDER, 100.0)
    assert shown(table) == [("host", "127.0.0.1:5081"), ("127.0.0.1:5082", "127.0.0.1:5082")]


def test_a_server_of_the_file_may_beat_and_makes_no_second_one(table):
    leave = body("127.0.0.1", 5070, "server2", "GRACEFUL_SHUTDOWN=true")
    for text in (body(port=5070), leave):
        verdict = table.receive(beat(text), SENDER, 100.0)
        assert (verdict.kind, verdict.name, status(verdict)) == ("static", "server1", 200)
    assert table.servers == [] and not table.refusals


def test_after_a_reload_the_file_s_servers_have_their_addresses_and_names_and_the_others_stay(
    table,
):
    for n in (2, 3, 4):
        table.receive(
            beat(body(port=5070 + n, hostname=f"server{n}"), call_id=f"life-{n}"), SENDER, 100.0
        )
    file = (ServerLine("server2", ("127.0.0.1", 9000)), ServerLine("other", ("127.0.0.1", 5073)))
    expected = (
        ServerLine("127.0.0.1:5072", ("127.0.0.1", 5072)),
        ServerLine("server4", ("127.0.0.1", 5074)),
    )
    table.reconfigure(file, LOOPBACK, False)
    assert table.lines() == expected
    table.reconfigure(file, LOOPBACK, False)
    assert table.lines() == expected, "a name once taken from the address stays"
    table.reconfigure(file, NET, False)
    assert table.lines() == (), "none of them may register any more"


# -- what changes nothing --------------------------------------------------------------------------


def test_a_stranger_s_heartbeat_is_not_even_answered_and_is_shown_with_its_reason(table):
    verdict = table.receive(beat(body("192.0.2.7")), ("192.0.2.7", 5060), 100.0)
    assert (verdict.kind, verdict.answer, table.servers) == ("outside", b"", [])
    (shown,) = table.refusals.values()
    assert shown.note == "192.0.2.7 is not in registration.allow (127.0.0.0/8, ::1/128)"


def test_who_may_register_is_what_the_networks_say_and_then_loopback_may_not():
    table = make(NET)
    assert table.receive(beat(), SENDER, 100.0).kind == "outside"
    assert table.receive(beat(body("10.1.2.3", 5060)), ("10.1.2.3", 5060), 100.0).kind == "arrived"


def test_a_server_may_register_its_own_address_only_unless_it_is_allowed():
    text = body("10.1.2.4", 5060)
    closed, open_ = make(NET), make(NET, foreign=True)
    assert closed.receive(beat(text), ("10.1.2.3", 5060), 100.0).kind == "foreign"
    assert open_.receive(beat(text), ("10.1.2.3", 5060), 100.0).kind == "arrived"
    elsewhere = beat(body("192.0.2.7", 5060), call_id="life-2")
    assert open_.receive(elsewhere, ("10.1.2.3", 5060), 100.0).kind == "foreign", (
        "allowed networks all the same"
    )


def test_the_forwarder_s_own_address_is_no_server(table):
    verdict = table.receive(beat(body(port=5060)), SENDER, 100.0)
    assert (verdict.kind, status(verdict), table.servers) == ("own", 403, [])


@pytest.mark.parametrize(
    "data, note",
    [
        (beat(mark=""), "no Mobicents-Heartbeat: 1"),
        (beat(mark="Mobicents-Heartbeat: 2"), "no Mobicents-Heartbeat: 1"),
        (beat(method="INVITE"), "INVITE is no heartbeat; OPTIONS or INFO is"),
        (beat(""), "ip= is not an IP address"),
        (beat("ip=127.0.0.1"), "udpPort= is not a UDP port, which a server here must have"),
        (beat(body(port=0)), "udpPort=0 is not a UDP port, which a server here must have"),
        (beat(body(port=65_536)), "udpPort=65536 is not a UDP port, which a server here must have"),
        (
            beat(body(port="5080x")),
            "udpPort=5080x is not a UDP port, which a server here must have",
        ),
        (beat(body("server2.example")), "ip=server2.example is not an IP address"),
        (beat(body("0.0.0.0")), "ip=0.0.0.0 is not one computer's address"),
        (beat(body("224.0.0.1")), "ip=224.0.0.1 is not one computer's address"),
        (beat(body("fe80::1%eth0")), "ip=fe80::1%eth0 is not one computer's address"),
        (beat("ip=\\u12"), "body:1: '\\u12' is not a character: \\u takes four hexadecimal digits"),
    ],
)
def test_a_malformed_heartbeat_is_answered_400_and_shown_with_what_is_wrong(table, data, note):
    verdict = table.receive(data, SENDER, 100.0)
    assert (verdict.kind, table.servers) == ("malformed", [])
    assert (status(verdict), verdict.note) == (400, note)
    assert refused(table) == [("malformed", 1)]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n\r\n",
        b"hello",
        b"SIP/2.0 200 OK\r\n\r\n",
        beat(method="ACK"),
        beat(body() + "#" * 9_000),
        beat().replace(b"CSeq: 1 OPTIONS", b"CSeq: 1 INFO"),
        beat().replace(b"Call-ID: life-1\r\n", b""),
        beat(call_id=""),
        beat(call_id="x" * 300),
        beat().replace(b"Max-Forwards: 70", b"Max-Forwards: many"),
    ],
)
def test_what_cannot_be_answered_is_not(table, data):
    verdict = table.receive(data, SENDER, 100.0)
    assert (verdict.kind, verdict.answer, table.servers) == ("malformed", b"", [])


def test_there_is_room_for_so_many_and_the_next_hears_503():
    table = make()
    for n in range(MAX_SERVERS):
        assert (
            table.receive(beat(body(port=6000 + n), call_id=f"{n}"), SENDER, 100.0).kind
            == "arrived"
        )
    verdict = table.receive(beat(body(port=7000), call_id="one more"), SENDER, 100.0)
    assert (verdict.kind, status(verdict), field(verdict.answer, "Retry-After")) == (
        "full",
        503,
        "5",
    )
    assert table.receive(beat(body(port=6000), 2, "0"), SENDER, 101.0).kind == "beat"
    assert len(table.servers) == MAX_SERVERS


def fill(table, hosts, now=100.0):
    for n in range(MAX_SERVERS):
        host = hosts[n % len(hosts)]
        at_host = body(host, 6000 + n, f"greedy{n}")
        verdict = table.receive(beat(at_host, call_id=f"greedy{n}"), (host, 40_000), now + n / 1000)
        assert verdict.kind == "arrived"


def arrive(table, host, now, hostname="genuine", port=5080):
    """What becomes of a server of this host that registers itself."""
    one = beat(body(host, port, hostname), call_id=f"{hostname}-{now}")
    return table.receive(one, (host, 40_000), now).kind


def answering(table):
    return {line.name: Health(UP, 100.0, "") for line in table.lines()}


def test_a_host_that_fills_every_place_keeps_no_other_host_s_servers_out():
    table = make(allow=NET)
    fill(table, ["10.0.0.66"])
    table.sweep(101.0, 15.0, answering(table))
    for n in range(10):
        assert arrive(table, f"10.0.1.{n}", 101.0, f"genuine{n}") == "arrived"
    names = [name for name, _ in shown(table)]
    assert len(names) == MAX_SERVERS and names[-1] == "genuine9" and "greedy53" in names
    told = table.sweep(101.2, 15.0, answering(table))
    assert [each.line.name for each, _ in told] == [f"greedy{n}" for n in range(63, 53, -1)]
    assert told[0][1] == "gave way to genuine0: there are 64 registered servers at most"
    assert arrive(table, "10.0.0.66", 102.0, "greedy63", 7000) == "full", (
        "its places are taken by others now"
    )
    assert table.sweep(102.2, 15.0, answering(table)) == []


def test_two_hosts_end_with_half_the_places_each():
    table = make(allow=NET)
    fill(table, ["10.0.0.66"])
    table.sweep(101.0, 15.0, answering(table))
    came = []
    for n in range(MAX_SERVERS):
        came.append(arrive(table, "10.0.0.7", 101.0 + n, f"genuine{n}", 5000 + n))
        table.sweep(101.1 + n, 1e6, answering(table))
    assert came == ["arrived"] * 32 + ["full"] * 32


def test_many_hosts_of_one_network_of_ipv6_keep_no_other_network_out():
    table = make(allow=Networks.parse("2001:db8::/32"))
    fill(table, [f"2001:db8::{n:x}" for n in range(1, 65)])
    table.sweep(101.0, 15.0, answering(table))
    assert [arrive(table, "2001:db8:1::1", 101.0, f"one{n}", 5080 + n) for n in range(5)] == [
        "arrived"
    ] * 5
    assert arrive(table, "2001:db8::99", 101.0, "late") == "full"


def test_servers_that_answer_nothing_give_way_first_wherever_they_are():
    table = make(allow=NET)
    fill(table, ["10.0.0.66", "10.0.0.67"])
    health = {**answering(table), "greedy10": Health(DOWN, 101.0, "never heard")}
    assert arrive(table, "10.0.0.66", 101.0) == "full", "they have had no time to answer yet"
    table.sweep(103.0, 15.0, health)
    assert arrive(table, "10.0.0.66", 103.0) == "arrived"
    assert [each.line.name for each, _ in table.sweep(103.2, 15.0, health)] == ["greedy10"]
    assert arrive(table, "10.0.0.66", 104.0, "one-more", 5081) == "full"


def test_a_long_word_of_a_stranger_is_cut_where_a_word_ends_and_says_so(table):
    verdict = table.receive(beat(body(ip="192.0.2.1 " * 40)), SENDER, 100.0)
    assert verdict.kind == "malformed"
    assert "192.0.2.1... is not an IP address" in verdict.note


def test_a_leave_of_a_server_that_is_not_in_the_table_registers_nobody(table):
    verdict = table.receive(
        beat(body("127.0.0.1", 5080, "x", "GRACEFUL_SHUTDOWN=true")), SENDER, 100.0
    )
    assert (verdict.kind, status(verdict), table.servers) == ("unlisted", 200, [])


# -- replays ---------------------------------------------------------------------------------------


def test_the_last_heartbeat_again_is_a_retransmission_that_is_answered_and_proves_no_life(table):
    table.receive(beat(), SENDER, 100.0)
    verdict = table.receive(beat(), SENDER, 109.0)
    assert (verdict.kind, status(verdict)) == ("repeated", 200)
    assert (table.servers[0].last_beat_at, table.servers[0].beats) == (100.0, 1)


def test_a_cseq_that_does_not_grow_is_refused(table):
    leave = body("127.0.0.1", 5080, "server2", "GRACEFUL_SHUTDOWN=true")
    table.receive(beat(number=7), SENDER, 100.0)
    verdict = table.receive(beat(leave, 6), SENDER, 101.0)
    assert (verdict.kind, status(verdict), verdict.note) == ("replayed", 403, "CSeq 6 after 7")
    assert not table.servers[0].leaving


def test_the_leave_of_a_former_life_drains_nobody(table):
    leave = beat(body("127.0.0.1", 5080, "server2", "GRACEFUL_SHUTDOWN=true"), 2)
    table.receive(beat(), SENDER, 100.0)
    table.receive(leave, SENDER, 101.0)
    table.sweep(102.0, 10.0, {})
    table.receive(beat(call_id="life-2"), SENDER, 200.0)
    assert table.receive(leave, SENDER, 201.0).kind == "replayed"
    assert table.receive(beat(number=99), SENDER, 201.0).kind == "replayed", (
        "nor does any later number of that life"
    )
    assert not table.servers[0].leaving


def test_old_heartbeats_do_not_bring_back_a_server_that_left_and_a_partition_s_end_does(table):
    for number in (1, 2, 3):
        table.receive(beat(number=number), SENDER, 100.0)
    table.sweep(200.0, 10.0, {})
    assert [table.receive(beat(number=n), SENDER, 201.0).kind for n in (1, 2, 3)] == [
        "replayed"
    ] * 3
    assert table.servers == []
    assert table.receive(beat(number=4), SENDER, 202.0).kind == "arrived"


def test_servers_that_take_a_new_call_id_for_every_heartbeat_beat_too_and_memory_stays_bounded(
    table,
):
    for n in range(1000):
        assert table.receive(beat(call_id=f"c{n}"), SENDER, 100.0 + n).kind == (
            "beat" if n else "arrived"
        )
    assert table.receive(beat(call_id="c990"), SENDER, 2000.0).kind == "replayed"
    assert {len(heard) for heard in table._heard.values()} == {MAX_REPLAY_CALL_IDS}
    for n in range(1000):
        table.receive(beat(body(port=6000 + n), call_id="x"), SENDER, 3000.0 + n)
        table.sweep(3000.0 + n, 15.0, {})
    assert len(table._heard) <= MAX_REPLAY_SERVERS


def test_refusals_are_counted_by_computer_and_reason_and_only_the_latest_are_kept(table):
    for _ in range(5):
        table.receive(b"noise", SENDER, 100.0)
    for n in range(100):
        table.receive(b"noise", (f"192.0.2.{n}", 1), 101.0)
    assert len(table.refusals) == MAX_REFUSALS and refused(table)[-1] == ("outside", 1)
    table.receive(b"noise", SENDER, 102.0)
    table.receive(b"noise", SENDER, 103.0)
    assert refused(table)[-1] == ("malformed", 2)


def test_no_bytes_raise_and_none_of_them_change_a_server_but_a_heartbeat():
    """Any datagram is either a heartbeat of an allowed sender's own address or changes nothing but
    counters."""
    table = make()
    samples = [
        beat(),
        beat(method="INFO", number=3),
        beat(body("127.0.0.1", 5080, "s", "GRACEFUL_SHUTDOWN=true"), 5),
    ]
    for data in [*noise(2_000, 400), *broken(samples, 6_000)]:
        before = table.lines()
        verdict = table.receive(data, SENDER, 100.0)
        assert len(table.servers) <= MAX_SERVERS and len(table.refusals) <= MAX_REFUSALS
        if verdict.kind != "arrived":
            assert table.lines() == before
        assert not verdict.answer or verdict.target[0] == SENDER[0]
        assert all(line.address[0] == "127.0.0.1" for line in table.lines())
        if len(table.servers) > 50:
            table = make()


# -- networks --------------------------------------------------------------------------------------


def test_networks_as_an_operator_writes_them():
    networks = Networks.parse("10.0.0.0/8, 192.0.2.7,2001:db8::/32")
    inside = ["10.255.0.1", "192.0.2.7", "2001:db8::1"]
    assert [host in networks for host in (*inside, "192.0.2.8", "::1", "nonsense")] == [
        True
    ] * 3 + [False] * 3
    assert str(networks) == "10.0.0.0/8, 192.0.2.7/32, 2001:db8::/32"
    for text, fault in {
        "10.0.0.1/8": "'10.0.0.1/8' has bits beyond its length",
        "loopback": "'loopback' is not a network",
        "10.0.0.0/8,": "'' is not a network",
    }.items():
        with pytest.raises(ValueError, match=fault):
            Networks.parse(text)
