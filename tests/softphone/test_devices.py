"""Microphone and loudspeaker: what happens without them, and how sound crosses between Qt's thread
and the media's."""

import sys
import threading
from array import array
from types import SimpleNamespace

import pytest
from PySide6.QtCore import QObject, Signal

from softphone.media.audio_devices import RING, Loudspeaker, Microphone, open_devices
from softphone.media.resample import FromDevice, PcmFormat, Resampler, ToDevice
from softphone.media.tone_generator import ToneSource

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


class FakeAudio:
    """QAudioSource or QAudioSink, as far as they are used."""

    def __init__(self, io, room=10_000):
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
        device = kind(lambda: audio, form, **more)
        made.append(device)
        return device, audio

    yield make
    for device in made:
        device.close()


def test_without_devices_there_is_a_sentence_and_no_sound(qapp, monkeypatch):
    multimedia = SimpleNamespace(
        QAudioSink=None,
        QAudioSource=None,
        QMediaDevices=SimpleNamespace(audioInputs=list, audioOutputs=list),
    )
    monkeypatch.setitem(sys.modules, "PySide6.QtMultimedia", multimedia)
    said = []
    assert open_devices(say=said.append) is None
    assert said == ["This computer has no microphone and no loudspeaker; a tone is sent instead."]


def test_without_the_library_there_is_a_sentence_and_no_sound(monkeypatch):
    monkeypatch.setitem(sys.modules, "PySide6.QtMultimedia", None)
    said = []
    assert open_devices(say=said.append) is None
    assert "QtMultimedia cannot be loaded" in said[0] and "tone" in said[0]


# QtMultimedia tries one sound system after another
@pytest.mark.qt_log_ignore("pipewire", extend=True)
def test_a_loudspeaker_alone_is_used_with_the_tone(qapp, monkeypatch):
    multimedia = pytest.importorskip("PySide6.QtMultimedia", exc_type=ImportError)
    form = multimedia.QAudioFormat()
    form.setSampleRate(48000)
    form.setChannelCount(2)
    form.setSampleFormat(multimedia.QAudioFormat.SampleFormat.Float)
    device = SimpleNamespace(preferredFormat=lambda: form, isFormatSupported=lambda wanted: False)
    listed = SimpleNamespace(
        audioInputs=list, audioOutputs=lambda: [device], defaultAudioOutput=lambda: device
    )
    monkeypatch.setattr(multimedia, "QMediaDevices", listed)
    said, tone = [], ToneSource()
    source, sink = open_devices(tone, said.append)
    assert source is tone and isinstance(sink, Loudspeaker)
    assert sink._form == PcmFormat(48000, 2, "f") and said == [
        "This computer has no microphone; a tone is sent instead."
    ]


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
