"""Mixed calls for minutes, by clicks on a real pair of phones, through the forwarder and two servers
of which one is killed again and again: no lost call, no stuck state, no growth. The servers are our
own, or two Kamailios that register and challenge the phones.

SOAK_SECONDS sets how long each lasts (30), SOAK_PAUSE the seconds between two calls (0.05)."""

from __future__ import annotations

import gc
import os
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from parties_kit import DOMAIN, PASSWORDS, Scene, absent
from PySide6.QtCore import QObject, Qt
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QApplication, QPushButton
from qt_kit import find

from plumbing.address import parse_address
from softphone.gui.event_bridge import Bridge
from softphone.gui.phone_panel import PhonePanel
from softphone.gui.windows import PhonesWindow
from softphone.media.call_tone_player import CallTonePlayer
from softphone.phone import Account, Phone
from softphone.ua import incoming_call
from softphone.ua.events import CallState, RegistrationState

SECONDS = float(os.environ.get("SOAK_SECONDS", "30"))
PAUSE = float(os.environ.get("SOAK_PAUSE", "0.05"))
KILL_EVERY = 25  # calls; and only while both servers are UP: one that flaps comes back ever later
RINGS_FOR = 4.0  # seconds until nobody answers: longer than any call of this test rings otherwise
KINDS = (
    "caller hangs up",
    "callee hangs up",
    "declined",
    "given up",
    "held",
    "busy",
    "unanswered",
    "registered again",
)
OUR_SERVERS = "two of our servers"
KAMAILIOS = "two Kamailios"


class Silence:
    def write(self, samples) -> None:
        pass


class Pair:
    """Two phones in a window, and the buttons of each; a third phone without a window."""

    def __init__(self, proxy, qtbot) -> None:
        self.qtbot = qtbot
        panels, self.tones, self.bridges = [], [], []  # which live as long as their phones
        for user, other in (("alice", "bob"), ("bob", "alice")):
            bridge = Bridge()
            account = Account(user, DOMAIN, PASSWORDS[user], user.capitalize())
            phone = Phone(account, proxy, ("127.0.0.1", 0), bridge.received.emit)
            player = CallTonePlayer(Silence(), Silence())
            bridge.received.connect(player.show_event)
            self.tones.append(player)
            self.bridges.append(bridge)
            panels.append(PhonePanel(user.capitalize(), phone, bridge, target=other))
        self.phones = [panel.phone for panel in panels]
        self.third = Phone(
            Account("carol", "elsewhere.test"), proxy, ("127.0.0.1", 0), register=False
        )
        self.window = PhonesWindow(panels)
        self.window.show()
        for phone in (*self.phones, self.third):
            phone.start()
        for number in (0, 1):
            self.wait_until_registered(number)

    def close(self) -> None:
        self.third.stop()
        with self.qtbot.waitSignal(self.window.gone, timeout=5000):
            self.window.close()
        for tone in self.tones:
            tone.close()
        QApplication.processEvents()

    def state(self, number: int) -> CallState | None:
        call = self.window.panels[number].call
        return call.state if call else None

    def wait(self, number: int, *states: CallState | None) -> None:
        self.qtbot.waitUntil(lambda: self.state(number) in states, timeout=15_000)

    def wait_until_registered(self, number: int) -> None:
        self.qtbot.waitUntil(
            lambda: (
                self.phones[number].snapshot().registration.state is RegistrationState.REGISTERED
            ),
            timeout=15_000,
        )

    def click(self, number: int, name: str) -> None:
        button = find(self.window.panels[number], name, QPushButton)
        self.qtbot.waitUntil(button.isEnabled, timeout=15_000)
        self.qtbot.mouseClick(button, Qt.MouseButton.LeftButton)

    def register_again(self, number: int) -> None:
        """Log off and on by the menu."""
        menu = self.window.panels[number].menu
        menu.log_off.trigger()
        # Two Kamailios tell each other of both changes, and may take what follows within a
        # millisecond in the wrong order.
        self.qtbot.wait(200)
        find(menu, "register", QAction).trigger()
        self.wait_until_registered(number)

    def try_third(self, number: int) -> None:
        """The third phone calls this one, which is busy."""
        self.third.call(f"sip:{('alice', 'bob')[number]}@{DOMAIN}")

        def ended() -> bool:
            calls = self.third.snapshot().calls
            return bool(calls) and calls[-1].state is CallState.ENDED

        self.qtbot.waitUntil(ended, timeout=15_000)
        status = self.third.snapshot().calls[-1].status
        assert status == 486, f"the busy phone's caller was told {status}"


def play_call(pair: Pair, chance: random.Random) -> str:
    caller = chance.randrange(2)
    callee = 1 - caller
    kind = chance.choice(KINDS)
    if kind == "registered again":
        pair.register_again(chance.randrange(2))
    pair.click(caller, "primary")
    pair.wait(callee, CallState.INCOMING)
    pair.wait(caller, CallState.CALLING, CallState.RINGING)  # its event may come after the INVITE
    if kind == "declined":
        pair.click(callee, "secondary")
    elif kind == "given up":
        pair.click(caller, "primary")
    elif kind != "unanswered":
        pair.click(callee, "primary")
        pair.wait(caller, CallState.TALKING)
        pair.wait(callee, CallState.TALKING)
        pair.click(caller, "dial_5")
        pair.qtbot.wait(chance.randrange(100, 600))
        if kind == "held":
            hold = find(pair.window.panels[caller], "hold", QPushButton)
            for text in ("Resume", "Hold"):
                pair.click(caller, "hold")
                pair.qtbot.waitUntil(lambda text=text: hold.text() == text, timeout=15_000)
        if kind == "busy":
            pair.try_third(callee)
        pair.click(callee if kind == "callee hangs up" else caller, "primary")
    for number in (caller, callee):
        pair.wait(number, None)
    pair.qtbot.wait(int(PAUSE * 1000))
    return kind


def trace_of(pair: Pair) -> str:
    """The last messages of both phones, and what each shows."""
    told = []
    for panel, phone in zip(pair.window.panels, pair.phones, strict=True):
        state = phone.snapshot()
        told += [state.registration.sentence, *(call.sentence for call in state.calls[-2:])]
        told += [f"{each.route} {each.message.summary}" for each in list(panel.menu.trace)[-25:]]
    return "\n".join(told)


@dataclass(frozen=True)
class Used:
    """What the process holds. `kinds`: its objects by their type; only Qt's own and ours are
    looked at one by one."""

    threads: int
    files: int
    objects: int
    resident_kb: int
    qt_objects: int
    kinds: Counter[str]

    @classmethod
    def now(cls, pair: Pair) -> Used:
        gc.collect()
        found = gc.get_objects()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return cls(
            threading.active_count(),
            len(os.listdir("/proc/self/fd")),
            len(found),
            pages * os.sysconf("SC_PAGE_SIZE") // 1024,
            len(pair.window.findChildren(QObject)),
            Counter(type(each).__name__ for each in found),
        )

    def __str__(self) -> str:
        return (
            f"{self.threads} threads, {self.files} files, {self.objects} objects, "
            f"{self.resident_kb} kB, {self.qt_objects} Qt objects"
        )


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts in /proc")
@pytest.mark.parametrize(
    "servers",
    [
        OUR_SERVERS,
        pytest.param(
            KAMAILIOS,
            marks=pytest.mark.skipif(
                bool(absent("kamailio", "kamcmd")), reason=absent("kamailio", "kamcmd") or "-"
            ),
        ),
    ],
)
def test_calls_for_minutes_lose_nothing_and_leave_nothing(
    tmp_path, qtbot, monkeypatch, servers
) -> None:
    monkeypatch.setattr(incoming_call, "LONGEST_RINGING", RINGS_FOR)
    chance = random.Random(16)
    with Scene(tmp_path) as scene:
        start = scene.mock if servers == OUR_SERVERS else scene.kamailio
        scene.forwarder()
        for name in ("server1", "server2"):
            start(name)
        scene.up("server1", "server2")
        if servers == KAMAILIOS:
            scene.know_each_other()
        pair = Pair(parse_address(scene.address, 5060), qtbot)
        try:
            began, kinds, kills, since_kill = time.monotonic(), Counter(), 0, 0
            told_at, settled, lost = began, None, 0

            def play() -> None:
                nonlocal lost
                try:
                    kinds[play_call(pair, chance)] += 1
                except (qtbot.TimeoutError, AssertionError) as fault:
                    lost += 1
                    print(f"LOST after {time.monotonic() - began:.0f} s: {fault}\n{trace_of(pair)}")
                    if servers == KAMAILIOS:
                        print(*(scene.kamcmd(each, "ul.dump") for each in ("server1", "server2")))
                    for phone in pair.phones:
                        phone.hang_up()
                    pair.wait(0, None)
                    pair.wait(1, None)

            while time.monotonic() < began + SECONDS:
                play()
                since_kill += 1
                if since_kill >= KILL_EVERY and scene.all_up("server1", "server2"):
                    victim = ("server1", "server2")[kills % 2]
                    scene.processes[victim].kill()
                    kills, since_kill = kills + 1, 0
                    play()
                    start(victim)
                if time.monotonic() > told_at + 60:
                    told_at = time.monotonic()
                    print(f"{told_at - began:.0f} s: {kinds.total()} calls, {Used.now(pair)}")
                if settled is None and time.monotonic() > began + SECONDS / 2:
                    settled = Used.now(pair)
            qtbot.waitUntil(lambda: all(p.snapshot().calls[-1].ended_at for p in pair.phones))
            now = Used.now(pair)
            listed = [len(panel.menu._history) for panel in pair.window.panels]
            print(f"{kinds.total()} calls, {dict(kinds)}, {kills} kills, listed {listed}")
            print(f"in the middle {settled}\nat the end {now}")
            print(f"grown: {(now.kinds - settled.kinds).most_common(12)}")
            assert not lost
            assert sum(listed) >= min(2 * kinds.total(), 200), "every call is in both lists"
            assert now.threads <= settled.threads and now.files <= settled.files + 2
            assert now.qt_objects <= settled.qt_objects
            # What is bounded is still filling: the lists of calls and the traces of messages.
            assert now.objects - settled.objects < 60 * 100 + 12 * 2000
            for phone in pair.phones:
                assert len(phone.snapshot().calls) <= 20
        finally:
            pair.close()
