"""Mixed calls for minutes, by clicks on a real pair of phones, through the forwarder and two servers
of which one is killed again and again: no lost call, no stuck state, no growth.

SOAK_SECONDS sets how long (30)."""

from __future__ import annotations

import gc
import os
import random
import threading
import time
from pathlib import Path

import pytest
from parties_kit import Scene
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication, QPushButton
from qt_kit import find

from plumbing.address import parse_address
from softphone.gui.event_bridge import Bridge
from softphone.gui.windows import PairWindow, PhoneSlot
from softphone.media.call_tone_player import CallTonePlayer
from softphone.phone import Account, Phone
from softphone.ua.events import CallState

SECONDS = float(os.environ.get("SOAK_SECONDS", "30"))
KILL_EVERY = 25  # calls; and only while both servers are UP: one that flaps comes back ever later


class Silence:
    def write(self, samples) -> None:
        pass


class Pair:
    """Two phones in a window, and the buttons of each."""

    def __init__(self, proxy, qtbot) -> None:
        self.qtbot = qtbot
        slots, self.tones = [], []
        for user, other in (("alice", "bob"), ("bob", "alice")):
            bridge = Bridge()
            account = Account(user, "failover.test", "", user.capitalize())
            phone = Phone(account, proxy, ("127.0.0.1", 0), bridge.event.emit)
            player = CallTonePlayer(Silence(), Silence())
            bridge.event.connect(player.show_event)
            self.tones.append(player)
            slots.append(PhoneSlot(user.capitalize(), phone, bridge, other))
        self.slots = slots  # a bridge lives as long as its phone
        self.phones = [slot.phone for slot in slots]
        self.window = PairWindow(*slots)
        self.window.show()
        for phone in self.phones:
            phone.start()

    def state(self, number: int) -> CallState | None:
        call = self.window.panels[number].call
        return call.state if call else None

    def wait(self, number: int, *states: CallState | None) -> None:
        self.qtbot.waitUntil(lambda: self.state(number) in states, timeout=15_000)

    def click(self, number: int, name: str) -> None:
        button = find(self.window.panels[number], name, QPushButton)
        self.qtbot.waitUntil(button.isEnabled, timeout=15_000)
        self.qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def play_call(pair: Pair, chance: random.Random) -> str:
    caller = chance.randrange(2)
    callee = 1 - caller
    ending = chance.choice(["caller hangs up", "callee hangs up", "declined", "given up", "held"])
    pair.click(caller, "primary")
    pair.wait(callee, CallState.INCOMING)
    pair.wait(caller, CallState.CALLING, CallState.RINGING)  # its event may come after the INVITE
    if ending == "declined":
        pair.click(callee, "secondary")
    elif ending == "given up":
        pair.click(caller, "primary")
    else:
        pair.click(callee, "primary")
        pair.wait(caller, CallState.TALKING)
        pair.wait(callee, CallState.TALKING)
        pair.click(caller, "dial_5")
        pair.qtbot.wait(chance.randrange(100, 600))
        if ending == "held":
            hold = find(pair.window.panels[caller], "hold", QPushButton)
            for text in ("Resume", "Hold"):
                pair.click(caller, "hold")
                pair.qtbot.waitUntil(lambda text=text: hold.text() == text, timeout=15_000)
        pair.click(callee if ending == "callee hangs up" else caller, "primary")
    for number in (caller, callee):
        try:
            pair.wait(number, None)
        except Exception:
            told = [
                "\n".join(
                    f"{message.route} {message.message.summary}"
                    for message in list(panel.menu.trace)[-25:]
                )
                for panel in pair.window.panels
            ]
            pytest.fail(f"{ending}, by {caller}: phone {number} is stuck\n{told[0]}\n\n{told[1]}")
    pair.qtbot.wait(50)
    return ending


def used() -> tuple[int, int, int]:
    """Threads, open files, and objects that Python keeps."""
    gc.collect()
    return threading.active_count(), len(os.listdir("/proc/self/fd")), len(gc.get_objects())


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts in /proc")
def test_calls_for_minutes_lose_nothing_and_leave_nothing(tmp_path, qtbot) -> None:
    chance = random.Random(16)
    with Scene(tmp_path) as scene:
        scene.forwarder()
        for name in ("server1", "server2"):
            scene.mock(name)
        scene.up("server1", "server2")
        pair = Pair(parse_address(scene.address, 5060), qtbot)
        try:
            began, calls, kills, since_kill, settled = time.monotonic(), 0, 0, 0, (0, 0, 0)
            while time.monotonic() < began + SECONDS:
                play_call(pair, chance)
                calls, since_kill = calls + 1, since_kill + 1
                if since_kill >= KILL_EVERY and scene.all_up("server1", "server2"):
                    victim = ("server1", "server2")[kills % 2]
                    scene.processes[victim].kill()
                    kills, since_kill = kills + 1, 0
                    play_call(pair, chance)
                    calls += 1
                    scene.mock(victim)
                if settled == (0, 0, 0) and time.monotonic() > began + SECONDS / 2:
                    settled = used()
            now = used()
            listed = [len(panel.menu._history) for panel in pair.window.panels]
            print(
                f"{calls} calls, {kills} kills, listed {listed}, at first {settled}, at last {now}"
            )
            qtbot.waitUntil(lambda: all(p.snapshot().calls[-1].ended_at for p in pair.phones))
            assert listed == [min(calls, 100)] * 2, "every call is in both lists"
            assert now[0] <= settled[0] and now[1] <= settled[1] + 2
            # What is bounded is still filling: the lists of calls and the traces of messages.
            assert now[2] - settled[2] < 60 * 100 + 12 * 2000
            for phone in pair.phones:
                assert len(phone.snapshot().calls) <= 20
        finally:
            with qtbot.waitSignal(pair.window.gone, timeout=5000):
                pair.window.close()
            for tone in pair.tones:
                tone.close()
            QApplication.processEvents()
