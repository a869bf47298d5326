"""A message that one server after the other goes down of is stopped; one that only happened to be
there when servers went down is not lost. Literals."""

from __future__ import annotations

import pytest
from forwarder_kit import ALICE, BOB, SERVERS, answer, head, make_core, request

from failover.config.settings import PHONES
from failover.proxy.outage_queue import FIRST_PAUSE_SECONDS, MAX_DOUBLINGS
from failover.upstream.health import ANSWER, REFUSED

HEARTBEAT, RESTART = 0.05, 0.2  # seconds
FOR_GOOD = FIRST_PAUSE_SECONDS * 2**MAX_DOUBLINGS  # the longest pause
NONE = b"none is deadly"


class Servers:
    """Both servers of a core. They go down of each message that begins with `deadly`, and answer
    heartbeats again after RESTART. `told`: (receiver, first line) of all others."""

    def __init__(self, deadly=NONE):
        self.core, self.deadly, self.now = make_core(), deadly, 100.0
        self.deaths, self.told = 0, []
        self._back_at = dict.fromkeys(SERVERS, 0.0)

    def phone(self, data, source=ALICE):
        send = self.core.quick(data, PHONES, source, self.now)
        self._carry_out([send] if send else self.core.receive(data, PHONES, source, self.now).sends)

    def kill(self, name):
        self._back_at[name] = self.now + RESTART
        self._carry_out(self.core.failover.signal(name, REFUSED, self.now, "refused").sends)

    def _carry_out(self, sends):
        for send in sends:
            if send.to != PHONES and send.data.startswith(self.deadly):
                self.deaths += 1
                self.now += 0.01
                self.kill(send.to)
            else:
                self.told.append((send.to, head(send.data)[0]))

    def run(self, seconds):
        until = self.now + seconds
        while self.now < until:
            self.now += HEARTBEAT
            self._carry_out(self.core.failover.on_timer(self.now).sends)
            for name in SERVERS:
                if self.now >= self._back_at[name]:
                    signal = self.core.failover.signal(name, ANSWER, self.now, "answers")
                    self._carry_out(signal.sends)


def bye(branch="z9hG4bKbye"):
    return request("BYE", branch=branch, to_tag="b")


def test_a_bye_that_every_server_goes_down_of_does_so_ever_more_rarely_and_is_not_lost():
    servers = Servers(deadly=b"BYE ")
    servers.phone(bye())
    servers.run(3.0)
    assert servers.deaths == 3, "each of them, and the first to come back"
    servers.run(300.0)
    assert servers.deaths <= 10, "then after 4, 8, 16 ... seconds"
    servers.deadly = NONE
    servers.run(FOR_GOOD)
    assert servers.told == [("server1", "BYE sip:bob@failover.test SIP/2.0")]


def test_nor_do_its_copies_reach_a_server_meanwhile():
    servers = Servers(deadly=b"BYE ")
    for wait in (0.5, 1.0, 2.0):
        servers.phone(bye())
        servers.run(wait)
    assert servers.deaths == 3 and servers.told == []
    servers.deadly = NONE
    servers.run(FIRST_PAUSE_SECONDS)
    assert len(servers.told) == 1
    servers.phone(bye())
    assert len(servers.told) == 2, "from then on they do"


def test_other_messages_are_served_while_it_waits():
    servers = Servers(deadly=b"BYE ")
    servers.phone(bye())
    servers.run(1.0)
    servers.phone(request("OPTIONS"))
    assert [line.split()[0] for _, line in servers.told] == ["OPTIONS"]


@pytest.mark.parametrize("method", ["INVITE", "REGISTER", "MESSAGE"])
def test_what_begins_something_new_is_refused_after_it_ended_each_server(method):
    servers = Servers()
    servers.phone(request(method))
    for name in ("server1", "server2", "server1"):
        servers.kill(name)
        servers.run(RESTART + 2 * HEARTBEAT)
    onward = f"{method} sip:bob@failover.test SIP/2.0"
    assert servers.told == [
        *((name, onward) for name in ("server1", "server2", "server1")),
        (PHONES, "SIP/2.0 503 Service Unavailable"),
    ]


def test_an_invite_that_has_rung_for_long_is_not_what_ended_three_servers():
    servers = Servers()
    servers.phone(request())
    servers.core.receive(ringing(servers.core), "server1", SERVERS["server1"], servers.now)
    servers.run(5.0)
    for _ in range(3):
        servers.kill(servers.core.table.hot.name)
        servers.run(5.0)
    lines = [line for to, line in servers.told if to == PHONES]
    assert "SIP/2.0 503 Service Unavailable" not in lines


def ringing(core):
    return answer(asked(core), "180 Ringing")


def asked(core):
    """The INVITE as server1 has it."""
    (send,) = core.receive(request(), PHONES, ALICE, 100.0).sends
    return send.data


def test_a_refusal_that_every_server_goes_down_of_does_so_ever_more_rarely_too():
    servers = Servers()
    vias = b"Via: SIP/2.0/UDP 192.0.2.11:5070;branch=z9hG4bKs1\r\nVia:"
    onward = (
        asked(servers.core).replace(b"Via:", vias, 1).replace(b"failover.test", b"192.0.2.8", 1)
    )
    (at_bob,) = servers.core.receive(onward, "server1", SERVERS["server1"], 100.0).sends
    servers.deadly = b"SIP/2.0 486"
    servers.phone(answer(at_bob.data, "486 Busy Here"), BOB)
    servers.run(300.0)
    assert 3 <= servers.deaths <= 10
    servers.deadly = NONE
    servers.run(FOR_GOOD)
    assert ("server1", "SIP/2.0 486 Busy Here") in servers.told


def test_a_bye_that_waited_in_an_outage_is_not_dropped_as_three_servers_happen_to_go_down_with_it():
    servers = Servers()
    for name in SERVERS:
        servers.kill(name)
    servers.phone(bye())
    servers.deadly = b"BYE "
    servers.run(1.0)
    assert servers.deaths == 3
    servers.deadly = NONE
    servers.run(FIRST_PAUSE_SECONDS)
    assert [line.split()[0] for _, line in servers.told] == ["BYE"]
