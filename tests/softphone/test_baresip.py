"""Calls with somebody else's phone, where baresip is installed: it says a tone."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from parties_kit import Scene
from phones_kit import MODULES

from plumbing.address import parse_address
from softphone.phone import Account, Phone
from softphone.ua.events import CallChanged, CallState, ProbeAnswered

pytestmark = pytest.mark.skipif(
    not (shutil.which("baresip") and MODULES), reason="baresip is not installed"
)

CONFIG = """module_path {modules}
module g711.so
module aubridge.so
module ausine.so
module_app account.so
module_app menu.so
audio_source ausine,440
audio_player aubridge,sink
ausrc_srate 48000
ausrc_channels 2
net_interface 127.0.0.1
sip_listen 127.0.0.1:{port}
"""


class Baresip:
    """A baresip process that answers by itself, told more by `commands`. `account`: a line for its
    file of accounts."""

    def __init__(self, folder: Path, port: int, *commands: str, account: str = "") -> None:
        folder.joinpath("config").write_text(CONFIG.format(modules=MODULES, port=port))
        account = account or f'"Bob" <sip:bob@127.0.0.1:{port}>;regint=0;answermode=auto'
        folder.joinpath("accounts").write_text(f"{account}\n")
        folder.joinpath("contacts").write_text("")
        self.output = folder / "output"
        arguments = [argument for command in commands for argument in ("-e", command)]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                ["baresip", "-4", "-f", str(folder), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def ready(self) -> bool:
        return b"baresip is ready" in self.output.read_bytes()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10.0)
        print(self.output.read_text(errors="replace"))  # for whoever reads why a test failed


@pytest.fixture
def phone() -> Iterator[tuple[Phone, list[object]]]:
    events: list[object] = []
    alice = Phone(
        Account("alice", "failover.test", "", "Alice"),
        None,
        ("127.0.0.1", 0),
        events.append,
        register=False,
    )
    alice.start()
    yield alice, events
    alice.stop()


@pytest.fixture
def start_baresip(tmp_path, free_port, eventually):
    started: list[Baresip] = []

    def start(*commands: str, account: str = "") -> tuple[Baresip, int]:
        port = free_port()
        started.append(Baresip(tmp_path, port, *commands, account=account))
        eventually(lambda: started[0].ready, timeout=15.0)
        return started[0], port

    yield start
    for each in started:
        each.stop()


def last_call(events: list[object]):
    calls = [event.call for event in events if isinstance(event, CallChanged)]
    return calls[-1] if calls else None


def is_in(events: list[object], state: CallState) -> bool:
    call = last_call(events)
    return call is not None and call.state is state


@pytest.mark.slow
def test_we_call_baresip_hold_resume_and_hang_up(phone, start_baresip, eventually):
    alice, events = phone
    _, port = start_baresip()
    alice.call(f"sip:bob@127.0.0.1:{port}")
    eventually(lambda: is_in(events, CallState.TALKING))
    eventually(lambda: alice.media_stats().packets_received > 20)
    alice.hold()
    eventually(lambda: last_call(events).held_here)
    alice.resume()
    eventually(lambda: not last_call(events).held_here)
    before = alice.media_stats().packets_received
    eventually(lambda: alice.media_stats().packets_received > before + 20)
    alice.probe()
    eventually(
        lambda: [
            event for event in events if isinstance(event, ProbeAnswered) and event.status == 200
        ]
    )
    alice.hang_up()
    eventually(lambda: is_in(events, CallState.ENDED))
    assert alice.snapshot().retransmissions == 0


@pytest.mark.slow
def test_baresip_calls_us_and_hangs_up(phone, start_baresip, eventually):
    alice, events = phone
    baresip, _ = start_baresip(f"d sip:alice@127.0.0.1:{alice.address[1]}")
    eventually(lambda: is_in(events, CallState.INCOMING))
    assert last_call(events).sentence == "Bob is calling"
    alice.answer()
    eventually(lambda: is_in(events, CallState.TALKING))
    eventually(lambda: alice.media_stats().packets_received > 20)
    baresip.process.terminate()
    eventually(lambda: is_in(events, CallState.ENDED))
    assert last_call(events).sentence == "Bob hung up"
    assert alice.snapshot().retransmissions == 0


@pytest.mark.slow
def test_baresip_is_told_that_we_decline(phone, start_baresip, eventually):
    alice, events = phone
    baresip, _ = start_baresip(f"d sip:alice@127.0.0.1:{alice.address[1]}")
    eventually(lambda: is_in(events, CallState.INCOMING))
    alice.decline()
    eventually(lambda: b"603" in baresip.output.read_bytes())
    # What is to be sent goes before what is to be told, and the other process may be faster than
    # our next line.
    eventually(lambda: last_call(events).sentence == "You declined the call")


@pytest.mark.long
def test_baresip_registers_with_its_password_and_is_called_and_refreshed_after_the_servers_death(
    start_baresip, tmp_path, eventually
):
    folder = tmp_path / "servers"
    folder.mkdir()
    (folder / "users").write_text("alice:wonderland\nbob:builder\n")
    events: list[object] = []
    with Scene(folder) as scene:
        scene.forwarder()
        for name in ("server1", "server2"):
            scene.mock(name, "--users", str(folder / "users"), "-v")
        scene.up("server1", "server2")
        bob = f'<sip:bob@failover.test>;outbound="sip:{scene.address}";auth_pass=builder;regint=20;answermode=auto'
        baresip, _ = start_baresip(account=bob)
        eventually(lambda: b"200 OK" in baresip.output.read_bytes(), timeout=15.0)
        scene.processes["server1"].kill()

        account = Account("alice", "failover.test", "wonderland", "Alice")
        alice = Phone(account, parse_address(scene.address), ("127.0.0.1", 0), events.append)
        alice.start()
        alice.call("bob")
        eventually(lambda: is_in(events, CallState.TALKING), timeout=15.0)
        alice.hang_up()
        eventually(lambda: is_in(events, CallState.ENDED))
        alice.stop()
        eventually(lambda: registered(scene, 1), timeout=25.0)
        baresip.stop()  # takes its leave, of whoever answers
        eventually(lambda: registered(scene, 0))


def registered(scene: Scene, count: int) -> bool:
    return (
        f"<REGISTER sip:failover.test> sip:bob@failover.test {count} bound"
        in scene.processes["server2"].said
    )
