"""Plays a scene: a generator that says what is done and what it waits for, one after the other.

    def play(d):
        d.call()
        yield d.seen("Bob's phone rings", lambda: d.state.call_state("Bob") == "incoming")
        yield 1.5                                # seconds
        d.expect(d.state.talking, "they talk")

A line is said when what it tells has happened. What is not seen within its deadline, or is not as
expected, ends the scene with a sentence. GUI thread.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, QTimer, Signal
from PySide6.QtGui import QImage

from stage.controller import PHONES, DemoController
from stage.observation.observations import MessageForwarded
from stage.processes.cluster import SERVERS
from stage.scenes.state import DemoState

STOPPED = "Stopped before the end."
LOOK_MS = 10  # between two looks at what is waited for
PATIENCE_SECONDS = 20.0
# what a phone's primary button does, by the states of its call in which it does
PRIMARY = {
    "Call": ("", "ended"),
    "Answer": ("incoming",),
    "Hang up": ("calling", "ringing", "talking"),
}

SAID = {"Call": "calls", "Answer": "answers", "Hang up": "hangs up"}
# what is noted under a name, which is its key in the JSON, too
FIGURES = {
    "kept": "{} calls kept",
    "lost": "{} calls lost",
    "gap_p50_ms": "half of them answered {} ms after the kill",
    "gap_p99_ms": "99 of 100 after {} ms",
    "bill": "bill {}",
    # each call is billed by the whole second, rounded down
    "billed_seconds": "billed {} s (whole seconds of each call)",
    "carried_by": "carried by {}",
    "talked_seconds": "talked {} s",
    "takeover_ms": "{} ms from the kill to the next answer",
    "forwarder_takeover_ms": "{} ms from the forwarder's kill to the next answer",
    "rtp_longest_gap_ms": "longest pause of the audio {} ms",
    "rtp_lost": "{} audio packets lost",
    "dropped": "{} call cannot be ended",
}


@dataclass(frozen=True)
class Wait:
    """Until `condition` holds, at most `seconds`; `told`: then `what` is said."""

    what: str
    condition: Callable[[], object]
    seconds: float = PATIENCE_SECONDS
    told: bool = False


Play = Generator[Wait | float, None, None]


@dataclass(frozen=True)
class Scene:
    """`moral`: what it has shown, and why that matters; `pair`: two forwarders; `servers`: how
    many."""

    name: str
    title: str
    play: Callable[[Director], Play]
    moral: str = ""
    pair: bool = False
    servers: int = 2


class SceneFailed(Exception):
    """The text says what was not seen."""


class Director(QObject):
    """`finished(sentence)` is emitted once; an empty sentence: everything was as expected.
    `measured` is what a scene has to tell, in the order in which it was noted. `hear` gets each
    line for the person, `folder` a picture of the window for each. `talk_seconds`: of the nine
    steps, from the answer to the hang-up."""

    finished = Signal(str)

    def __init__(
        self,
        controller: DemoController,
        scene: Scene,
        hear: Callable[[str], object] | None = None,
        folder: Path | None = None,
        talk_seconds: float = 0.0,
    ) -> None:
        super().__init__()
        self.controller = controller
        self.talk_seconds = talk_seconds
        self.measured: dict[str, Any] = {}
        self._scene, self._hear, self._folder = scene, hear, folder
        self._pictures: dict[str, QImage] = {}
        self._play = scene.play(self)
        self._wait: Wait | float = 0.0
        self._began = time.monotonic()
        self._over = False
        self._kill_at: tuple[str, str, int | None] | None = None
        self._timer = QTimer(self)
        self._timer.setInterval(LOOK_MS)
        self._timer.timeout.connect(self._look)
        controller.message.connect(self._on_message)
        controller.failed.connect(self._end)

    def start(self) -> None:
        self._timer.start()

    def close(self) -> None:
        self._end(STOPPED)

    # -- for scenes: what is known -----------------------------------------------------------------

    @property
    def state(self) -> DemoState:
        return self.controller.use_case.state

    def seen(
        self, what: str, condition: Callable[[], object], seconds: float = PATIENCE_SECONDS
    ) -> Wait:
        return Wait(what, condition, seconds, told=True)

    def expect(self, condition: object, what: str) -> None:
        if not condition:
            raise SceneFailed(f"Not so: {what}.")

    def note(self, name: str, value: Any) -> None:
        self.measured[name] = round(value, 2) if isinstance(value, float) else value

    @property
    def figures(self) -> list[str]:
        """What was measured, for a person."""
        known = {name: value for name, value in self.measured.items() if value is not None}
        return [FIGURES[name].format(value) for name, value in known.items()]

    def up(self, *names: str) -> bool:
        return set(names) <= self.state.up

    # -- for scenes: what is done ------------------------------------------------------------------

    def ready(self) -> Play:
        """Both servers serve and both phones are registered; no call."""
        if self.controller.running:
            self.controller.start_again()
        yield self.seen(
            "Two servers, two phones.",
            lambda: self.up(*SERVERS) and all(map(self.state.registered.get, PHONES)),
        )
        for panel in self.controller.window.panels:
            panel.press_escape()
        yield Wait("no call", lambda: not any(p.call for p in self.controller.window.panels))
        yield 0.5

    def can(self, phone: str, action: str) -> bool:
        enabled = self.controller.window.panels[PHONES.index(phone)].primary.isEnabled()
        return enabled and self.state.call_state(phone) in PRIMARY[action]

    def press(self, phone: str, action: str) -> None:
        """The primary button; `action` is a key of PRIMARY."""
        self.expect(self.can(phone, action), f"{phone} can {action}")
        self.controller.window.panels[PHONES.index(phone)].primary.click()

    def act(self, phone: str, action: str) -> None:
        """The same, said."""
        self.press(phone, action)
        self._tell(f"{phone} {SAID[action]}.")

    def ring(self) -> Play:
        self.act("Alice", "Call")
        yield self.seen("Bob's phone rings.", lambda: self.state.call_state("Bob") == "incoming")

    def answer(self) -> Play:
        self.act("Bob", "Answer")
        yield self.seen("Alice and Bob talk.", lambda: self.state.talking)

    def talk(self, seconds: float = 1.5) -> Play:
        yield from self.ring()
        yield 0.4
        yield from self.answer()
        yield seconds

    def kill(self, name: str) -> None:
        self.controller.kill(name)
        self._tell(f"{name} is killed.")

    def freeze(self, name: str) -> None:
        self.controller.freeze(name)
        self._tell(f"{name} is frozen.")

    def thaw(self, name: str) -> None:
        self.controller.thaw(name)
        self._tell(f"{name} runs on.")

    def kill_at(self, server: str, method: str, status: int | None) -> None:
        """Hold `server` still for the milliseconds until that message has reached it, then kill it:
        it dies with the message unread, and nobody else has it."""
        self._kill_at = (server, method, status)
        self.controller.cluster.programs[server].send(signal.SIGSTOP)

    def taken_over(self) -> Wait:
        """The call itself is answered through the other server."""
        return self.seen(
            "The call is answered through the other server.",
            lambda: self.state.takeover_ms is not None,
        )

    def hang_up(self) -> Play:
        self.act("Alice", "Hang up")
        yield self.seen("The call is over at both phones.", lambda: self.state.over)

    def billed(self) -> Play:
        yield self.seen(
            "The bill is final.", lambda: self.state.bill is not None and self.state.bill.final
        )
        bill, talked = self.state.bill, self.state.talk_seconds
        assert bill is not None
        self.note("bill", f"{bill.total} {bill.currency}")
        self.note("billed_seconds", bill.seconds)
        self.note("carried_by", bill.carriers)
        if talked is not None:
            self.note("talked_seconds", talked)
            self.expect(abs(bill.seconds - talked) <= 1.5, "as many seconds billed as talked")

    def finish(self) -> Play:
        """Alice hangs up; the bill is final; what was measured is noted."""
        yield from self.hang_up()
        yield from self.billed()
        self.note("takeover_ms", self.state.takeover_ms)
        self.note("rtp_longest_gap_ms", self.state.longest_gap_ms)
        self.note("rtp_lost", self.state.lost)

    # -- what is told ------------------------------------------------------------------------------

    def say(self, line: str) -> None:
        if self._hear:
            self._hear(line)
        if self._scene.title:  # the nine steps leave the headline to what happens
            self.controller.announce(self._scene.title, line)

    def _tell(self, line: str) -> None:
        self.say(line)
        self.take_picture()

    def take_picture(self, name: str = "") -> None:
        """Without a name it is the scene's next one."""
        if self._folder:
            name = name or f"{self._scene.name}-{len(self._pictures) + 1}"
            self._pictures[name] = self.controller.window.grab().toImage()

    def save_pictures(self) -> str:
        """After the call: compressing a picture would keep the phones' threads waiting for as long
        as three packets. A sentence if one cannot be written."""
        paths = {f"{self._folder}/{name}.png": each for name, each in self._pictures.items()}
        failed = [path for path, picture in paths.items() if not picture.save(path)]
        return f"The pictures {', '.join(failed)} could not be written." if failed else ""

    # -- how it runs -------------------------------------------------------------------------------

    def _on_message(self, message: MessageForwarded) -> None:
        wanted = message.target, message.method, message.status
        if self._kill_at is not None and wanted == self._kill_at:
            self._kill_at = None
            self.kill(message.target)

    def _look(self) -> None:
        waited = time.monotonic() - self._began
        try:
            if isinstance(self._wait, Wait):
                if not self._wait.condition():
                    if waited > self._wait.seconds:
                        seconds, what = self._wait.seconds, self._wait.what
                        self._end(f"Not seen within {seconds:g} s: {what} {self._shown()}")
                    return
                if self._wait.told:
                    self._tell(self._wait.what)
            elif waited < self._wait:
                return
            self._wait, self._began = next(self._play), time.monotonic()
        except StopIteration:
            self._end("")
        except SceneFailed as error:
            self._end(f"{error} {self._shown()}")

    def _shown(self) -> str:
        """What each phone says, and the headline: why something was not seen."""
        words = [
            f"{panel.label}'s phone says {panel.registration.text()!r} and "
            f"{panel.card.sentence.text()!r}."
            for panel in self.controller.window.panels
        ]
        return " ".join([*words, f"The window: {self.controller.window.headline}."])

    def _end(self, sentence: str) -> None:
        if not self._over:
            self._over = True
            self._timer.stop()
            self._play.close()
            if self._scene.title:
                last = sentence or self._scene.moral
                self.controller.announce(self._scene.title, last, over=True)
                self.take_picture()
            self.finished.emit(sentence)
