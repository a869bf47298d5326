"""A phone without SIP for tests of the windows: it writes down wishes and says what the test lets
it say."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from PySide6.QtWidgets import QWidget

from softphone.gui.event_bridge import Bridge
from softphone.gui.theme import Palette, theme
from softphone.ua import user_messages
from softphone.ua.events import (
    CallChanged,
    CallState,
    CallView,
    DigitPassed,
    DigitRefused,
    Direction,
    RegistrationChanged,
    RegistrationState,
)

SENTENCES = {
    CallState.CALLING: user_messages.CALLING,
    CallState.RINGING: user_messages.RINGING_AT,
    CallState.INCOMING: user_messages.IS_CALLING,
    CallState.TALKING: user_messages.TALKING_WITH,
    CallState.ENDING: user_messages.HANGING_UP,
    CallState.ENDED: user_messages.HUNG_UP_HERE,
}


@dataclass(frozen=True)
class FakeStats:
    """The fields of MediaStats that a panel shows."""

    packets_sent: int = 0
    packets_received: int = 0
    lost: int = 0
    jitter_ms: float = 0.0
    longest_gap_ms: float = 0.0
    elsewhere: str = ""
    level_in: float = 0.0
    level_out: float = 0.0
    codec: str = "PCMU"
    round_trip_ms: float | None = None


class FakePhone:
    """Has the methods of Phone; `wishes` lists what was asked of it, as ("call", "bob")."""

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge
        self.wishes: list[tuple[object, ...]] = []
        self.stats: FakeStats | None = None
        self.view: CallView | None = None
        self.now = time.monotonic()
        self.stopped = False
        self.stop_takes = 0.0
        self.takes_digits = True

    # -- what a window asks

    def start(self) -> None:
        self.wishes.append(("start",))

    def stop(self, timeout: float = 3.0) -> None:
        time.sleep(min(self.stop_takes, timeout))
        self.stopped = True

    def register(self) -> None:
        self.wishes.append(("register",))

    def unregister(self) -> None:
        self.wishes.append(("unregister",))

    def set_password(self, password: str) -> None:
        self.wishes.append(("set_password", password))

    def call(self, target: str) -> None:
        self.wishes.append(("call", target))

    def answer(self) -> None:
        self.wishes.append(("answer",))

    def decline(self) -> None:
        self.wishes.append(("decline",))

    def hang_up(self) -> None:
        self.wishes.append(("hang_up",))

    def hold(self) -> None:
        self.wishes.append(("hold",))

    def resume(self) -> None:
        self.wishes.append(("resume",))

    def dtmf(self, digit: str) -> None:
        self.wishes.append(("dtmf", digit))
        if self.view is not None and self.takes_digits:
            self.bridge.received.emit(DigitPassed(self.now, self.view.id, digit, True))
        elif self.view is not None:
            self.bridge.received.emit(
                DigitRefused(self.now, self.view.id, digit, "Bob's phone takes no digits")
            )

    def mute(self, muted: bool) -> None:
        self.wishes.append(("mute", muted))

    def media_stats(self) -> FakeStats | None:
        return self.stats

    # -- what a test lets it say

    def clock(self) -> float:
        return self.now

    def tell_registration(
        self,
        state: RegistrationState = RegistrationState.REGISTERED,
        sentence: str = "Registered through server1",
        wants_password: bool = False,
        server: str = "server1",
    ) -> None:
        event = RegistrationChanged(self.now, state, sentence, wants_password, server)
        self.bridge.received.emit(event)

    def begin(
        self,
        state: CallState,
        sentence: str = "",
        name: str = "Bob",
        uri: str = "sip:bob@failover.test",
        call_id: str = "a",
    ) -> None:
        """A new call comes on stage."""
        direction = Direction.INCOMING if state is CallState.INCOMING else Direction.OUTGOING
        sentence = sentence or SENTENCES[state].format(name=name)
        self.view = CallView(call_id, direction, name, uri, state, sentence, self.now)
        self.bridge.received.emit(CallChanged(self.now, self.view))

    def become(self, state: CallState, sentence: str = "", **changes: object) -> None:
        """The call goes on to another state; answering and ending set their times."""
        assert self.view is not None
        if state is CallState.TALKING and self.view.answered_at is None:
            changes.setdefault("answered_at", self.now)
        if state is CallState.ENDED:
            changes.setdefault("ended_at", self.now)
        sentence = sentence or SENTENCES[state].format(name=self.view.peer_name)
        self.view = replace(self.view, state=state, sentence=sentence, since=self.now, **changes)
        self.bridge.received.emit(CallChanged(self.now, self.view))


def find(window: QWidget, name: str, kind: type = QWidget):
    """The widget with this object name; fails the test if there is none."""
    widget = window.findChild(kind, name)
    assert widget is not None, f"no widget is called {name}"
    return widget


@contextmanager
def colours(palette: Palette) -> Iterator[None]:
    """Light or dark. Each change styles every widget anew, which takes as long as a whole test."""
    theme().use(palette)
    try:
        yield
    finally:
        theme().use(None)
