"""Microphone and loudspeaker through QtMultimedia; everything here is made in the GUI thread.

Qt's audio objects live in the GUI thread, the session reads and writes in the media thread. Between
them are bounded rings of 20 ms blocks (a deque's ends need no lock); a full ring loses its oldest
block, so delay cannot grow. A device is switched on by the first block that is asked of it and off
after a second without one: no call, no microphone.
"""

from __future__ import annotations

import logging
from array import array
from collections import deque
from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QLoggingCategory, QObject, QTimer, Signal, Slot

from softphone.media.audio_interfaces import AudioSink, AudioSource, NullSink
from softphone.media.g711 import BLOCK, RATE
from softphone.media.resample import FromDevice, PcmFormat, ToDevice
from softphone.media.tone_generator import ToneSource

LOG = logging.getLogger("media")

RING = 10  # blocks: 200 ms
FEED = 10  # ms between two looks at the loudspeaker's free space
IDLE = 1000  # ms without a block until a device is switched off


class _Device(QObject):
    """The half that lives in the GUI thread. `make` gives Qt's audio object; `say` a sentence to
    the person."""

    _wanted = Signal()

    def __init__(self, make: Callable[[], Any], name: str, say: Callable[[str], None]) -> None:
        super().__init__()
        self.ring: deque[array[int]] = deque(maxlen=RING)
        self._make, self._name, self._say = make, name, say
        self._asked = False  # set by the media thread, cleared by ours when the device is off
        self._used = 0
        self._used_before = -1
        self._audio: Any = None
        self._io: Any = None
        self._idle = QTimer(self)
        self._idle.setInterval(IDLE)
        self._idle.timeout.connect(self._check)
        self._wanted.connect(self._on)

    def use(self) -> None:
        """Media thread: the device is needed now."""
        self._used += 1
        if not self._asked:
            self._asked = True
            self._wanted.emit()

    @Slot()
    def _on(self) -> None:
        self._audio = self._make()
        self._io = self._audio.start()
        if self._io is None:
            self._say(f"The {self._name} cannot be used now; the call goes on without it.")
            self._audio = None
        else:
            self._ready()
        self._idle.start()

    @Slot()
    def _check(self) -> None:
        if self._used != self._used_before:
            self._used_before = self._used
        else:
            self.close()

    def close(self) -> None:
        """GUI thread: switch the device off. The next block that is asked of it switches it on
        again."""
        self._idle.stop()
        if self._audio is not None:
            self._audio.stop()
        self._audio = self._io = None
        self.ring.clear()
        self._off()
        self._asked = False

    def _ready(self) -> None:
        raise NotImplementedError

    def _off(self) -> None:
        """The device has been switched off."""


class Microphone(_Device):
    """An AudioSource."""

    def __init__(
        self, make: Callable[[], Any], form: PcmFormat, say: Callable[[str], None] = LOG.warning
    ) -> None:
        super().__init__(make, "microphone", say)
        self._form = form
        self._convert = FromDevice(form)
        self._rest: array[int] = array("h")

    def read(self, samples: int) -> array[int]:
        """Media thread. `samples` is a block of 20 ms; nothing where the microphone has given
        nothing yet."""
        self.use()
        try:
            return self.ring.popleft()
        except IndexError:
            return array("h")

    def _ready(self) -> None:
        self._convert = FromDevice(self._form)
        self._rest = array("h")
        self._io.readyRead.connect(self._take)

    @Slot()
    def _take(self) -> None:
        if self._io is None:
            return
        samples = self._rest + self._convert.convert(bytes(self._io.readAll().data()))
        whole = len(samples) - len(samples) % BLOCK
        for start in range(0, whole, BLOCK):
            self.ring.append(samples[start : start + BLOCK])
        self._rest = samples[whole:]


class Loudspeaker(_Device):
    """An AudioSink."""

    def __init__(
        self, make: Callable[[], Any], form: PcmFormat, say: Callable[[str], None] = LOG.warning
    ) -> None:
        super().__init__(make, "loudspeaker", say)
        self._form = form
        self._convert = ToDevice(form)
        self._feed = QTimer(self)
        self._feed.setInterval(FEED)
        self._feed.timeout.connect(self._give)

    def write(self, samples: array[int]) -> None:
        """Media thread."""
        self.ring.append(samples)
        self.use()

    def _ready(self) -> None:
        self._convert = ToDevice(self._form)
        self._feed.start()

    def _off(self) -> None:
        self._feed.stop()

    @Slot()
    def _give(self) -> None:
        room = self._audio.bytesFree() if self._audio is not None else 0
        size = self._form.block_bytes(BLOCK)
        while self.ring and room >= size:
            self._io.write(self._convert.convert(self.ring.popleft()))
            room -= size


def open_devices(
    tone: AudioSource | None = None, say: Callable[[str], None] = LOG.warning
) -> tuple[AudioSource, AudioSink] | None:
    """The default microphone and loudspeaker; `tone` (or a chime) and silence stand in for the one
    that is missing.

    None if there is neither, and `say` is told the reason in a sentence. GUI thread, after
    QGuiApplication is made.
    """
    # Which sound systems it tried before it found one is nobody's concern.
    QLoggingCategory.setFilterRules(
        "qt.multimedia.symbolsresolver=false\nqt.multimedia.ffmpeg.info=false"
    )
    try:
        from PySide6.QtMultimedia import QAudioSink, QAudioSource, QMediaDevices
    # QtMultimedia is not installed, or a library it needs (libpulse) is not
    except ImportError as error:
        say(f"Sound is off, a tone is sent instead: QtMultimedia cannot be loaded ({error}).")
        return None
    inputs, outputs = QMediaDevices.audioInputs(), QMediaDevices.audioOutputs()
    if not inputs and not outputs:
        say("This computer has no microphone and no loudspeaker; a tone is sent instead.")
        return None
    source: AudioSource = tone or ToneSource()
    sink: AudioSink = NullSink()
    if inputs:
        recorder = QMediaDevices.defaultAudioInput()
        heard, form = choose_format(recorder)
        source = Microphone(lambda: QAudioSource(recorder, heard), form, say)
    else:
        say("This computer has no microphone; a tone is sent instead.")
    if outputs:
        player = QMediaDevices.defaultAudioOutput()
        played, form = choose_format(player)
        sink = Loudspeaker(lambda: QAudioSink(player, played), form, say)
    else:
        say("This computer has no loudspeaker; the other side cannot be heard.")
    return source, sink


def choose_format(device: Any) -> tuple[Any, PcmFormat]:
    """What to ask of a device: 8,000 Hz mono if it can, else what it prefers, in 16 bits if it
    can."""
    from PySide6.QtMultimedia import QAudioFormat

    telephone = QAudioFormat()
    telephone.setSampleRate(RATE)
    telephone.setChannelCount(1)
    telephone.setSampleFormat(QAudioFormat.SampleFormat.Int16)
    preferred = device.preferredFormat()
    plain = QAudioFormat(preferred)
    plain.setSampleFormat(QAudioFormat.SampleFormat.Int16)
    chosen = next(
        (form for form in (telephone, plain) if device.isFormatSupported(form)), preferred
    )
    kinds = {QAudioFormat.SampleFormat.Int32: "i", QAudioFormat.SampleFormat.Float: "f"}
    return chosen, PcmFormat(
        chosen.sampleRate(), chosen.channelCount(), kinds.get(chosen.sampleFormat(), "h")
    )
