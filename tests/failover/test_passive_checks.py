"""A server that answers heartbeats and does nothing else is found out by its requests, which reach
another server; one that is merely slow, or whose phones do not answer, is not. A fake clock."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from functools import partial

import pytest
from forwarder_kit import (
    BOB,
    KEY,
    OWN,
    SERVERS,
    answer,
    answerable,
    config,
    fake_servers,
    field,
    make_table,
    plain_phone,
    request,
    running,
)

from failover.config.settings import CALL_ID, FIRST_LIVE, PHONES
from failover.proxy.core import Core
from failover.proxy.events import Dropped, FailoverRecord
from failover.upstream.health import ANSWER, REFUSED
from failover.upstream.passive_checks import LOOK_INTERVAL, TRIAL_SECONDS
from failover.upstream.server_table import EJECTED, AdminState, ServerTable
from plumbing.address import format_address

HEARTBEAT = 0.05
CONTACT = f"sip:bob@{BOB[0]}:{BOB[1]}"


class Node:
    """A server of the fake world. `late`: seconds until it handles a request; None: never, though
    it answers heartbeats. `proxies`: it passes requests on to Bob instead of answering them."""

    def __init__(self, name):
        self.name, self.address = name, SERVERS[name]
        self.late, self.proxies, self.hears = 0.001, False, True
        self.deaf_to = b"\0"  # it drops requests that have this in them
        self.got = []  # requests that it was sent
        self.repeats = b""  # what its timers send again and again


class World:
    """A core, two servers, and a network that may lose datagrams."""

    def __init__(self, policy=FIRST_LIVE, loss=0.0, seed=1):
        self.core = Core(make_table(policy), KEY, lambda host: OWN)
        self.nodes = {name: Node(name) for name in SERVERS}
        self.now, self.loss, self._dice = 100.0, loss, random.Random(seed)
        self._due, self._order = [], itertools.count()  # a heap of (when, order, what)
        self.asked, self.answered = {}, {}  # by Call-ID: when
        self.events = []
        self.bob_answers = True
        self._numbers = 0
        self._at(0.0, self._beat)
        self._at(0.0, self._look)

    def state(self, name="server1"):
        return self.core.table.by_name[name].state

    @property
    def server1(self):
        return self.nodes["server1"]

    def ask(self, method="OPTIONS", source=("192.0.2.7", 5060), **options):
        """A new request of a phone; it repeats it by RFC 3261's timer E until it is answered."""
        self._numbers += 1
        call_id = options.setdefault("call_id", f"call-{self._numbers}")
        data = request(method, source=source, branch=f"z9hG4bKp{self._numbers}", **options)
        self.asked[call_id] = self.now
        wait = 0.0
        for again in (0.0, 0.5, 1.0, 2.0, 4.0, 4.0, 4.0):
            wait += again
            self._at(wait, lambda: self._from_phone(data, call_id, source))

    def run(self, seconds, rate=0.0, **options):
        """Lets time pass while phones ask so many things a second, each a phone of its own."""
        until = self.now + seconds
        for n in range(int(seconds * rate)):
            source = "192.0.2.7", 1024 + (self._numbers + n) % 50_000
            self._at(n / rate, partial(self.ask, source=source, **options))
        while self._due[0][0] <= until:
            self.now, _, what = heapq.heappop(self._due)
            what()
        self.now = until

    def waits(self):
        """Seconds that each request waited for its first answer; those unanswered until now."""
        return [self.answered.get(call, self.now) - at for call, at in self.asked.items()]

    def unanswered(self, older_than=0.0):
        return [
            call
            for call, at in self.asked.items()
            if call not in self.answered and self.now - at > older_than
        ]

    def ejections(self):
        return sum(server.ejections for server in self.core.table.servers)

    def _beat(self):
        self._at(HEARTBEAT, self._beat)
        for node in self.nodes.values():
            if node.hears:
                self.do(
                    self.core.failover.signal(
                        node.name, ANSWER, self.now, "answers heartbeats (200)"
                    )
                )
            if node.repeats:
                self.do(self.core.receive(node.repeats, node.name, node.address, self.now))

    def _look(self):
        self._at(LOOK_INTERVAL, self._look)
        self.do(self.core.failover.on_timer(self.now))

    def _at(self, seconds, what):
        heapq.heappush(self._due, (self.now + seconds, next(self._order), what))

    def _lost(self):
        return self._dice.random() < self.loss

    def _from_phone(self, data, call_id, source):
        if call_id not in self.answered:
            self._receive(data, PHONES, source)

    def _receive(self, data, side, source):
        send = self.core.quick(data, side, source, self.now)
        if send:
            self._send(send)
        else:
            self.do(self.core.receive(data, side, source, self.now))

    def do(self, outcome):
        self.events += outcome.events
        for send in outcome.sends:
            self._send(send)
        while self.core.pending.moved:
            again = self.core.failover.replay(self.now)
            self.events += again.events
            for send in again.sends:
                self._send(send)

    def _send(self, send):
        if send.to != PHONES:
            self._at_server(self.nodes[send.to], send.data)
        elif send.data.startswith(b"SIP/"):
            self.answered.setdefault(field(send.data, "Call-ID"), self.now)
        elif self.bob_answers and not self._lost():
            data = answer(send.data)
            self._at(0.001, lambda: self._receive(data, PHONES, BOB))

    def _at_server(self, node, data):
        if self._lost():
            return
        if data.startswith(b"SIP/"):
            onward = data.partition(b"\r\nVia: ")
            popped = onward[0] + b"\r\n" + onward[2].partition(b"\r\n")[2]
            self._at(
                node.late or 0.0,
                lambda: node.late is not None and self._receive(popped, node.name, node.address),
            )
            return
        node.got.append(data)
        if node.late is None or node.deaf_to in data or data.startswith(b"ACK"):
            return
        sends = answer(data) if answerable(data) else b""
        if node.proxies:
            via = f"\r\nVia: SIP/2.0/UDP {format_address(node.address)};branch={_own_branch(data)}\r\nVia: "
            start = data.replace(b"sip:bob@failover.test SIP", CONTACT.encode() + b" SIP", 1)
            sends = start.replace(b"\r\nVia: ", via.encode(), 1)
        self._at(
            node.late, lambda: not self._lost() and self._receive(sends, node.name, node.address)
        )


def _own_branch(data):
    return "z9hG4bKs" + field(data, "Via").partition("branch=z9hG4bK")[2][:16]


def test_a_server_that_swallows_everything_costs_its_callers_less_than_three_seconds_once():
    world = World()
    world.run(2.0, rate=100)
    world.server1.late = None
    world.run(10.0, rate=100)
    assert world.state() == EJECTED and world.core.table.hot.name == "server2"
    assert world.unanswered(older_than=1.5) == [] and max(world.waits()) < 3.0
    assert "handled none of" in world.core.table.by_name["server1"].why
    (failover,) = [event for event in world.events if isinstance(event, FailoverRecord)]
    assert (failover.lost, failover.successor) == ("server1", "server2")
    before = len(world.asked)
    world.run(5.0, rate=100)
    late = list(world.waits())[before:]
    assert sum(wait > 0.1 for wait in late) <= 2, "but for the ones that it is tried with"


def test_even_a_single_caller_waits_less_than_three_seconds():
    world = World()
    world.run(5.0, rate=1)
    world.server1.late = None
    world.run(0.5)
    world.ask("INVITE")
    world.run(3.0)
    assert world.unanswered() == []


@pytest.mark.parametrize("rate", [5, 100])
def test_so_does_a_proxy_whose_phones_would_answer(rate):
    world = World()
    for node in world.nodes.values():
        node.proxies = True
    world.run(3.0, rate=rate, method="MESSAGE")
    world.server1.late = None
    world.run(12.0, rate=rate, method="MESSAGE")
    assert world.state() == EJECTED and max(world.waits()) < 3.0


def test_what_it_is_tried_with_becomes_rarer_and_costs_half_a_second_each():
    world = World()
    world.server1.late = None
    world.run(10.0, rate=50)
    got = []
    for _ in range(4):
        before = len(world.server1.got)
        world.run(30.0, rate=50)
        got.append(len(world.server1.got) - before)
    assert got[0] >= 1 and got[-1] <= 2 and sum(got) <= 12, got
    assert world.state() == EJECTED
    settled = [
        wait
        for call, wait in zip(world.asked, world.waits(), strict=True)
        if world.asked[call] < world.now - 2
    ]
    assert max(settled[600:]) <= TRIAL_SECONDS + 2 * LOOK_INTERVAL + 0.05


def test_it_is_in_use_again_once_it_has_handled_one():
    world = World()
    world.server1.late = None
    world.run(6.0, rate=50)
    assert world.state() == EJECTED
    world.server1.late = 0.001
    world.run(9.0, rate=50)
    assert world.state() == "UP" and world.core.table.hot.name == "server1"
    world.run(30.0, rate=50)
    assert world.ejections() == 1


def test_the_next_time_it_is_tried_later():
    world = World()
    for expected in (1.0, 4.0):  # the first trial fails each time
        world.server1.late = None
        while world.state() == "UP":
            world.run(0.1, rate=50)
        ejected, before = world.now, len(world.server1.got)
        while len(world.server1.got) == before:
            world.run(0.1, rate=50)
        assert world.now - ejected == pytest.approx(expected, abs=0.35)
        world.server1.late = 0.001
        while world.state() != "UP":
            world.run(0.1, rate=50)


# -- and what is decided on a trial may be out of date ---------------------------------------------


def on_trial():
    """A world whose server1 is ejected, and is to be tried with the next new request."""
    world = World()
    world.server1.late = None
    world.run(6.0, rate=50)
    while not world.core.failover.passive.trial:
        world.run(0.1)
    assert world.state() == EJECTED and world.core.failover.passive.trial.name == "server1"
    return world


def went_to(world):
    """Where the next new call goes."""
    invite = request(branch="z9hG4bKnew", call_id="new")
    (send,) = world.core.receive(invite, PHONES, ("192.0.2.7", 5060), world.now).sends
    return send.to


def dies(core, now):
    core.failover.signal("server1", REFUSED, now, "refused")


def is_removed(core, now):
    core.replace_table(ServerTable([core.table.by_name["server2"]], FIRST_LIVE), 3, 2, now)


def is_disabled(core, now):
    core.failover.set_admin_state("server1", AdminState.DISABLED, now)


def is_drained(core, now):
    core.failover.set_admin_state("server1", AdminState.DRAINING, now)


def says_503(core, now):
    core.failover.signal("server1", ANSWER, now, "answers heartbeats (503)", answered_503=True)


def says_farewell(core, now):
    core.failover.set_shutting_down("server1", True, now)


CHANGES = [dies, is_removed, is_disabled, is_drained, says_503, says_farewell]


@pytest.mark.parametrize("change", CHANGES)
def test_a_server_that_is_to_be_tried_no_more_costs_no_call(change):
    world = on_trial()
    change(world.core, world.now)
    assert went_to(world) == "server2"


@pytest.mark.parametrize("change", CHANGES)
def test_nor_does_it_keep_the_others_from_the_fast_path(change):
    world = on_trial()
    change(world.core, world.now)
    world.core.failover.on_timer(world.now + LOOK_INTERVAL)
    assert world.core.failover.passive.trial is None


@pytest.mark.parametrize("change", [is_disabled, is_drained, says_farewell])
def test_nor_is_it_tried_later(change):
    world = World()
    world.server1.late = None
    while world.state() != EJECTED:
        world.run(0.1, rate=50)
    change(world.core, world.now)
    before = len(world.server1.got)
    world.run(5.0, rate=50)
    assert world.state() == EJECTED and len(world.server1.got) == before


# -- it must not misfire ---------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1, 3, 20, 300])
def test_a_network_that_loses_thirty_per_cent_each_way_is_no_reason(rate):
    world = World(loss=0.3, seed=rate)
    world.run(600.0 if rate < 20 else 6000.0 / rate, rate=rate)
    assert world.ejections() == 0


def test_a_server_that_is_busy_for_three_seconds_stays_where_it_is():
    world = World()
    world.run(2.0, rate=100)
    world.server1.late = 3.0
    world.run(3.0, rate=100)
    world.server1.late = 0.001
    world.run(5.0, rate=100)
    assert (
        world.ejections() == 0 and world.state() == "UP" and world.core.table.hot.name == "server1"
    )
    assert not [event for event in world.events if isinstance(event, FailoverRecord)]


def test_a_server_that_is_three_seconds_late_all_the_time_stays_too():
    world = World()
    world.server1.late = 0.01
    for _ in range(30):
        world.server1.late = min(3.0, world.server1.late + 0.1)
        world.run(0.5, rate=50)
    world.run(20.0, rate=50)
    assert world.ejections() == 0


@pytest.mark.parametrize("method", ["MESSAGE", "INVITE", "BYE"])
def test_a_phone_that_does_not_answer_is_not_its_server_s_fault(method):
    world = World()
    for node in world.nodes.values():
        node.proxies = True
    world.bob_answers = False
    world.run(60.0, rate=2, method=method)
    assert world.ejections() == 0 and world.core.counters["hedged"] == 0


def test_a_call_that_rings_for_a_minute_is_nothing():
    world = World()
    for node in world.nodes.values():
        node.proxies = True
    world.bob_answers = False
    world.ask("INVITE")
    world.run(60.0)
    assert world.ejections() == 0 and world.nodes["server2"].got == []


def test_one_source_of_requests_that_every_server_drops_is_no_reason():
    world = World()
    for node in world.nodes.values():
        node.deaf_to = b"garbage"
    for _ in range(300):
        world.run(0.1)
        for _ in range(10):
            world.ask("MESSAGE", source=("192.0.2.66", 5060), extra=("X: garbage",))
    assert world.ejections() == 0 and world.state() == "UP"
    copies = Counter(field(each, "Call-ID") for each in world.nodes["server2"].got)
    assert max(copies.values()) <= 2, "a copy of each, and what its sender says again meanwhile"


def test_a_request_that_the_next_server_was_just_sent_is_left_there_for_a_while():
    """It does not wander back at once because that server has handled nothing lately either."""
    world = World()
    world.server1.late, world.nodes["server2"].late = None, 0.3
    world.nodes["server2"].deaf_to = b"garbage"
    for n in range(40):
        if n == 30:
            world.ask("MESSAGE", call_id="asked")
        world.ask("MESSAGE", source=("192.0.2.66", 5060), extra=("X: garbage",))
        world.run(0.1)
    world.run(2.0)
    dropped = [each.call for each in world.events if isinstance(each, Dropped)]
    assert dropped and "MESSAGE call=asked" not in dropped
    assert world.answered["asked"] - world.asked["asked"] < 1.6


def test_what_a_server_left_alone_long_ago_is_not_sent_to_others_when_it_is_slow():
    """It may have dropped that for a reason: it has handled others at that time."""
    world = World()
    world.server1.deaf_to = b"garbage"
    for n in range(200):
        world.run(0.1, rate=10)
        if n % 20 == 0:
            data = request("MESSAGE", branch=f"z9hG4bKg{n}", extra=("X: garbage",))
            world._receive(data, PHONES, ("192.0.2.66", 5060))
    world.server1.late = 1.5
    world.run(1.3, rate=4)
    assert world.core.counters["hedged"] <= 2
    assert not any(b"garbage" in each for each in world.nodes["server2"].got)


def test_the_first_server_s_late_answer_is_not_taken_for_the_next_one_s():
    world = World()
    world.server1.late, world.nodes["server2"].late = None, 60.0
    while not world.nodes["server2"].got:
        world.run(0.1, rate=10)
    asked = world.nodes["server2"].got[0]
    call = field(asked, "Call-ID")
    (first, *_) = [each for each in world.server1.got if field(each, "Call-ID") == call]
    for name, data in (("server1", first), ("server2", asked)):
        world._receive(answer(data, "100 Trying"), name, SERVERS[name])
    one, two = world.core.table.servers
    assert (one.handled, two.handled, two.handled_for_others) == (1, 1, 1)


def test_nor_are_single_lost_datagrams():
    world = World()
    world.run(20.0, rate=1)
    world.loss = 1.0
    world.run(0.2, rate=10)
    world.loss = 0.0
    world.run(20.0, rate=1)
    assert world.ejections() == 0 and world.core.counters["hedged"] <= 2


def test_the_last_server_stays_however_little_it_does():
    world = World()
    world.core.failover.signal("server2", REFUSED, world.now, "refused")
    world.nodes["server2"].hears = False
    world.server1.late = None
    world.run(20.0, rate=50)
    assert world.state() == "UP" and world.ejections() == 0


def test_an_ejected_server_is_used_again_when_no_other_is_left():
    world = World()
    world.server1.late = None
    world.run(6.0, rate=50)
    assert world.state() == EJECTED
    world.server1.late = 0.001
    world.nodes["server2"].hears = False
    world.do(world.core.failover.signal("server2", REFUSED, world.now, "refused"))
    assert world.core.table.hot.name == "server1"
    before = len(world.asked)
    world.run(1.0, rate=50)
    assert max(list(world.waits())[before:]) < 0.1


def test_a_server_whose_timers_repeat_old_messages_does_not_work():
    world = World()
    for node in world.nodes.values():
        node.proxies = True
    world.bob_answers = False
    world.ask("MESSAGE")
    world.run(0.05)
    via = f"\r\nVia: SIP/2.0/UDP {format_address(world.server1.address)};branch=z9hG4bKold\r\nVia: "
    world.server1.repeats = world.server1.got[0].replace(
        b"sip:bob@failover.test SIP", CONTACT.encode() + b" SIP", 1
    )
    world.server1.repeats = world.server1.repeats.replace(b"\r\nVia: ", via.encode(), 1)
    world.bob_answers, world.server1.late = True, None
    world.run(10.0, rate=50, method="MESSAGE")
    assert world.state() == EJECTED


def test_it_may_be_turned_off():
    world = World()
    world.core.failover.passive.configure(0, 3.0)
    world.server1.late = None
    world.run(10.0, rate=50)
    assert world.state() == "UP" and world.core.counters["hedged"] == 0


def test_an_operator_puts_it_back_by_enabling_it():
    world = World()
    world.server1.late = None
    world.run(6.0, rate=50)
    world.core.failover.set_admin_state("server1", AdminState.ENABLED, world.now)
    assert world.state() == "UP"


def test_with_calls_spread_over_both_only_the_one_that_works_gets_any():
    world = World(CALL_ID)
    world.run(2.0, rate=100)
    world.server1.late = None
    world.run(10.0, rate=100)
    assert world.state() == EJECTED and world.state("server2") == "UP" and max(world.waits()) < 3.0


@pytest.mark.long
def test_a_real_server_that_answers_only_heartbeats_loses_no_request(free_port, eventually):
    with fake_servers(free_port) as servers, plain_phone() as phone:
        listen = ("127.0.0.1", free_port())
        phone.settimeout(0.05)
        asked, answered = 0, set()
        with running(config(listen[1], servers)) as forwarder:
            servers[0].replies = False

            def ejected():
                nonlocal asked
                asked += 1
                own = phone.getsockname()
                phone.sendto(
                    request("OPTIONS", source=own, branch=f"z9hG4bK{asked}", call_id=f"c{asked}"),
                    listen,
                )
                hear()
                return forwarder.status()["servers"][0]["state"] == EJECTED

            def hear():
                try:
                    while True:
                        answered.add(field(phone.recv(65_535), "Call-ID"))
                except TimeoutError:
                    return len(answered) == asked

            eventually(ejected, 10.0)
            eventually(hear, 5.0)
            assert forwarder.status()["hot"] == "server2"
            servers[0].replies = True

            def back():
                ejected()
                return forwarder.status()["hot"] == "server1"

            eventually(back, 10.0)
