"""Plays the nine steps by clicking the buttons that a person would click, and says what was
measured.

Each observed step sets off the next click after a while. What is not observed within its deadline
ends the play, and the exit status says so.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, Qt, QTimer, Signal
from PySide6.QtGui import QImage

from softphone.gui.widgets import FlatButton
from stage.controller import PHONES, DemoController
from stage.scenes.use_case import PAIR, Number, Row, milliseconds

TALK = 12.0  # s, from the answer to the hang-up
BEFORE_KILL = 0.55  # of the talk
BEFORE_KILLS = 0.3  # of the talk, if a forwarder is to crash too
BETWEEN_KILLS = 0.25  # of the talk, from the audio's proof to the forwarder's crash
AFTER_KILLS = 0.6  # s, at least, from the forwarder's takeover to the hang-up
PATIENCE = 20.0  # s, until a step must have been observed
RING = 1.2  # s that Bob lets his phone ring
LINGER = 3.0  # s that the window of a finished play stays
DEVELOP = {5: 150, 6: 700, PAIR.number: 1100}  # ms from a step to its picture; 400 for the others
PICTURE = 400


class AutoPlayer(QObject):
    """`finished(complete)` is emitted once. `say` gets each line for the person; `folder` gets the
    pictures."""

    finished = Signal(bool)

    def __init__(
        self,
        show: DemoController,
        talk: float = TALK,
        folder: Path | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        super().__init__()
        self._show, self._talk, self._folder, self._say = show, talk, folder, say
        self._over = False
        self._deadline = QTimer(self)
        self._deadline.setSingleShot(True)
        self._deadline.timeout.connect(self._give_up)
        self._waiting: dict[Number, Row] = {}
        self._pictures: dict[Number, QImage] = {}
        self._untold = [step.number for step in show.use_case.steps]
        show.fulfilled.connect(self._on_step)
        show.failed.connect(self._on_failure)

    @property
    def complete(self) -> bool:
        return self._show.use_case.complete

    def start(self) -> None:
        self._deadline.start(int(PATIENCE * 1000))
        if self._folder:
            self._folder.mkdir(parents=True, exist_ok=True)
        self._show.start()

    def close(self) -> None:
        """The person closed the window: what was not observed by now is not observed."""
        if not self._over:
            self._say("The window was closed before the end.")
            self._end()

    # -- the play ----------------------------------------------------------------------------------

    def _on_step(self, row: Row) -> None:
        """Two programs may tell of one moment in the wrong order; the steps are said in the
        document's."""
        self._waiting[row.number] = row
        while not self._over and self._untold and self._untold[0] in self._waiting:
            self._play(self._waiting[self._untold.pop(0)])

    def _play(self, row: Row) -> None:
        self._say(f"{row.number}. {row.text} {self._measured(row)}".rstrip())
        self._later(DEVELOP.get(row.number, PICTURE), lambda: self._picture(row.number))
        self._deadline.start(int((PATIENCE + self._talk) * 1000))
        for after, act in self._acts().get(row.number, ()):
            self._later(int(after * 1000), act)
        if not self._untold:
            self._deadline.stop()
            self._later(PICTURE + 50, self._end)

    def _acts(self) -> dict[Number, list[tuple[float, Callable[[], None]]]]:
        """The actions once a step is observed, and the seconds until each."""
        acts: dict[Number, list[tuple[float, Callable[[], None]]]] = {
            2: [(0.8, self._call)],
            3: [(RING, self._answer)],
            4: [(self._talk * BEFORE_KILL, self._kill), (self._talk, self._hang_up)],
        }
        if not self._show.forwarders.pair:
            return acts
        call = self._show.use_case.state.calls.get(PHONES[0])
        spent = time.monotonic() - (call.answered_at or 0.0) if call else 0.0
        return {
            **acts,
            4: [(self._talk * BEFORE_KILLS, self._kill)],
            7: [(self._talk * BETWEEN_KILLS, self._kill_forwarder)],
            PAIR.number: [(max(AFTER_KILLS, self._talk - spent), self._hang_up)],
        }

    def _call(self) -> None:
        self._press(0, "Call")

    def _answer(self) -> None:
        self._press(1, "Answer")

    def _hang_up(self) -> None:
        self._press(0, "Hang up")

    def _kill(self) -> None:
        self._kill_program(self._show.use_case.state.first)

    def _kill_forwarder(self) -> None:
        self._kill_program(self._show.use_case.state.active or "")

    def _kill_program(self, name: str) -> None:
        button = self._show.window.figure.buttons[name, "kill"]
        if button.isEnabled():
            button.animateClick()

    def _press(self, phone: int, words: str) -> None:
        """The primary button, if it still means what we want: a person may have been faster."""
        button: FlatButton = self._show.window.panels[phone].primary
        if button.text() == words and button.isEnabled():
            button.animateClick()

    def _later(self, milliseconds: int, act: Callable[[], None]) -> None:
        timer = QTimer(self, singleShot=True, interval=milliseconds)
        # the usual ones may be 5 % off: half a second of a talk
        timer.setTimerType(Qt.TimerType.PreciseTimer)
        timer.timeout.connect(lambda: None if self._over else act())
        timer.start()

    # -- what is told ------------------------------------------------------------------------------

    def _measured(self, row: Row) -> str:
        state = self._show.use_case.state
        if row.number == 6 and state.takeover_ms is not None:
            return (
                f"({milliseconds(state.takeover_ms)} from the kill to the first answer through "
                f"{state.second})"
            )
        if row.number == PAIR.number and state.forwarder_takeover_ms is not None:
            return (
                f"({milliseconds(state.forwarder_takeover_ms)} from the kill to the first answer "
                "through "
                f"{state.successor})"
            )
        if row.number == 9 and state.bill is not None:
            return f"({state.bill.total} {state.bill.currency} for {state.bill.seconds} s)"
        return f"({row.words})" if row.words else ""

    def _picture(self, number: Number) -> None:
        if self._folder:
            self._pictures[number] = self._show.window.grab().toImage()

    def _write_pictures(self) -> None:
        """After the call: compressing a picture would keep the phones' threads waiting for as long
        as three packets."""
        for number, picture in self._pictures.items():
            path = f"{self._folder}/step-{number}.png"
            if not picture.save(path):
                print(f"The picture {path} could not be written.", file=sys.stderr)

    def _give_up(self) -> None:
        missing = next(row for row in self._show.rows if not row.observed)
        words = f" ({missing.words})" if missing.words else ""
        self._say(f"{missing.number}. NOT OBSERVED: {missing.text}{words}")
        if self._folder:
            self._picture(missing.number)
        self._end()

    def _on_failure(self, sentence: str) -> None:
        print(sentence, file=sys.stderr)
        self._end()

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._deadline.stop()
            self._write_pictures()
            self.finished.emit(self.complete)


def report(show: DemoController) -> dict[str, Any]:
    """Everything measured in this run, for `--json`; what was not measured is null. Call it before
    the phones stop."""
    state = show.use_case.state
    bill = state.bill
    pair = (
        {"forwarder_takeover_ms": rounded(state.forwarder_takeover_ms, 2)}
        if state.cast.forwarders
        else {}
    )
    return {
        "steps": [
            {"number": row.number, "text": row.text, "observed": row.observed} for row in show.rows
        ],
        "talk_seconds": rounded(state.talk_seconds, 2),
        "bill": None
        if bill is None
        else {
            "server": bill.server,
            "seconds": bill.seconds,
            "total": bill.total,
            "currency": bill.currency,
        },
        "takeover_ms": rounded(state.takeover_ms, 2),
        **pair,
        "rtp_longest_gap_ms": rounded(state.longest_gap_ms, 1),
        "rtp_lost": state.lost,
        "retransmissions": retransmissions(show),
    }


def retransmissions(show: DemoController) -> int | None:
    try:
        return sum(show.phones[name].snapshot().retransmissions for name in PHONES)
    except (RuntimeError, TimeoutError):
        return None  # a phone that never ran sent nothing, and nothing was measured


def rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def print_report(measured: dict[str, Any]) -> None:
    """The one object, on one line, the last one of standard output."""
    print(json.dumps(measured), flush=True)
