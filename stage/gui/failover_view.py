"""One failover on a time axis: last answer, killed, noticed, first answer through the other server.

The moments stand at equal distances, with the time between them written there: what lasts 0.4 ms
beside what lasts 40 could not be seen to scale. All are the forwarder's own record, but for the
kill, which is the demo's.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from softphone.gui.theme import GRID, Size, theme
from softphone.gui.widgets import TextLabel
from stage.gui import painting
from stage.gui.slow_replay import SlowReplay, moments_of
from stage.gui.zoom import zoomed
from stage.observation.observations import LadderRow
from stage.scenes.state import DemoState
from stage.scenes.use_case import milliseconds

EMPTY = "No server has died in this call yet. Click Kill on the one that carries it."
Moment = tuple[str, float]


def draw_axis(painter: QPainter, box: QRectF, moments: list[Moment]) -> None:
    palette = theme().palette
    small, bold = zoomed(Size.SMALL), zoomed(Size.SMALL, bold=True)
    line = painting.height_of(small)
    step = box.width() / len(moments)
    level = box.top() + line * 1.6
    places = [box.left() + step * (number + 0.5) for number in range(len(moments))]
    for index, ((_, before), (_, after)) in enumerate(pairwise(moments)):
        tone = palette.stop if index and index < len(moments) - 1 else palette.dead
        painter.setPen(QPen(tone.colour, 3))
        painter.drawLine(QPointF(places[index], level), QPointF(places[index + 1], level))
        where = QRectF(places[index], level - line * 1.5, step, line * 1.3)
        painting.text(painter, where, milliseconds(after - before), bold, palette.text)
    for (name, _), x in zip(moments, places, strict=True):
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(palette.text)
        painter.drawEllipse(QPointF(x, level), 5, 5)
        for number, part in enumerate(name.split("\n")):
            where = QRectF(x - step / 2, level + line * (0.5 + number), step, line)
            painting.text(painter, where, part, small, palette.text)


class TimeAxis(QWidget):
    def __init__(self) -> None:
        super().__init__()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.moments: list[Moment] = []

    def sizeHint(self) -> QSize:
        return QSize(40 * GRID, round(painting.height_of(zoomed(Size.SMALL)) * 4.4))

    def show_moments(self, moments: list[Moment]) -> None:
        if moments != self.moments:
            self.moments = moments
            self.setAccessibleName(
                ", ".join(f"{name} at {milliseconds(at)}" for name, at in moments)
            )
            self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        if self.moments:
            painter = QPainter(self)
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            draw_axis(painter, QRectF(self.rect()), self.moments)


class FailoverView(QWidget):
    """The latest failover of the present call."""

    def __init__(self) -> None:
        super().__init__()
        self.setAccessibleName("The failover")
        self.words = TextLabel(Size.TEXT, bold=True, lines=2, name="failover_words")
        self.axis = TimeAxis()
        self.replay = SlowReplay()
        self.detail = TextLabel(Size.SMALL, tone="muted", lines=3, name="failover_detail")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, GRID // 2, 0, 0)
        column.setSpacing(GRID // 2)
        column.addWidget(self.words)
        column.addWidget(self.axis)
        column.addWidget(self.replay)
        column.addWidget(self.detail)
        column.addStretch(1)
        self.words.set_text(EMPTY)

    def show_state(self, state: DemoState, rows: Iterable[LadderRow] = ()) -> None:
        """`rows`: the messages of the ladder."""
        latest = state.failovers[-1] if state.failovers else None
        if not self.replay.playing:
            self.replay.show_moments(moments_of(state, rows))
        if latest is None:
            self.words.set_text(EMPTY)
            self.detail.set_text("")
            self.axis.show_moments([])
            return
        outage = state.outage_ms(latest)
        if outage is None:
            words = "not killed here" if latest.first_answer_at else "no answer through it yet"
        else:
            words = f"{milliseconds(outage)} from the kill to {state.counted_to}"
            words += " of the ringing call" if state.rang_at_kill else ""
        self.words.set_text(f"{latest.source} to {latest.target}: {words}")
        self.axis.show_moments(state.time_axis(latest))
        lost = max(0, latest.in_flight - latest.replayed)
        sent = f"{latest.replayed} of {latest.in_flight} messages in flight sent again, {lost} lost"
        sent = sent if latest.in_flight else "Nothing was in flight"
        gap = state.longest_gap_ms
        heard = "" if gap is None else f" Pause of the audio at the crash: {milliseconds(gap)}; "
        heard += "20 ms is normal, 400 ms would be heard." if heard else ""
        self.detail.set_text(f"Noticed: {latest.noticed or 'no answer'}. {sent}.{heard}")
