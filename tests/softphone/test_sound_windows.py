"""Listening in, and the window in which sound devices are chosen and tried."""

from __future__ import annotations

from array import array

import pytest
from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtWidgets import QComboBox, QDialogButtonBox, QLabel, QPushButton
from qt_kit import find

from softphone.gui.app import Softphone
from softphone.gui.listen_in import ListenInButton
from softphone.gui.sound_settings import SoundSettings
from softphone.media.audio_devices import AudioDevices
from softphone.media.audio_interfaces import SwitchedSink
from softphone.media.call_tones import CallTone
from softphone.options import parse_phones, parser
from softphone.settings import DeviceChoice


class Heard:
    def __init__(self) -> None:
        self.count = 0

    def write(self, samples: array) -> None:
        self.count += 1


@pytest.fixture
def listen(qtbot):
    heard = [Heard(), Heard()]
    sinks = [SwitchedSink(each) for each in heard]
    button = ListenInButton(["Alice", "Bob"], [[sink] for sink in sinks])
    qtbot.addWidget(button)
    button.show()

    def who() -> list[str]:
        before = [each.count for each in heard]
        for sink in sinks:
            sink.write(array("h", [0]))
        names = zip(("Alice", "Bob"), heard, before, strict=True)
        return [name for name, each, count in names if each.count > count]

    return button, who


def choose(qtbot, button: QPushButton, text: str) -> None:
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    menu = button.menu()
    (action,) = [each for each in menu.actions() if each.text() == text]
    qtbot.mouseClick(menu, Qt.MouseButton.LeftButton, pos=menu.actionGeometry(action).center())


def test_one_listens_to_nobody_at_first_then_to_one_or_both(listen, qtbot) -> None:
    button, who = listen
    assert who() == [] and button.text() == "Listen in: off"
    for text, heard in (("Alice", ["Alice"]), ("both", ["Alice", "Bob"]), ("Bob", ["Bob"])):
        choose(qtbot, button, text)
        assert who() == heard and button.text() == f"Listen in: {text}"
    choose(qtbot, button, "off")
    assert who() == []


def test_without_a_loudspeaker_the_button_says_why(qtbot) -> None:
    button = ListenInButton(["Alice", "Bob"], [[], []], "This computer has no loudspeaker")
    qtbot.addWidget(button)
    assert not button.isEnabled() and button.toolTip() == "This computer has no loudspeaker"


class FakeDevices(QObject):
    plugged = Signal()
    said = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.choice = DeviceChoice()
        self.listed = {"microphone": [("01", "Built-in")], "loudspeaker": [("02", "Headset")]}
        self.why = ""

    def names(self, kind: str) -> list[tuple[str, str]]:
        return self.listed.get(kind, [])

    def choose(self, choice: DeviceChoice) -> None:
        self.choice = choice

    def why_no_sound(self) -> str:
        return self.why


class FakeMicrophone:
    level, used = 0.25, 0

    def use(self) -> None:
        self.used += 1


class FakeTones:
    def __init__(self) -> None:
        self.played: list[CallTone | None] = []

    def test(self, tone: CallTone | None) -> None:
        self.played.append(tone)


@pytest.fixture
def sound(qtbot):
    dialog = SoundSettings(FakeDevices(), FakeMicrophone(), FakeTones())
    qtbot.addWidget(dialog)
    dialog.show()
    return dialog


def press(qtbot, dialog, button: QDialogButtonBox.StandardButton) -> None:
    box = dialog.findChild(QDialogButtonBox)
    qtbot.mouseClick(box.button(button), Qt.MouseButton.LeftButton)


def pick(qtbot, dialog, kind: str) -> None:
    box = find(dialog, kind, QComboBox)
    box.setFocus()
    qtbot.keyClick(box, Qt.Key.Key_Down)


def test_a_device_is_chosen_tried_and_kept(sound, qtbot) -> None:
    pick(qtbot, sound, "loudspeaker")
    assert sound._devices.choice == DeviceChoice(loudspeaker="02")
    qtbot.mouseClick(find(sound, "test_loudspeaker", QPushButton), Qt.MouseButton.LeftButton)
    assert sound._tones.played == [CallTone.RINGBACK]
    with qtbot.waitSignal(sound.chosen) as kept:
        press(qtbot, sound, QDialogButtonBox.StandardButton.Ok)
    assert kept.args == [DeviceChoice(loudspeaker="02")]
    assert sound._tones.played[-1] is None, "the test does not go on without its window"


def test_cancel_takes_the_choice_back(sound, qtbot) -> None:
    pick(qtbot, sound, "microphone")
    assert sound._devices.choice.microphone == "01"
    press(qtbot, sound, QDialogButtonBox.StandardButton.Cancel)
    assert sound._devices.choice == DeviceChoice()


def test_the_microphone_is_shown_while_it_is_tried(sound, qtbot) -> None:
    qtbot.mouseClick(find(sound, "test_microphone", QPushButton), Qt.MouseButton.LeftButton)
    assert "Speak" in find(sound, "said", QLabel).text()
    qtbot.waitUntil(lambda: find(sound, "level").value() == 25)
    assert sound._microphone.used > 0


def test_what_is_not_there_cannot_be_chosen_and_appears_when_plugged_in(sound) -> None:
    ringer = find(sound, "ringer", QComboBox)
    assert not ringer.isEnabled() and ringer.currentText() == "None found"
    assert not find(sound, "test_ringer", QPushButton).isEnabled()
    sound._devices.listed["ringer"] = [("03", "Desk")]
    sound._devices.plugged.emit()
    assert ringer.isEnabled() and ringer.count() == 2
    sound._devices.said.emit("The ringer was lost; the call goes on without it.")
    assert "lost" in find(sound, "said", QLabel).text()


@pytest.mark.qt_log_ignore("(?i)pipewire|pulse", extend=True)
def test_in_a_pair_that_nobody_listens_to_the_test_tone_is_heard(
    qapp, qtbot, tmp_path, monkeypatch
) -> None:
    heard = Heard()
    monkeypatch.setattr(AudioDevices, "names", lambda self, kind: [("02", "Headset")])
    monkeypatch.setattr(AudioDevices, "loudspeaker", lambda self, kind="loudspeaker": heard)
    pair = parse_phones(parser().parse_args(["--proxy", "127.0.0.1:9"]))
    program = Softphone(qapp, tmp_path, pair)
    program.open(pair)
    try:
        program.show_sound_settings()
        button = find(program.window, "test_loudspeaker", QPushButton)
        qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
        qtbot.waitUntil(lambda: heard.count > 0)
    finally:
        program.window.gone.disconnect(program._on_gone)
        with qtbot.waitSignal(program.window.gone):
            program.close()
        program.stop()


@pytest.mark.parametrize("key", [Qt.Key.Key_Return, Qt.Key.Key_Space])
def test_the_menu_of_listening_opens_with_the_keyboard(qtbot, key) -> None:
    button = ListenInButton(["Alice", "Bob"], [[], []])
    qtbot.addWidget(button)
    button.show()
    qtbot.keyClick(button, key)
    qtbot.waitUntil(button.menu().isVisible)
    button.menu().close()
