"""What servers owe, as the forwarder tells it.

It grows old without traffic, and nobody is owed what ends at a B2BUA.
"""

from __future__ import annotations

import logging

import pytest
from forwarder_kit import (
    ALICE,
    BOB,
    OWN,
    SERVERS,
    answer,
    fake_servers,
    field,
    make_core,
    plain_phone,
    request,
)

from failover.admin.event_log import EventLog
from failover.admin.status import status
from failover.config.settings import PHONES, read
from failover.forwarder import Forwarder
from failover.net.active_standby import ACTIVE, BOUND, HaState
from failover.upstream.health import REFUSED

S1, S2 = SERVERS["server1"], SERVERS["server2"]
STANDING = HaState("192.0.2.1:5060", ACTIVE, 0.0, "was free at the start", BOUND)


@pytest.fixture(params=["as it is read", "the short way"])
def core(request):
    """Takes messages by either way; the short one where it can."""
    core = make_core()

    def pass_on(data, side, source, now):
        send = core.quick(data, side, source, now) if request.param == "the short way" else None
        return send or core.receive(data, side, source, now).sends[0]

    core.pass_on = pass_on
    return core


def in_flight(core, now):
    return status(core, OWN, STANDING, 0.0, now, now)["in_flight"]


def b2bua_invite(n):
    """What a B2BUA sends to the called phone: an INVITE of its own."""
    return request(
        "INVITE",
        uri=f"sip:bob@{BOB[0]}:{BOB[1]}",
        source=S1,
        branch=f"z9hG4bKown{n}",
        call_id=f"leg-{n}",
    )


def ack(n, uri):
    return request("ACK", uri=uri, branch=f"z9hG4bKack{n}", call_id=f"call-{n}", to_tag="b")


def kill(core, now):
    core.failover.signal("server1", REFUSED, now, "its port refused a message")
    while core.pending.moved:
        core.failover.replay(now)
    return core.failover.records[-1]


# -- age -------------------------------------------------------------------------------------------


def test_what_was_sent_is_no_longer_in_flight_after_a_second_in_which_nothing_comes(
    free_port, eventually
):
    with fake_servers(free_port) as servers, plain_phone() as phone:
        address = ("127.0.0.1", free_port())
        lines = [f"{server.name}=127.0.0.1:{server.address[1]}" for server in servers]
        lines += [f"forwarder.listen=127.0.0.1:{address[1]}", "admin.listen="]
        forwarder = Forwarder(read("\n".join(lines), "servers.properties"))
        forwarder.start()
        try:
            eventually(lambda: all(each["state"] == "UP" for each in forwarder.status()["servers"]))
            phone.sendto(request("ACK", source=phone.getsockname(), to_tag="b"), address)
            eventually(lambda: forwarder.status()["in_flight"] == 1)
            eventually(lambda: forwarder.status()["in_flight"] == 0)
            assert "forwarder_in_flight 0\n" in forwarder.metrics()
        finally:
            forwarder.stop()


def test_a_request_that_nobody_answers_is_over_after_32_seconds_though_none_comes_after_it(core):
    core.pass_on(request(), PHONES, ALICE, 100.0)
    core.failover.on_timer(131.9)
    assert in_flight(core, 131.9) == 1
    core.failover.on_timer(132.1)
    assert in_flight(core, 132.1) == 0 and core.counters["inflight.expired"] == 1


def test_what_is_kept_while_no_server_lives_grows_old_by_itself_too():
    core = make_core()
    for name in SERVERS:
        core.failover.signal(name, REFUSED, 100.0, "refused")
    core.receive(request("INFO", to_tag="b"), PHONES, ALICE, 100.0)
    core.receive(request("BYE", to_tag="b", call_id="call-2"), PHONES, ALICE, 100.0)
    assert status(core, OWN, STANDING, 0.0, 101.0, 101.0)["kept"] == 2
    core.failover.on_timer(132.1)
    assert status(core, OWN, STANDING, 0.0, 132.1, 132.1)["kept"] == 1, (
        "a hang-up is kept until a server lives"
    )


# -- what ends at a server -------------------------------------------------------------------------


def test_a_b2bua_killed_with_answered_calls_owed_nobody_anything(core):
    """Twenty calls a second: each has rung, been answered and acknowledged when the server dies."""
    for n in range(20):
        called = core.pass_on(
            request(branch=f"z9hG4bK{n}", call_id=f"call-{n}"), PHONES, ALICE, 100.0
        ).data
        asked = core.pass_on(b2bua_invite(n), "server1", S1, 100.0).data
        for said in ("180 Ringing", "200 OK"):
            core.pass_on(answer(asked, said), PHONES, BOB, 100.1)
        core.pass_on(answer(called), "server1", S1, 100.1)
        core.pass_on(ack(n, f"sip:{S1[0]}:{S1[1]}"), PHONES, ALICE, 100.2)
    assert in_flight(core, 100.3) == 0
    failover = kill(core, 100.3)
    assert (failover.in_flight, failover.replayed, failover.kept) == (0, 0, 0)


def test_a_challenge_of_the_server_itself_is_acknowledged_and_over(core):
    asked = core.pass_on(request(), PHONES, ALICE, 100.0).data
    core.pass_on(answer(asked, "401 Unauthorized"), "server1", S1, 100.01)
    core.pass_on(request("ACK", to_tag="b"), PHONES, ALICE, 100.02)
    assert in_flight(core, 100.03) == 0
    assert kill(core, 100.03).in_flight == 0


def test_a_proxy_owes_what_it_is_to_pass_on(core):
    """Beneath its own Via is the forwarder's, which shows that the request did not begin there."""
    asked = core.pass_on(request(), PHONES, ALICE, 100.0).data
    onward = asked.replace(
        b"sip:bob@failover.test SIP", f"sip:bob@{BOB[0]}:{BOB[1]} SIP".encode(), 1
    )
    onward = onward.replace(
        b"Via: ", f"Via: SIP/2.0/UDP {S1[0]}:{S1[1]};branch=z9hG4bKproxy\r\nVia: ".encode(), 1
    )
    ringing = answer(core.pass_on(onward, "server1", S1, 100.01).data, "486 Busy Here")
    refused = core.pass_on(ringing, PHONES, BOB, 100.02).data
    assert in_flight(core, 100.03) == 2, "the INVITE, and the refusal that is to be passed on"
    onward = refused.replace(f"Via: {field(refused, 'Via')}\r\n".encode(), b"", 1)
    core.pass_on(onward, "server1", S1, 100.04)
    assert in_flight(core, 100.05) == 0
    core.pass_on(request("ACK", to_tag="b"), PHONES, ALICE, 100.06)
    assert in_flight(core, 100.07) == 1, (
        "a proxy without transactions passes the ACK to a phone's refusal on"
    )
    failover = kill(core, 100.08)
    assert (failover.in_flight, failover.replayed) == (1, 1)


def test_what_ended_at_the_last_server_is_not_missed(core):
    """Nothing that it owed is lost, and no more is kept than it owed."""
    core.failover.signal("server2", REFUSED, 99.0, "refused")
    asked = core.pass_on(b2bua_invite(1), "server1", S1, 100.0).data
    core.pass_on(answer(asked), PHONES, BOB, 100.1)
    failover = kill(core, 100.2)
    assert (failover.in_flight, failover.replayed, failover.kept) == (0, 0, 0)


def test_a_b2bua_that_hears_only_answers_is_not_suspected_of_swallowing_them(core):
    """It asks a phone twice a second; what comes back ends there, as it must."""
    core.failover.passive.configure(3, 1.0)
    for tick in range(100):
        now = 100.0 + tick / 10
        if not tick % 5:
            uri, branch = f"sip:bob@{BOB[0]}:{BOB[1]}", f"z9hG4bKown{tick}"
            asked = request("OPTIONS", uri=uri, source=S1, branch=branch, call_id=f"own-{tick}")
            core.pass_on(answer(core.pass_on(asked, "server1", S1, now).data), PHONES, BOB, now)
        assert core.failover.on_timer(now).sends == ()
    assert not core.counters["hedged"] and not core.counters["ejections"]


# -- words -----------------------------------------------------------------------------------------


def test_the_log_says_how_long_the_request_had_waited_and_not_that_the_server_took_so_long(caplog):
    """The phone asked at 100, repeated itself at 112, and server2 answered that within a
    millisecond."""
    core = make_core()
    core.receive(request("OPTIONS"), PHONES, ALICE, 100.0)
    core.failover.signal("server1", REFUSED, 111.999, "refused")
    asked = core.receive(request("OPTIONS"), PHONES, ALICE, 112.0).sends[0].data
    outcome = core.receive(answer(asked), "server2", S2, 112.001)
    event_log = EventLog(core.counters)
    with caplog.at_level(logging.WARNING, logger="forwarder"):
        for event in outcome.events:
            event_log.record(event)
    assert (
        "failover over: first answer of server2, to a request that had waited 12 s" in caplog.text
    )
    assert "after it was asked" not in caplog.text
