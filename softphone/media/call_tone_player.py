"""Plays the tones of a telephone to its user: ring, ringback, busy, reorder, as the call asks."""

from __future__ import annotations

import time
from collections.abc import Callable

from PySide6.QtCore import QObject, Qt, QTimer, Signal, Slot

from softphone.media.audio_interfaces import AudioSink
from softphone.media.call_tones import CallTone, samples_of
from softphone.media.g711 import BLOCK
from softphone.media.rtp import PacketClock
from softphone.media.tone_generator import RepeatedSource
from softphone.ua.events import CallChanged, CallState, CallView, Direction

TICK_MS = 20
ENDED_SECONDS = 3.0  # how long busy and reorder are played
BUSY_STATUS = (486, 600, 603)  # RFC 3261 21: busy here, busy everywhere, declined
REQUEST_TERMINATED = 487  # the caller gave up


def tone_of(call: CallView, hung_up: bool) -> CallTone | None:
    """The tone to play in this state; None: silence. `hung_up`: this phone's person has ended the
    call."""
    if call.state is CallState.INCOMING:
        return CallTone.RING
    if call.state is CallState.RINGING:
        return CallTone.RINGBACK if call.media is None else None  # the network makes its own
    failed = call.state is CallState.ENDED and call.answered_at is None and not hung_up
    status = call.status or 0
    if not failed or call.direction is Direction.INCOMING or status in (0, REQUEST_TERMINATED):
        return None
    return CallTone.BUSY if status in BUSY_STATUS else CallTone.REORDER


class CallTonePlayer(QObject):
    """Gets the phone's events, in any thread that its signals are queued to (AudioDevices.adopt).
    `ringer` plays the ring, `loudspeaker` the rest."""

    _posted = Signal(object)

    def __init__(
        self,
        ringer: AudioSink,
        loudspeaker: AudioSink,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._ringer, self._loudspeaker, self._clock = ringer, loudspeaker, clock
        self.playing: CallTone | None = None
        self._call_id = ""
        self._hung_up: set[str] = set()
        # of the tone that plays; set when it begins
        self._source: RepeatedSource
        self._pace: PacketClock
        self._until: float
        self._timer = QTimer(self)
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(TICK_MS)
        self._timer.timeout.connect(self.tick)
        self._posted.connect(self._take)

    def show_event(self, event: object) -> None:
        """Any thread: something happened on the phone."""
        if isinstance(event, CallChanged):
            self._posted.emit(event.call)

    def test(self, tone: CallTone | None) -> None:
        """Any thread: play a tone for ENDED_SECONDS, whatever the calls do; None: stop."""
        self._posted.emit(tone)

    @Slot(object)
    def _take(self, what: object) -> None:
        if not isinstance(what, CallView):
            self._play(what if isinstance(what, CallTone) else None, ENDED_SECONDS)
            return
        if what.state is CallState.ENDING:
            self._hung_up.add(what.id)
        tone = tone_of(what, what.id in self._hung_up)
        if what.state is CallState.ENDED:
            self._hung_up.discard(what.id)
        if what.active or what.id == self._call_id:
            self._call_id = what.id
            self._play(tone, ENDED_SECONDS if what.state is CallState.ENDED else float("inf"))

    @Slot()
    def close(self) -> None:
        """Be quiet for good."""
        self._play(None, 0.0)

    def _play(self, tone: CallTone | None, seconds: float) -> None:
        if tone is self.playing:
            return
        self.playing = tone
        if tone is None:
            self._timer.stop()
            return
        now = self._clock()
        self._source = RepeatedSource(samples_of(tone))
        self._pace, self._until = PacketClock(now), now + seconds
        self._timer.start()

    @Slot()
    def tick(self) -> None:
        """Give the sink the blocks that are due by now."""
        tone, now = self.playing, self._clock()
        if tone is None:
            return
        if now >= self._until:
            self._play(None, 0.0)
            return
        _, ticks = self._pace.due(now)
        sink = self._ringer if tone is CallTone.RING else self._loudspeaker
        for _ in range(ticks):
            sink.write(self._source.read(BLOCK))
