"""Microphone, loudspeaker and ringer through QtMultimedia.

Theory of operation
  Qt's audio objects live in the thread `audio` of AudioDevices, so that a window that draws cannot
  make a gap in the sound; a call's session reads and writes in its media thread. Between the two
  are bounded rings of 20 ms blocks (a deque's ends need no lock); a full ring loses its oldest
  block, so delay cannot grow.

Rules
  1. A device is switched on by the first block that is asked of it and off after a second without
     one: no call, no microphone.
  2. Which device it is, is looked up at that moment: the one that was chosen, else the system's.
  3. When devices are plugged or unplugged, a device in use is switched off and on again.
  4. What cannot be used is said in a sentence, and taken back once it can.
"""

from __future__ import annotations

import logging
from array import array
from collections import deque
from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QLoggingCategory, QMetaObject, QObject, Qt, QThread, QTimer, Signal, Slot

from softphone import texts
from softphone.media.g711 import BLOCK, RATE
from softphone.media.resample import FromDevice, PcmFormat, ToDevice
from softphone.settings import DeviceChoice

LOG = logging.getLogger("media")

RING = 10  # blocks: 200 ms
FEED = 10  # ms between two looks at the loudspeaker's free space
IDLE = 1000  # ms without a block until a device is switched off
STOP_MS = 2000  # how long the audio thread may take to end

Opened = tuple[Any, PcmFormat]
"""Qt's audio object, not started yet, and the format of its samples."""
Say = Callable[[str], None]


class _Device(QObject):
    """One device. `make` gives Qt's audio object, None if there is no such device; it is called in
    the thread that this object lives in. `say` gets a sentence for the person, "" when all is well
    again."""

    _wanted = Signal()

    def __init__(self, make: Callable[[], Opened | None], name: str, say: Say) -> None:
        super().__init__()
        self.ring: deque[array[int]] = deque(maxlen=RING)
        self._make, self._name, self._say = make, name, say
        self._asked = False  # set by the media thread, cleared by ours when the device is off
        self._used = False  # since the last look
        self._audio: Any = None
        self._io: Any = None
        self._form = PcmFormat(RATE, 1)
        self._idle = QTimer(self)
        self._idle.setInterval(IDLE)
        self._idle.timeout.connect(self._check)
        self._wanted.connect(self._on)

    def use(self) -> None:
        """Any thread: the device is needed now."""
        self._used = True
        if not self._asked:
            self._asked = True
            self._wanted.emit()

    @Slot()
    def _on(self) -> None:
        opened = self._make()
        if opened is None:
            self._say(texts.NO_SUCH_DEVICE.format(device=self._name))
        else:
            self._audio, self._form = opened
            self._io = self._audio.start()
            if self._io is None:
                self._audio = None
                self._say(texts.DEVICE_UNUSABLE.format(device=self._name))
            else:
                self._say("")
                self._audio.stateChanged.connect(self._on_state)
                self._ready()
        self._idle.start()

    @Slot(object)
    def _on_state(self, state: Any) -> None:
        """Qt stops a device by itself only when it has failed or was unplugged."""
        if self._audio is not None and state.name == "StoppedState":
            self._say(texts.DEVICE_LOST.format(device=self._name))
            self._audio = self._io = None
            self._off()

    @Slot()
    def restart(self) -> None:
        """Look again which device to use, if it is in use."""
        if self._asked:
            self.close()
            self.use()

    @Slot()
    def _check(self) -> None:
        if not self._used:
            self.close()
        self._used = False

    @Slot()
    def close(self) -> None:
        """Switch the device off. The next block that is asked of it switches it on again."""
        self._idle.stop()
        audio, self._audio, self._io = self._audio, None, None
        if audio is not None:
            audio.stop()
        self.ring.clear()
        self._off()
        self._asked = False

    def _ready(self) -> None:
        raise NotImplementedError

    def _off(self) -> None:
        """The device has been switched off."""


class Microphone(_Device):
    """An AudioSource. `level`: the peak of the last block, 0 to 1."""

    def __init__(self, make: Callable[[], Opened | None], say: Say = LOG.warning) -> None:
        super().__init__(make, "microphone", say)
        self.level = 0.0
        self._convert = FromDevice(self._form)
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

    def _off(self) -> None:
        self.level = 0.0

    @Slot()
    def _take(self) -> None:
        if self._io is None:
            return
        samples = self._rest + self._convert.convert(bytes(self._io.readAll().data()))
        whole = len(samples) - len(samples) % BLOCK
        for start in range(0, whole, BLOCK):
            block = samples[start : start + BLOCK]
            self.level = max(map(abs, block)) / 32768
            self.ring.append(block)
        self._rest = samples[whole:]


class Loudspeaker(_Device):
    """An AudioSink. `name` is what it is called in sentences: loudspeaker or ringer."""

    def __init__(
        self,
        make: Callable[[], Opened | None],
        say: Say = LOG.warning,
        name: str = "loudspeaker",
    ) -> None:
        super().__init__(make, name, say)
        self._convert = ToDevice(self._form)
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


class AudioDevices(QObject):
    """The devices of a program, and the thread they run in. Made and used in the GUI thread.

    `said`: what is wrong with the devices, in sentences, or "". `plugged`: the lists have changed.
    `fault`: why there is no sound at all, or "".
    """

    said = Signal(str)
    plugged = Signal()
    _told = Signal(str, str)

    def __init__(self, choice: DeviceChoice | None = None, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.choice = choice or DeviceChoice()
        self._workers: list[QObject] = []
        self._sentences: dict[str, str] = {}
        self._told.connect(self._tell)
        self._multimedia, self.fault = _multimedia()
        self._thread = QThread()
        self._thread.setObjectName("audio")
        self._media_devices: Any = None
        if self._multimedia is not None:
            self._media_devices = self._multimedia.QMediaDevices()
            self._media_devices.audioInputsChanged.connect(self._on_plugged)
            self._media_devices.audioOutputsChanged.connect(self._on_plugged)
        self._thread.start(QThread.Priority.TimeCriticalPriority)

    # -- what there is -----------------------------------------------------------------------------

    def names(self, kind: str) -> list[tuple[str, str]]:
        """(id, name to show) of each device of this kind: microphone, loudspeaker or ringer."""
        return [(_id_of(each), each.description()) for each in self._listed(kind)]

    def has(self, kind: str) -> bool:
        return bool(self._listed(kind))

    def why_no_sound(self) -> str:
        """Names the device that is missing on this computer, in a sentence, or ""."""
        if self.fault:
            return self.fault
        microphone, loudspeaker = self.has("microphone"), self.has("loudspeaker")
        if not microphone and not loudspeaker:
            return texts.NO_SOUND_DEVICES
        if not microphone:
            return texts.NO_MICROPHONE
        if not loudspeaker:
            return texts.NO_LOUDSPEAKER
        return ""

    # -- devices -----------------------------------------------------------------------------------

    def microphone(self) -> Microphone:
        microphone = Microphone(lambda: self._open("microphone"), self._sayer("microphone"))
        self.adopt(microphone)
        return microphone

    def loudspeaker(self, kind: str = "loudspeaker") -> Loudspeaker:
        """One more player; several may play at once. `kind` may be ringer."""
        loudspeaker = Loudspeaker(lambda: self._open(kind), self._sayer(kind), kind)
        self.adopt(loudspeaker)
        return loudspeaker

    def adopt(self, worker: QObject) -> None:
        """Let an object run in the audio thread. It has a slot `close`, called at the end."""
        self._workers.append(worker)
        worker.moveToThread(self._thread)

    def choose(self, choice: DeviceChoice) -> None:
        """Use these from now on."""
        if choice != self.choice:
            self.choice = choice
            self._restart()

    def stop(self) -> None:
        """Switch all off and end the thread; twice is fine."""
        if not self._thread.isRunning():
            return
        for worker in self._workers:
            QMetaObject.invokeMethod(worker, "close", Qt.ConnectionType.BlockingQueuedConnection)
        self._thread.quit()
        self._thread.wait(STOP_MS)

    # -- inside ------------------------------------------------------------------------------------

    def _sayer(self, kind: str) -> Say:
        return lambda sentence: self._told.emit(kind, sentence)

    @Slot(str, str)
    def _tell(self, kind: str, sentence: str) -> None:
        if sentence:
            LOG.warning("%s", sentence)
        self._sentences[kind] = sentence
        self.said.emit(" ".join(each for each in self._sentences.values() if each))

    @Slot()
    def _on_plugged(self) -> None:
        self._restart()
        self.plugged.emit()

    def _restart(self) -> None:
        for worker in self._workers:
            if isinstance(worker, _Device):
                QMetaObject.invokeMethod(worker, "restart", Qt.ConnectionType.QueuedConnection)

    def _listed(self, kind: str) -> list[Any]:
        if self._multimedia is None:
            return []
        devices = self._multimedia.QMediaDevices
        found = devices.audioInputs() if kind == "microphone" else devices.audioOutputs()
        return list(found)

    def _open(self, kind: str) -> Opened | None:
        """Audio thread: Qt's object for the device that was chosen, else for the default one."""
        listed = self._listed(kind)
        if not listed:
            return None
        devices, wanted = self._multimedia.QMediaDevices, getattr(self.choice, kind)
        is_input = kind == "microphone"
        default = devices.defaultAudioInput() if is_input else devices.defaultAudioOutput()
        device = next((each for each in listed if wanted and _id_of(each) == wanted), default)
        asked, form = choose_format(device)
        maker = self._multimedia.QAudioSource if is_input else self._multimedia.QAudioSink
        return maker(device, asked), form


def _multimedia() -> tuple[Any, str]:
    """QtMultimedia, and why it cannot be used, in a sentence."""
    # Which sound systems it tried before it found one is nobody's concern.
    QLoggingCategory.setFilterRules(
        "qt.multimedia.symbolsresolver=false\nqt.multimedia.ffmpeg.info=false"
    )
    try:
        from PySide6 import QtMultimedia
    # QtMultimedia is not installed, or a library it needs (libpulse) is not
    except ImportError as error:
        return None, texts.NO_QT_SOUND.format(reason=error)
    return QtMultimedia, ""


def _id_of(device: Any) -> str:
    return bytes(device.id().data()).hex()


def choose_format(device: Any) -> tuple[Any, PcmFormat]:
    """The format to ask of a device: 8,000 Hz mono if it can, else what it prefers, in 16 bits if
    it can."""
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
