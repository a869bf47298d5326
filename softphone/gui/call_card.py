"""The card of the call: the other side, state, duration, levels, and the result of the last
call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QEasingCurve, QRectF, Qt, QVariantAnimation
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QGridLayout, QLabel, QVBoxLayout, QWidget

from softphone import texts
from softphone.gui import formatting
from softphone.gui.level_meter import LevelMeter
from softphone.gui.theme import GRID, RADIUS, Size, theme
from softphone.gui.widgets import StateMark, TextLabel, row_of
from softphone.ua.events import CallState, CallView

if TYPE_CHECKING:
    from softphone.media.session import MediaStats

RINGING_SECONDS = 60  # how long the card pulses at most: motion ends even if nobody answers
# shades of the pulse: as calm to see as sixty frames a second, and a quarter of the work
GLOW_STEPS = 8
# RFC 3261 21.4.25: the answer to an INVITE that was cancelled, which is no failure
REQUEST_TERMINATED = 487

# The mark beside the sentence: (icon, tone).
MARKS = {
    CallState.CALLING: ("out", "hot"),
    CallState.RINGING: ("out", "ringing"),
    CallState.INCOMING: ("in", "ringing"),
    CallState.TALKING: ("call", "alive"),
    CallState.ENDING: ("hang_up", "dead"),
    CallState.ENDED: ("hang_up", "dead"),
}


def mark_of(call: CallView) -> tuple[str, str]:
    """Icon and tone for the state of the call."""
    if call.state is CallState.TALKING and (call.held_here or call.held_there):
        return "pause", "warning"
    failed = (
        call.answered_at is None and (call.status or 0) >= 300 and call.status != REQUEST_TERMINATED
    )
    if call.state is CallState.ENDED and failed:
        return "warning", "warning"
    return MARKS[call.state]


def talked(call: CallView, now: float) -> float | None:
    """Seconds since the call was answered, until somebody hung up; None if nobody answered."""
    if call.answered_at is None:
        return None
    if call.ended_at is not None:
        return call.ended_at - call.answered_at
    return (call.since if call.state is CallState.ENDING else now) - call.answered_at


class CallCard(QWidget):
    """Shows the call given last, for as long as there is no other: the result of a call stays
    readable."""

    def __init__(self) -> None:
        super().__init__()
        self.call: CallView | None = None
        self._glow = 0.0
        self.peer = TextLabel(Size.TITLE, bold=True)
        self.timer = TextLabel(Size.TITLE, tabular=True, name="timer")
        self.timer.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.mark = StateMark()
        self.sentence = TextLabel(lines=2, name="call")
        self.level_in = LevelMeter("level_in", texts.LEVEL_IN)
        self.level_out = LevelMeter("level_out", texts.LEVEL_OUT)
        self.packets, self.gap, self.quality = (
            TextLabel(Size.SMALL, tone="muted", tabular=True, name=name)
            for name in ("packets", "gap", "quality")
        )
        self._pulse = QVariantAnimation(self, startValue=0.0, endValue=0.0, duration=1000)
        self._pulse.setLoopCount(RINGING_SECONDS)
        self._pulse.setKeyValueAt(0.5, 1.0)
        self._pulse.setEasingCurve(QEasingCurve.Type.InOutSine)
        self._pulse.valueChanged.connect(self._set_glow)
        theme().changed.connect(self._pulse_or_rest)
        self._lay_out()
        self.timer.fix_width("00:00")
        self._say(texts.HOW_TO_BEGIN, texts.NO_CALL, "ring", "dead")
        self.show_media(None)

    def _lay_out(self) -> None:
        sound = QGridLayout()
        sound.setHorizontalSpacing(GRID)
        sound.setVerticalSpacing(GRID // 2)
        meters = (texts.IN, self.level_in), (texts.OUT, self.level_out)
        for row, (word, meter) in enumerate(meters):
            title = QLabel(word)
            title.setFont(theme().font(Size.SMALL))
            sound.addWidget(title, row, 0)
            sound.addWidget(meter, row, 1)
        sound.setColumnStretch(1, 1)
        column = QVBoxLayout(self)
        column.setContentsMargins(2 * GRID, GRID, 2 * GRID, GRID)
        column.setSpacing(GRID // 2)
        column.addLayout(row_of(self.peer, self.timer))
        column.addLayout(row_of(self.mark, self.sentence))
        column.addLayout(sound)
        for label in (self.packets, self.gap, self.quality):
            column.addWidget(label)

    def _say(self, sentence: str, peer: str, shape: str, tone: str) -> None:
        self.peer.set_text(peer)
        for label in (self.peer, self.timer):
            label.set_tone("" if self.call is not None and self.call.active else "muted")
        self.sentence.set_text(sentence)
        self.mark.show_state(shape, tone)

    def show_call(self, call: CallView, now: float) -> None:
        """Show another state, or another call."""
        if self.call is None or self.call.id != call.id:
            self.level_in.clear()
            self.level_out.clear()
            self.show_media(None)
        self.call = call
        name = formatting.party(call.peer_name, call.peer_uri)
        self._say(formatting.sentence_with(name, call.sentence), name, *mark_of(call))
        if not self.peer.elided:
            self.peer.setToolTip(formatting.one_line(call.peer_uri))
        if not call.active:
            self.level_in.clear()
            self.level_out.clear()
        self.tick(now)
        self._pulse_or_rest()
        self.update()

    def tick(self, now: float) -> None:
        """Let the clock run: called 25 times a second, changes the text once a second."""
        seconds = talked(self.call, now) if self.call is not None else None
        text = "" if seconds is None else formatting.duration(seconds)
        if text != self.timer.text():
            self.timer.fix_width(text if len(text) > 5 else "00:00")
            self.timer.set_text(text)
            self.timer.setAccessibleName(
                formatting.spoken_duration(seconds) if seconds is not None else texts.NO_TIME
            )

    def show_media(self, stats: MediaStats | None) -> None:
        """Numbers and levels of the stream; None: there is no stream yet."""
        if stats is None:
            self.packets.set_text(texts.NO_PACKETS)
            self.gap.set_text(texts.NO_GAP)
            self.quality.set_text(texts.QUALITY_UNKNOWN)
            return
        self.level_in.push(stats.level_in)
        self.level_out.push(stats.level_out)
        self.packets.set_text(
            texts.PACKETS.format(
                codec=stats.codec or texts.RTP,
                received=stats.packets_received,
                sent=stats.packets_sent,
            ),
            texts.PACKETS_TIP.format(
                received=stats.packets_received, lost=stats.lost, sent=stats.packets_sent
            ),
        )
        self.quality.set_text(formatting.quality(stats), texts.QUALITY_TIP)
        if stats.elsewhere:
            self.gap.set_text(
                texts.SOUND_VIA.format(host=stats.elsewhere, ms=stats.longest_gap_ms),
                texts.SOUND_VIA_TIP.format(host=stats.elsewhere),
            )
        else:
            self.gap.set_text(texts.GAP.format(ms=stats.longest_gap_ms), texts.GAP_TIP)

    @property
    def pulsing(self) -> bool:
        return self._pulse.state() == QVariantAnimation.State.Running

    def _pulse_or_rest(self) -> None:
        ringing = self.call is not None and self.call.state is CallState.INCOMING
        if ringing and not theme().reduced_motion:
            if not self.pulsing:
                self._pulse.start()
        else:
            self._pulse.stop()
            self._set_glow(1.0 if ringing else 0.0)

    def _set_glow(self, glow: object) -> None:
        step = round(glow * GLOW_STEPS) / GLOW_STEPS if isinstance(glow, float) else 0.0
        if step != self._glow:
            self._glow = step
            self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        palette = theme().palette
        ringing = self.call is not None and self.call.state is CallState.INCOMING
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        box = QRectF(self.rect()).adjusted(1.5, 1.5, -1.5, -1.5)
        painter.setBrush(palette.ringing.wash if ringing else palette.surface)
        edge = QColor(palette.ringing.colour)
        edge.setAlphaF(0.35 + 0.65 * self._glow)
        painter.setPen(QPen(edge, 1.5 + 1.5 * self._glow) if ringing else QPen(palette.line, 1))
        painter.drawRoundedRect(box, RADIUS, RADIUS)
