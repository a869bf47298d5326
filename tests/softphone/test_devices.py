"""Microphone and loudspeaker: what happens without them, and how sound crosses between Qt's thread
and the media's."""

import sys
import threading
from array import array
from types import SimpleNamespace

import pytest
from PySide6.QtCore import QObject, Signal

from softphone.media import audio_devices
from softphone.media.audio_devices import (
    RING,
    AudioDevices,
    Loudspeaker,
    Microphone,
    choose_format,
)
from softphone.media.resample import FromDevice, PcmFormat, Resampler, ToDevice
from softphone.settings import DeviceChoice

TELEPHONE = PcmFormat(8000, 1)


class FakeIo(QObject):
    readyRead = Signal()

    def __init__(self):
        super().__init__()
        self.data = b""
        self.written = b""

    def readAll(self):
        data, self.data = self.data, b""
        return SimpleNamespace(data=lambda: data)

    def write(self, data):
        self.written += data

    def give(self, data):
        self.data += data
        self.readyRead.emit()


class FakeAudio(QObject):
    """QAudioSource or QAudioSink, as far as they are used."""

    stateChanged = Signal(object)

    def __init__(self, io, room=10_000):
        super().__init__()
        self.io, self.room, self.on = io, room, False

    def start(self):
        self.on = self.io is not None
        return self.io

    def stop(self):
        self.on = False

    def bytesFree(self):
        return self.room


def in_media_thread(work):
    thread = threading.Thread(target=work, name="media-test")
    thread.start()
    thread.join()


@pytest.fixture
def fake(qtbot):
    """A device of the given class around a fake audio object; closed at the end."""
    made = []

    def make(kind, io, form=TELEPHONE, **more):
        audio = FakeAudio(io)
        device = kind(lambda: (audio, form) if io is not False else None, **more)
        made.append(device)
        return device, audio

    yield make
    for device in made:
        device.close()


class FakeDevice:
    """QAudioDevice, as far as it is used."""

    def __init__(self, name, form=None):
        self.name, self.form = name, form

    def id(self):
        return SimpleNamespace(data=lambda: self.name.encode())

    def description(self):
        return self.name


class FakeMultimedia(QObject):
    """QtMultimedia with devices that a test plugs and unplugs. `opened`: the names of those that
    were switched on."""

    def __init__(self):
        super().__init__()
        self.inputs, self.outputs, self.opened, self.audios = [], [], [], []
        outer = self

        class QMediaDevices(QObject):
            audioInputsChanged = Signal()
            audioOutputsChanged = Signal()
            audioInputs = staticmethod(lambda: list(outer.inputs))
            audioOutputs = staticmethod(lambda: list(outer.outputs))
            defaultAudioInput = staticmethod(lambda: outer.inputs[0])
            defaultAudioOutput = staticmethod(lambda: outer.outputs[0])

            def __init__(self):
                super().__init__()
                outer.signals = self

        self.QMediaDevices = QMediaDevices
        self.QAudioSource = self.QAudioSink = self._open

    def _open(self, device, form):
        self.opened.append(device.name)
        self.audios.append(FakeAudio(FakeIo()))
        self.audios[-1].thread = threading.current_thread().name
        return self.audios[-1]


@pytest.fixture
def system(qapp, monkeypatch):
    """Devices, and the computer they are plugged into."""
    multimedia = FakeMultimedia()
    monkeypatch.setattr(audio_devices, "_multimedia", lambda: (multimedia, ""))
    monkeypatch.setattr(audio_devices, "choose_format", lambda device: (None, TELEPHONE))
    made = []

    def make(*inputs, outputs=(), **choice):
        multimedia.inputs = [FakeDevice(name) for name in inputs]
        multimedia.outputs = [FakeDevice(name) for name in outputs]
        chosen = {kind: name.encode().hex() for kind, name in choice.items()}
        made.append(AudioDevices(DeviceChoice(**chosen)))
        return made[-1], multimedia

    yield make
    for devices in made:
        devices.stop()


def test_what_is_missing_is_said(system):
    assert system()[0].why_no_sound().startswith("This computer has no microphone and no loud")
    assert "has no microphone; a tone" in system(outputs=["box"])[0].why_no_sound()
    assert "has no loudspeaker" in system("mic")[0].why_no_sound()
    assert system("mic", outputs=["box"])[0].why_no_sound() == ""


def test_without_the_library_there_is_a_sentence_and_no_sound(qapp, monkeypatch):
    monkeypatch.setitem(sys.modules, "PySide6.QtMultimedia", None)
    monkeypatch.delattr("PySide6.QtMultimedia", raising=False)
    devices = AudioDevices()
    assert "QtMultimedia cannot be loaded" in devices.why_no_sound()
    assert not devices.has("loudspeaker") and devices.names("microphone") == []
    devices.stop()


def test_a_format_is_chosen_that_the_device_has(qapp):
    multimedia = pytest.importorskip("PySide6.QtMultimedia", exc_type=ImportError)
    form = multimedia.QAudioFormat()
    form.setSampleRate(48000)
    form.setChannelCount(2)
    form.setSampleFormat(multimedia.QAudioFormat.SampleFormat.Float)
    device = SimpleNamespace(preferredFormat=lambda: form, isFormatSupported=lambda wanted: False)
    assert choose_format(device)[1] == PcmFormat(48000, 2, "f")


def test_the_chosen_device_is_used_and_the_default_where_it_is_gone(system, qtbot):
    devices, computer = system("built-in", "headset", microphone="headset")
    microphone = devices.microphone()
    microphone.read(160)
    qtbot.waitUntil(lambda: computer.opened == ["headset"])
    computer.inputs.pop()
    computer.signals.audioInputsChanged.emit()
    qtbot.waitUntil(lambda: computer.opened == ["headset", "built-in"])
    assert not computer.audios[0].on and computer.audios[1].on


def test_a_headset_that_is_plugged_in_during_a_call_is_used(system, qtbot):
    devices, computer = system(outputs=["built-in"], loudspeaker="headset")
    speaker = devices.loudspeaker()
    speaker.write(array("h", [0] * 160))
    qtbot.waitUntil(lambda: computer.opened == ["built-in"])
    computer.outputs.append(FakeDevice("headset"))
    computer.signals.audioOutputsChanged.emit()
    qtbot.waitUntil(lambda: computer.opened == ["built-in", "headset"])


def test_devices_run_in_a_thread_of_their_own(system, qtbot):
    devices, computer = system(outputs=["box"])
    devices.loudspeaker().write(array("h", [0] * 160))
    qtbot.waitUntil(lambda: bool(computer.audios))
    assert computer.audios[0].thread != threading.current_thread().name


def test_a_lost_headset_is_said_and_taken_back_with_another(system, qtbot):
    devices, computer = system("headset")
    said = []
    devices.said.connect(said.append)
    devices.microphone().read(160)
    qtbot.waitUntil(lambda: bool(computer.audios))
    computer.inputs.clear()
    computer.signals.audioInputsChanged.emit()
    lost = "This computer has no microphone; the call goes on without it."
    qtbot.waitUntil(lambda: said[-1:] == [lost])
    computer.inputs.append(FakeDevice("another"))
    computer.signals.audioInputsChanged.emit()
    qtbot.waitUntil(lambda: said[-1] == "")


def test_another_choice_is_used_at_once(system, qtbot):
    devices, computer = system(outputs=["box", "headset"])
    speaker = devices.loudspeaker("ringer")
    speaker.write(array("h", [0] * 160))
    qtbot.waitUntil(lambda: computer.opened == ["box"])
    devices.choose(DeviceChoice(ringer=b"headset".hex()))
    qtbot.waitUntil(lambda: computer.opened == ["box", "headset"])


def test_a_device_that_fails_is_said(fake, qtbot):
    said = []
    microphone, audio = fake(Microphone, FakeIo(), say=said.append)
    microphone.read(160)
    qtbot.waitUntil(lambda: audio.on)
    audio.stateChanged.emit(SimpleNamespace(name="StoppedState"))
    assert said == ["", "The microphone was lost; the call goes on without it."]
    assert microphone.read(160) == array("h")


def test_the_microphone_is_switched_on_by_the_first_block_asked_of_it(fake, qtbot):
    io = FakeIo()
    microphone, audio = fake(Microphone, io)
    assert not audio.on
    in_media_thread(lambda: microphone.read(160))
    qtbot.waitUntil(lambda: audio.on)
    io.give(array("h", range(400)).tobytes())
    heard = []
    in_media_thread(lambda: heard.extend(microphone.read(160) for _ in range(3)))
    assert [block.tolist() for block in heard] == [list(range(160)), list(range(160, 320)), []]


def test_a_device_nobody_uses_is_switched_off(fake, qtbot):
    microphone, audio = fake(Microphone, FakeIo())
    in_media_thread(lambda: microphone.read(160))
    qtbot.waitUntil(lambda: audio.on)
    microphone._idle.setInterval(10)
    qtbot.waitUntil(lambda: not audio.on)
    in_media_thread(lambda: microphone.read(160))
    qtbot.waitUntil(lambda: audio.on)


def test_what_the_microphone_gives_too_much_is_forgotten_from_the_oldest_on(fake, qtbot):
    io = FakeIo()
    microphone, audio = fake(Microphone, io)
    in_media_thread(lambda: microphone.read(160))
    qtbot.waitUntil(lambda: audio.on)
    for number in range(RING + 5):
        io.give(array("h", [number] * 160).tobytes())
    heard = []
    in_media_thread(lambda: heard.extend(microphone.read(160) for _ in range(RING)))
    assert [block[0] for block in heard] == list(range(5, RING + 5))


def test_the_loudspeaker_plays_in_the_devices_format(fake, qtbot):
    io = FakeIo()
    speaker, _ = fake(Loudspeaker, io, PcmFormat(16000, 2))
    in_media_thread(lambda: speaker.write(array("h", [5] * 160)))
    qtbot.waitUntil(lambda: len(io.written) == 160 * 2 * 2 * 2)
    assert array("h", io.written)[-1] == 5


def test_the_loudspeaker_is_given_no_more_than_it_has_room_for(fake, qtbot):
    io = FakeIo()
    speaker, audio = fake(Loudspeaker, io)
    audio.room = 3 * 320 + 10
    in_media_thread(lambda: [speaker.write(array("h", [5] * 160)) for _ in range(8)])
    qtbot.waitUntil(lambda: len(io.written) >= 3 * 320)
    audio.room = 0
    written = len(io.written)
    assert written % (3 * 320) == 0
    qtbot.wait(30)
    assert len(io.written) == written


def test_a_device_that_will_not_start_is_said_once(fake, qtbot):
    said = []
    microphone, _ = fake(Microphone, None, say=said.append)
    for _ in range(3):
        in_media_thread(lambda: microphone.read(160))
    qtbot.waitUntil(lambda: bool(said))
    assert said == ["The microphone cannot be used now; the call goes on without it."]


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100, 48000])
def test_a_second_is_a_second_at_every_rate_and_keeps_its_level(rate):
    there, back = Resampler(8000, rate), Resampler(rate, 8000)
    count, level = 0, 0
    for _ in range(50):
        block = back.convert(there.convert(array("h", [1000] * 160)))
        count += len(block)
        level = block[-1]
    assert abs(count - 8000) <= 2 and level == 1000


@pytest.mark.parametrize("kind", ["h", "i", "f"])
@pytest.mark.parametrize("channels", [1, 2])
def test_sound_survives_the_devices_format(kind, channels):
    form = PcmFormat(8000, channels, kind)
    samples = array("h", [0, 1, -1, 1000, -1000, 32767, -32767])
    assert FromDevice(form).convert(ToDevice(form).convert(samples)) == samples


def test_odd_pieces_of_bytes_and_impossible_floats_do_no_harm():
    reader = FromDevice(PcmFormat(8000, 2, "f"))
    data = array("f", [9.0, 9.0, float("nan"), float("nan"), -9.0, -9.0]).tobytes()
    heard = reader.convert(data[:5]) + reader.convert(data[5:])
    assert (heard[0], heard[2]) == (32767, -32768) and len(heard) == 3
