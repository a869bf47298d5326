"""The milliseconds around a crash, replayed in seconds: what was sent, refused, noticed, sent again
and answered, one moment after the other.

The moments are what was observed, in their order, each given the same time: to scale, most of them
would fall into one frame. Only what has happened is replayed, so there is none before the first
answer through the other server, and no real message waits for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from PySide6.QtCore import QElapsedTimer, Qt, QTimer, Signal
from PySide6.QtWidgets import QHBoxLayout, QSlider, QWidget

from softphone.gui.theme import GRID
from stage.gui.flat_controls import small_button
from stage.gui.message_animation import Frame, MessageAnimation
from stage.observation.observations import LadderRow, MessageForwarded, ServerFailover
from stage.scenes.state import DemoState
from stage.scenes.use_case import milliseconds

SECONDS = 6.0  # that the whole of it lasts
AROUND_SECONDS = 0.02  # before the kill and after the first answer, for the messages shown
FRAME_MS = 16
POSITIONS = 1000  # of the slider


class Moment(NamedTuple):
    """`words` say it; `travel` is the message under way, `at_ms` since the kill."""

    at_ms: float
    words: str
    travel: MessageAnimation | None = None


def moments_of(state: DemoState, rows: Iterable[LadderRow]) -> list[Moment]:
    """The latest failover of the present call; empty until it has been answered."""
    latest = state.failovers[-1] if state.failovers else None
    killed, over = (state.killed_at(latest), state.over_at(latest)) if latest else (None, None)
    if latest is None or killed is None or over is None:
        return []
    marks = state.time_axis(latest)[:-1]
    found = [Moment(at, f"{name[:1].upper()}{name[1:]}.".replace("\n", " ")) for name, at in marks]
    last = over + AROUND_SECONDS
    for row in rows:
        if isinstance(row, MessageForwarded) and killed - AROUND_SECONDS <= row.at <= last:
            found += _message((row.at - killed) * 1000, row, latest)
    done = "passed the call on" if state.rang_at_kill else "answered"
    found.append(Moment((over - killed) * 1000, f"{latest.target} has {done}."))
    return sorted(found, key=lambda moment: moment.at_ms)


def _message(at: float, row: MessageForwarded, failover: ServerFailover) -> list[Moment]:
    """The sentence on one message; one that is sent again makes its new server read the store."""
    travel = MessageAnimation(row.nodes, row.label, row.kind)
    if row.replayed:
        store = MessageAnimation(("store", row.target), "the call", "answer")
        words = f"{row.target} reads the call from the shared store: who talks, and since when."
        return [
            Moment(at, f"The forwarder sends {row.method} again, to {row.target}.", travel),
            Moment(at, words, store),
        ]
    if row.target == failover.source and at >= 0:
        words = f"{row.method} is sent to {row.target}, where nobody listens: refused."
        return [Moment(at, words, travel)]
    return [Moment(at, f"{row.source} to {row.target}: {row.label}.", travel)]


class SlowReplay(QWidget):
    """A button to play and pause, and a slider. `frame` carries a Frame, or None at the end."""

    frame = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.moments: list[Moment] = []
        self.button = small_button("Replay slowly")
        self.button.setObjectName("replay_slowly")
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setAccessibleName("Where in the replay")
        self.slider.setRange(0, POSITIONS)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(GRID)
        row.addWidget(self.button)
        row.addWidget(self.slider, 1)
        self._clock = QElapsedTimer()
        self._from = 0  # the slider's position when it began to play
        self._timer = QTimer(self)
        self._timer.setInterval(FRAME_MS)
        self._timer.timeout.connect(self._advance)
        self.button.clicked.connect(self._press)
        self.slider.sliderMoved.connect(self._moved)
        self.show_moments([])

    def show_moments(self, moments: list[Moment]) -> None:
        if moments != self.moments or not moments:
            self.moments = moments
            self.stop()
        self.setEnabled(bool(moments))
        why = "There is a replay once a server has taken over from a killed one"
        self.setToolTip("" if moments else why)

    def stop(self) -> None:
        self._timer.stop()
        self.button.setText("Replay slowly")
        self.slider.setValue(0)
        self.frame.emit(None)

    @property
    def playing(self) -> bool:
        return self._timer.isActive()

    def frame_at(self, position: int) -> Frame:
        share = min(position / POSITIONS, 0.9999) * len(self.moments)
        moment = self.moments[int(share)]
        when = f"{milliseconds(abs(moment.at_ms))} {'after' if moment.at_ms >= 0 else 'before'}"
        return Frame(f"{when} the kill", moment.words, moment.travel, share % 1)

    def _press(self) -> None:
        if self.playing:
            self._timer.stop()
            self.button.setText("Go on")
            return
        if self.slider.value() >= POSITIONS:
            self.slider.setValue(0)
        self._from = self.slider.value()
        self._clock.start()
        self._timer.start()
        self.button.setText("Pause")

    def _advance(self) -> None:
        position = self._from + round(self._clock.elapsed() / (SECONDS * 1000) * POSITIONS)
        self.slider.setValue(min(position, POSITIONS))
        self.frame.emit(self.frame_at(position))
        if position >= POSITIONS:
            self._timer.stop()
            self.button.setText("Replay slowly")
            QTimer.singleShot(1500, self._end)

    def _end(self) -> None:
        if not self.playing and self.slider.value() >= POSITIONS:
            self.stop()

    def _moved(self, position: int) -> None:
        self._timer.stop()
        self.button.setText("Go on")
        if self.moments:
            self.frame.emit(self.frame_at(position))
