"""The milliseconds around a crash, replayed in seconds: what was sent, refused, noticed, sent again
and answered, one moment after the other.

The moments are what was observed, in their order, each given the same time: to scale, most of them
would fall into one frame. Only what has happened is replayed, so there is none before the first
answer through the other server, and no real message waits for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from PySide6.QtCore import QPropertyAnimation, QSignalBlocker, Qt, QTimer, Signal
from PySide6.QtWidgets import QSlider, QWidget

from softphone.gui.widgets import row_of
from stage.gui.flat_controls import small_button
from stage.gui.message_animation import Frame, MessageAnimation
from stage.observation.observations import LadderRow, MessageForwarded, ServerFailover
from stage.scenes.state import DemoState
from stage.scenes.use_case import milliseconds

DURATION_MS = 6000  # of a whole replay
AROUND_SECONDS = 0.02  # before the kill and after the first answer, for the messages shown
POSITIONS = 1000  # of the slider; at 0 nothing is replayed


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
        self.button = small_button("Replay slowly", "replay_slowly")
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setAccessibleName("Where in the replay")
        self.slider.setRange(0, POSITIONS)
        self.setLayout(row_of(self.button, self.slider))
        self._animation = QPropertyAnimation(self.slider, b"value", self)
        self._animation.setStartValue(0)
        self._animation.setEndValue(POSITIONS)
        self._animation.setDuration(DURATION_MS)
        self._animation.stateChanged.connect(self._show)
        self._animation.finished.connect(lambda: QTimer.singleShot(1500, self._end))
        self.button.clicked.connect(self._press)
        self.slider.valueChanged.connect(self._show)
        self.slider.actionTriggered.connect(self._pause)
        self.show_moments([])

    def show_moments(self, moments: list[Moment]) -> None:
        if moments != self.moments or not moments:
            self.moments = moments
            self.stop()
        self.setEnabled(bool(moments))
        why = "There is a replay once a server has taken over from a killed one"
        self.setToolTip("" if moments else why)

    def stop(self) -> None:
        self.slider.setValue(0)
        self._animation.stop()

    @property
    def playing(self) -> bool:
        return self._animation.state() == QPropertyAnimation.State.Running

    def frame_at(self, position: int) -> Frame:
        share = min(position / POSITIONS, 0.9999) * len(self.moments)
        moment = self.moments[int(share)]
        when = f"{milliseconds(abs(moment.at_ms))} {'after' if moment.at_ms >= 0 else 'before'}"
        return Frame(f"{when} the kill", moment.words, moment.travel, share % 1)

    def _press(self) -> None:
        if self.playing:
            self._animation.pause()
            return
        position = self.slider.value() % POSITIONS  # at the end it begins anew
        # start() sets the slider to 0 before the time is set: only the result is told
        with QSignalBlocker(self.slider), QSignalBlocker(self._animation):
            self._animation.stop()
            self._animation.start()
            self._animation.setCurrentTime(DURATION_MS * position // POSITIONS)
        self._show()

    def _pause(self) -> None:
        """Pauses, because a person moves the slider."""
        if self.playing:
            self._animation.pause()

    def _show(self) -> None:
        position = self.slider.value()
        begun = "Go on" if 0 < position < POSITIONS else "Replay slowly"
        self.button.setText("Pause" if self.playing else begun)
        self.frame.emit(self.frame_at(position) if position else None)

    def _end(self) -> None:
        if not self.playing and self.slider.value() >= POSITIONS:
            self.stop()
