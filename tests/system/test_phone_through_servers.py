"""What the phones can do since lately, through the forwarder and the servers: all cores joined in
memory."""

from __future__ import annotations

import pytest
from agent_kit import Line, Scripted
from slee_kit import FORWARDER
from wire import SERVERS, World

from sip.message import reply
from softphone.ua.events import CallState, RegistrationState

TALKING, ENDED, INCOMING = CallState.TALKING, CallState.ENDED, CallState.INCOMING


def test_a_ring_that_is_acknowledged_passes_forwarder_and_servers():
    world = World()
    world.network.edit = lambda data: data.replace(b"Supported: 100rel\r\n", b"Require: 100rel\r\n")
    world.talk()
    assert (world.alice.state, world.bob.state) == (TALKING, TALKING), world.network.ladder()
    names = world.network.names(world.alice.address) + world.network.names(world.bob.address)
    assert names.count("PRACK") == names.count("200 PRACK") == names.count("180 INVITE") == 1


def test_a_ring_is_acknowledged_through_the_other_server_when_the_first_dies_on_it():
    world = World()
    world.network.edit = lambda data: data.replace(b"Supported: 100rel\r\n", b"Require: 100rel\r\n")
    world.register()
    first, second = SERVERS["server1"], SERVERS["server2"]
    world.network.lose = lambda p: p.name == "PRACK" and p.to == first
    world.alice.calls("bob")
    world.run(0.02)
    world.kill("server1")
    world.run(5.0)
    assert [p.to for p in world.network.passed if p.name == "PRACK" and p.source == FORWARDER][
        -1
    ] == (world.bob.address)
    assert "PRACK" in world.network.names(second)
    world.bob.answers()
    world.run()
    assert (world.alice.state, world.bob.state) == (TALKING, TALKING), world.network.ladder()
    assert world.bob.agent.retransmissions <= 1


@pytest.mark.parametrize("users", [None, {"alice": "wonderland", "j\u00fcrgen": "s3cret"}])
def test_a_user_with_an_umlaut_registers_and_is_called_through_the_servers(users):
    world = World(users)
    juergen = world.phone("j\u00fcrgen", 5066, (users or {}).get("j\u00fcrgen", ""))
    world.register(world.alice, juergen)
    assert juergen.agent.registration.state is RegistrationState.REGISTERED, world.network.ladder()
    world.alice.calls("j\u00fcrgen")
    world.run()
    assert juergen.state is INCOMING, world.network.ladder()
    juergen.answers()
    world.run()
    juergen.does("hang_up")
    world.run()
    assert world.alice.state is juergen.state is ENDED and world.bill.final


def test_two_dead_servers_are_no_green_registration_for_long():
    world = World()
    alice = Line(world.network, "alice", 5068, FORWARDER, keep_alive=15.0)
    world.register(alice)
    assert alice.agent.registration.sentence == "Registered through server1"
    handled = world.servers["server1"].handled
    world.run(40.0)
    assert world.network.names(alice.address).count("OPTIONS") == 2
    assert world.servers["server1"].handled == handled, "the forwarder answers for them"
    for name in ("server1", "server2"):
        world.kill(name)
    world.run(16.0)
    assert alice.agent.registration.state is RegistrationState.UNREACHABLE
    world.restart("server2")
    world.run(40.0)
    assert alice.agent.registration.sentence == "Registered through server2"


def test_a_call_that_is_redirected_by_the_called_phone_finds_the_other_one_through_the_servers():
    world = World()
    world.register()
    carol = world.phone("carol", 5066)
    world.register(carol)
    world.network.leave(world.bob.address)
    Scripted(
        world.network,
        world.bob.address,
        lambda r: (
            []
            if r.method == "ACK"
            else [reply(r, 302, to_tag="b", fields=[("Contact", "<sip:carol@failover.test>")])]
        ),
    )
    world.alice.calls("bob")
    world.run()
    assert carol.state is INCOMING, world.network.ladder()
    carol.answers()
    world.run()
    assert (world.alice.sentence, carol.sentence) == ("Talking with Carol", "Talking with Alice")


def test_a_stranger_who_knows_the_phones_address_does_not_ring_it_and_the_servers_do():
    world = World()
    world.register()
    stranger = Line(world.network, "mallory", 5066)
    stranger.calls("sip:bob@127.0.0.1:5064")
    world.run()
    assert world.bob.state is None and stranger.sentence == "This call is not allowed"
    world.alice.calls("bob")
    world.run()
    assert world.bob.state is INCOMING
