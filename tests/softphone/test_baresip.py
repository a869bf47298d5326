"""Calls with somebody else's phone, where baresip is installed: it says a tone."""

from __future__ import annotations

import pytest
from interop_kit import PASSWORDS, Baresip, no_baresip
from parties_kit import Scene
from process_kit import wait_until

from plumbing.address import parse_address
from softphone.ua.events import CallState, ProbeAnswered

pytestmark = pytest.mark.skipif(bool(no_baresip()), reason=no_baresip() or "-")


@pytest.fixture
def alice(owners):
    return owners("alice")


@pytest.fixture
def scene(tmp_path):
    with Scene(tmp_path) as made:
        yield made


@pytest.fixture
def bob(scene):
    made = Baresip(scene, None)
    yield made
    made.stop()


@pytest.mark.slow
def test_we_call_baresip_hold_resume_and_hang_up(alice, bob):
    alice.phone.call(bob.uri)
    bob.rings()
    bob.answer()
    wait_until(lambda: alice.state is CallState.TALKING)
    wait_until(lambda: alice.heard > 20)
    alice.phone.hold()
    wait_until(lambda: alice.call.held_here)
    alice.phone.resume()
    wait_until(lambda: not alice.call.held_here)
    before = alice.heard
    wait_until(lambda: alice.heard > before + 20)
    alice.phone.probe()
    wait_until(lambda: [probe.status for probe in alice.told(ProbeAnswered)] == [200])
    alice.phone.hang_up()
    wait_until(lambda: alice.state is CallState.ENDED)
    assert alice.phone.snapshot().retransmissions == 0


@pytest.mark.slow
def test_baresip_calls_us_and_hangs_up(alice, bob):
    bob.call(alice.uri)
    wait_until(lambda: alice.state is CallState.INCOMING)
    assert alice.sentence == "Bob is calling"
    alice.phone.answer()
    wait_until(lambda: alice.state is CallState.TALKING)
    wait_until(lambda: alice.heard > 20)
    bob.hang_up()
    wait_until(lambda: alice.state is CallState.ENDED)
    assert alice.sentence == "Bob hung up"
    assert alice.phone.snapshot().retransmissions == 0


@pytest.mark.slow
def test_baresip_is_told_that_we_decline(alice, bob):
    bob.call(alice.uri)
    wait_until(lambda: alice.state is CallState.INCOMING)
    alice.phone.decline()
    bob.is_told(603)
    wait_until(lambda: alice.sentence == "You declined the call")


@pytest.mark.long
def test_baresip_registers_with_its_password_and_is_called_and_refreshed_after_the_servers_death(
    scene, owners
):
    users = scene.folder / "users"
    users.write_text("".join(f"{user}:{password}\n" for user, password in PASSWORDS.items()))
    scene.forwarder()
    for name in ("server1", "server2"):
        scene.mock(name, "--users", str(users), "-v")
    scene.up("server1", "server2")
    proxy = parse_address(scene.address)
    bob = Baresip(scene, proxy, expires=20)
    try:
        bob.registers()
        scene.processes["server1"].kill()
        alice = owners("alice", proxy=proxy, register=True, password=PASSWORDS["alice"])
        alice.phone.call("bob")
        bob.rings()
        bob.answer()
        wait_until(lambda: alice.state is CallState.TALKING)
        alice.phone.hang_up()
        wait_until(lambda: alice.state is CallState.ENDED)
        wait_until(lambda: registered(scene, 1), timeout=25.0)
    finally:
        bob.stop()
    wait_until(lambda: registered(scene, 0))


def registered(scene: Scene, count: int) -> bool:
    return (
        f"<REGISTER sip:failover.test> sip:bob@failover.test {count} bound"
        in scene.processes["server2"].said
    )
