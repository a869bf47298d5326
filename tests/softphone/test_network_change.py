"""The network changes, the computer sleeps, ports and threads run out: what becomes of the phone
and its call."""

from __future__ import annotations

import errno
import time

import pytest
from agent_kit import BOB, Line, Network, Scripted, pair, talking
from wire import FORWARDER, World

from sip.message import reply
from sip.sdp import SessionDescription
from softphone import phone as phone_module
from softphone.media import session as session_module
from softphone.media.session import MediaSession
from softphone.ua.events import CallChanged, CallState, RegistrationState

NEW = "127.0.0.2"
PROXY = ("127.0.0.1", 5060)
TALKING, ENDED, INCOMING = CallState.TALKING, CallState.ENDED, CallState.INCOMING
REGISTERED = RegistrationState.REGISTERED


def hosts(message) -> tuple[str, str, str, str]:
    """Where a message says that answers, requests and media are wanted: Via, Contact, o= and c=."""
    said = SessionDescription.parse(message.body)
    origin = next(value for kind, value in said.lines if kind == "o").split()[-1]
    return message.via.host, message.contacts[0].uri.host, origin, said.connection(said.media[0])


def moves(line: Line, host: str = NEW) -> None:
    """The computer of this phone has another address from now on."""
    line.network.leave(line.address)
    line.address = (host, line.address[1])
    line.network.join(line.address, line)
    line.does("move", host)


def registrar(network: Network) -> Scripted:
    def react(request):
        return [reply(request, 200, to_tag="r", fields=[("Contact", request.get("Contact"))])]

    return Scripted(network, PROXY, react)


# -- the user agent --------------------------------------------------------------------------------


def test_a_registered_phone_that_gets_another_address_registers_it_and_takes_the_old_one_back():
    network = Network()
    server, alice = registrar(network), Line(network, "alice", 5062, PROXY)
    alice.does("register")
    network.run(0.1)
    moves(alice)
    network.run(0.1)
    request = server.requests("REGISTER")[-1]
    assert [(str(c.uri), c.params["expires"]) for c in request.contacts] == [
        ("sip:alice@127.0.0.2:5062", "300"),
        ("sip:alice@127.0.0.1:5062", "0"),
    ]
    assert alice.agent.registration.state is REGISTERED
    moves(alice)
    assert len(server.requests("REGISTER")) == 2, "the same address is no news"


def test_an_attempt_under_way_from_the_old_address_does_not_count():
    network = Network()
    alice = Line(network, "alice", 5062, PROXY)
    alice.does("register")
    network.run(0.1)
    server = registrar(network)
    moves(alice)
    network.run(0.1)
    assert [r.contacts[0].uri.host for r in server.requests("REGISTER")] == [NEW]
    assert alice.agent.registration.state is REGISTERED


def test_the_next_call_names_the_new_address_everywhere():
    network, alice, bob = pair()
    moves(alice)
    alice.calls(BOB)
    assert hosts(network.passed[-1].message) == (NEW,) * 4
    network.run(0.1)
    bob.answers()
    network.run(0.1)
    assert (alice.state, bob.state, bob.call.media.remote[0]) == (TALKING, TALKING, NEW)


@pytest.mark.parametrize("who", ["caller", "called"])
def test_a_call_that_is_up_follows_with_one_re_invite(who):
    network, alice, bob = talking()
    mover, other = (alice, bob) if who == "caller" else (bob, alice)
    moves(mover)
    asked = network.passed[-1]
    assert asked.name == "INVITE" and hosts(asked.message) == (NEW,) * 4
    network.run(0.1)
    assert other.call.media.remote == (NEW, mover.address[1] + 1000)
    count = network.names().count("INVITE")
    mover.does("move", NEW)
    assert network.names().count("INVITE") == count, "once is enough"
    other.does("hang_up")
    network.run(0.1)
    assert (alice.state, bob.state) == (ENDED, ENDED)


def test_a_call_on_hold_moves_and_stays_on_hold():
    network, alice, bob = talking()
    alice.does("hold")
    network.run(0.1)
    moves(alice)
    network.run(0.1)
    assert alice.call.held_here and bob.call.held_there and bob.call.media.remote[0] == NEW
    alice.does("resume")
    network.run(0.1)
    assert not bob.call.held_there and bob.call.media.remote[0] == NEW


def test_a_move_that_collides_with_their_hold_is_told_in_the_end():
    network, alice, bob = talking()
    old = alice.address
    bob.does("hold")
    moves(alice)
    network.parties[old] = alice  # their request still reaches it, as through a NAT or a server
    network.run(10.0)
    assert alice.call.held_there and bob.call.media.remote[0] == NEW


def test_a_move_that_the_answer_to_their_hold_has_told_is_not_told_again():
    network, alice, bob = talking()
    old = alice.address
    network.delays = lambda passage: (0.1,)
    alice.does("hold")  # it is under way when the address changes
    moves(alice)
    network.parties[old] = alice  # what went there still reaches it, as through a NAT or a server
    network.run(0.25)
    bob.does("hold")
    network.run(0.15)
    count = network.names().count("INVITE")
    network.run(10.0)
    assert alice.call.held_there and bob.call.media.remote[0] == NEW
    assert network.names().count("INVITE") == count


@pytest.mark.parametrize("wish, held", [("hold", True), ("resume", False)])
@pytest.mark.parametrize("answer", [491, None])
def test_a_hold_that_is_not_answered_yet_survives_a_move(wish, held, answer):
    network, alice, bob = talking()
    old = alice.address
    if not held:
        alice.does("hold")
        network.run(0.1)
    if answer:
        network.parties[bob.address] = Scripted(network, bob.address, lambda r: [reply(r, answer)])
        alice.does(wish)
        network.run(0.1)
        network.parties[bob.address] = bob
    else:
        network.delays = lambda passage: (0.3,)  # it is under way when the address changes
        alice.does(wish)
    assert alice.call.held_here is not held
    moves(alice)
    network.parties[old] = alice  # what went there still reaches it, as through a NAT or a server
    for _ in range(10):
        network.run(1.0)
        alice.does("move", NEW)  # the phone looks every second
    assert (alice.call.held_here, bob.call.held_there) == (held, held)
    assert bob.call.media.remote[0] == NEW


def test_a_call_that_rings_while_the_network_changes_is_answered_with_the_new_address():
    network, alice, bob = pair()
    alice.calls(BOB)
    network.run(0.1)
    moves(bob)
    bob.answers()
    answered = next(p.message for p in reversed(network.passed) if p.name == "200 INVITE")
    assert hosts(answered)[1:] == (NEW,) * 3


def test_a_call_that_is_answered_after_the_caller_moved_is_told():
    network, alice, bob = pair()
    alice.calls(BOB)
    network.run(0.1)
    moves(alice)
    bob.answers()
    network.parties[("127.0.0.1", 5062)] = (
        alice  # the answer still reaches it, as through a NAT or a server
    )
    network.run(0.1)
    alice.does("move", NEW)
    network.run(0.1)
    assert (alice.state, bob.call.media.remote[0]) == (TALKING, NEW)


def test_a_phone_that_slept_registers_at_once_and_asks_whether_its_call_still_lives():
    network = Network()
    server, alice = registrar(network), Line(network, "alice", 5062, PROXY)
    alice.does("register")
    network.run(0.1)
    alice.does("woke")
    network.run(0.1)
    assert len(server.requests("REGISTER")) == 2 and alice.agent.registration.state is REGISTERED
    network, alice, bob = talking()
    alice.does("woke")
    assert network.passed[-1].name == "UPDATE"
    network.run(0.1)
    assert (alice.state, bob.state) == (TALKING, TALKING)


def test_a_phone_nobody_wants_registered_stays_so():
    network = Network()
    server, alice = registrar(network), Line(network, "alice", 5062, PROXY)
    alice.does("woke")
    moves(alice)
    network.run(0.1)
    assert server.seen == []


# -- the phone -------------------------------------------------------------------------------------


@pytest.fixture
def computer(monkeypatch):
    """The address of this computer as the phones find it: `computer["host"]`."""
    now = {"host": "127.0.0.1"}
    monkeypatch.setattr(
        phone_module,
        "own_host",
        lambda bound, towards: now["host"] if bound == "0.0.0.0" else bound,
    )
    monkeypatch.setattr(phone_module, "LOOK_AGAIN", 0.05)
    return now


def test_a_call_goes_on_with_sound_after_the_network_has_changed(owners, computer, eventually):
    alice, bob = owners("alice", listen=("0.0.0.0", 0)), owners("bob")
    alice.phone.call(bob.uri)
    eventually(lambda: bob.state is INCOMING)
    bob.phone.answer()
    eventually(lambda: alice.state is bob.state is TALKING)
    computer["host"] = NEW
    eventually(lambda: bob.phone.snapshot().calls[-1].media.remote[0] == NEW)
    for owner in (alice, bob):
        before = owner.phone.media_stats().packets_received
        eventually(
            lambda owner=owner, before=before: (
                owner.phone.media_stats().packets_received > before + 10
            )
        )


def test_a_phone_that_starts_before_the_network_can_call_once_it_is_there(
    owners, computer, eventually
):
    computer["host"] = None
    alice, bob = owners("alice", listen=("0.0.0.0", 0)), owners("bob")
    computer["host"] = NEW
    alice.phone.call(bob.uri)
    eventually(lambda: bob.state is INCOMING)
    bob.phone.answer()
    eventually(lambda: alice.state is bob.state is TALKING)
    assert bob.phone.snapshot().calls[-1].media.remote[0] == NEW


def test_the_own_host_is_the_one_towards_the_other_side():
    assert phone_module.own_host("0.0.0.0", ("127.0.0.1", 5060)) == "127.0.0.1"
    assert phone_module.own_host("192.0.2.7", ("127.0.0.1", 5060)) == "192.0.2.7"


def test_a_sleep_is_noticed_by_the_clocks_that_went_on(owners, monkeypatch, eventually):
    monkeypatch.setattr(phone_module, "LOOK_AGAIN", 0.05)
    woke = []
    alice = owners("alice")
    monkeypatch.setattr(
        alice.phone._agent, "woke", lambda now: woke.append(now) or phone_module.Actions()
    )
    real = time.time
    alice.phone.snapshot()
    monkeypatch.setattr(time, "time", lambda: real() + 3600.0)
    eventually(lambda: len(woke) == 1)


@pytest.mark.parametrize("fault", [errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EMFILE])
def test_answering_without_a_port_for_sound_tells_both_why(owners, monkeypatch, eventually, fault):
    alice, bob = owners("alice"), owners("bob")
    alice.phone.call(bob.uri)
    eventually(lambda: bob.state is INCOMING)

    def fail(local):
        raise OSError(fault, "no two ports are free")

    monkeypatch.setattr(session_module, "bind_pair", fail)
    bob.phone.answer()
    eventually(lambda: alice.state is bob.state is ENDED)
    assert "No sound" in bob.sentence and "no two ports are free" in bob.sentence
    assert alice.sentence == "Bob cannot be reached right now"


def test_sound_that_cannot_begin_ends_the_call_with_a_sentence_and_loses_no_event(
    owners, monkeypatch, eventually
):
    alice, bob = owners("alice"), owners("bob")
    start = MediaSession.apply

    def fail(session, plan, *how):
        if plan.remote[1] == alice_port[0]:
            raise RuntimeError("can't start new thread")
        start(session, plan, *how)

    alice_port = [0]
    monkeypatch.setattr(MediaSession, "apply", fail)
    alice.phone.call(bob.uri)
    eventually(lambda: bob.state is INCOMING)
    alice_port[0] = alice.phone._sound._session.port
    bob.phone.answer()
    eventually(lambda: alice.state is bob.state is ENDED)
    assert TALKING in bob.states and TALKING in alice.states
    assert bob.sentence == "No sound: can't start new thread" and alice.sentence == "Bob hung up"


def test_a_window_that_fails_at_one_event_gets_the_next(eventually):
    seen = []

    def listen(event):
        if isinstance(event, CallChanged):
            seen.append(event.call.state)
            raise ValueError("the window is gone")

    alice = phone_module.Phone(
        phone_module.Account("alice", "failover.test"),
        None,
        ("127.0.0.1", 0),
        listen,
        register=False,
    )
    alice.start()
    alice.call("not an address")
    eventually(lambda: seen == [ENDED])
    alice.call("not an address")
    eventually(lambda: seen == [ENDED, ENDED])
    alice.stop()


# -- the network is away for a moment, or another NAT's --------------------------------------------


def without_network(world, line, seconds, wish):
    """The person at `line` wishes something in a moment in which the system refuses to send."""
    away = [True]
    world.network.lose = lambda packet: away[0] and packet.source == line.address
    line.does(wish)
    for _ in range(3):
        told = line.agent.on_unreachable(FORWARDER, world.network.now)
        world.network.send(line._done(told), line.address)
    world.run(seconds)
    away[0] = False
    world.run(60)


@pytest.mark.parametrize("who", ["caller", "called"])
def test_a_hang_up_while_the_network_is_away_ends_the_call_once_it_is_back(who):
    world = World()
    world.talk()
    world.run(5)
    without_network(world, world.alice if who == "caller" else world.bob, 1.0, "hang_up")
    assert (world.alice.state, world.bob.state) == (ENDED, ENDED)
    assert (world.bill.state, world.bill.seconds) == ("ended", 6)


@pytest.mark.parametrize("who", ["caller", "called"])
def test_a_call_given_up_or_declined_while_the_network_is_away_rings_nobody_once_it_is_back(who):
    world = World()
    world.register()
    world.alice.calls("bob")
    world.run(0.5)
    without_network(world, world.alice if who == "caller" else world.bob, 1.0, "hang_up")
    assert (world.alice.state, world.bob.state) == (ENDED, ENDED)


def test_a_hold_while_the_network_is_away_is_done_once_it_is_back():
    world = World()
    world.talk()
    without_network(world, world.alice, 1.0, "hold")
    assert world.alice.sentence == "Bob is on hold"
    assert world.bob.sentence == "Alice has put the call on hold"


class Nat(Network):
    """Alice's phone is behind one; what is sent to a former port of it arrives nowhere."""

    inside, host, port = ("10.0.0.2", 5062), "127.0.0.9", 7000

    def send(self, packets, source):
        passed = []
        for data, to, *rest in packets:
            sender = rest[0] if rest else source
            if sender == self.inside:
                sender = self.host, self.port
            if to == (self.host, self.port):
                to = self.inside
            passed.append((data, to, sender))
        super().send(passed, source)


class BehindNat(World):
    def make_network(self):
        return Nat()

    def phone(self, user, port, password=""):
        if user != "alice":
            return super().phone(user, port, password)
        return Line(self.network, user, 5062, FORWARDER, password, host="10.0.0.2", keep_alive=15.0)


@pytest.mark.parametrize("who", ["caller", "called"])
def test_a_call_goes_on_behind_a_nat_that_gives_the_phone_another_port(who):
    world = BehindNat()
    world.register()
    world.run(1)
    world.alice.calls("bob")
    world.run(0.3)
    world.bob.answers()
    world.run(5)
    world.network.port += 1
    world.run(16)
    (world.alice if who == "caller" else world.bob).does("hang_up")
    world.run(2)
    assert (world.alice.state, world.bob.state) == (ENDED, ENDED)
    world.bob.calls("alice")
    world.run(1)
    assert world.alice.state is INCOMING


@pytest.mark.parametrize("wish", ["hold", "probe"])
def test_a_call_that_the_other_phone_knows_no_more_ends_at_the_servers_too(wish):
    world = World()
    world.talk()
    world.run(5)
    world.phone("bob", 5064)  # started anew
    world.alice.does(wish)
    world.run(2)
    assert world.alice.sentence == "The call with Bob was lost"
    assert (world.bill.state, world.bill.seconds) == ("ended", 5)
