"""The window in which microphone, loudspeaker and ringer are chosen and tried."""

from __future__ import annotations

from dataclasses import asdict

from PySide6.QtCore import QTimer, Signal
from PySide6.QtWidgets import (
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QGridLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from softphone import texts
from softphone.gui.theme import GRID
from softphone.media.audio_devices import AudioDevices, Microphone
from softphone.media.call_tone_player import CallTonePlayer
from softphone.media.call_tones import CallTone
from softphone.settings import DeviceChoice

TEST_TONES = {"loudspeaker": CallTone.RINGBACK, "ringer": CallTone.RING}
LOOK_MS = 50
MICROPHONE_TEST_MS = 10_000


class SoundSettings(QDialog):
    """The dialog for the sound devices. A choice takes effect at once; Cancel takes it back.
    `chosen` is emitted on OK."""

    chosen = Signal(object)

    def __init__(
        self,
        devices: AudioDevices,
        microphone: Microphone,
        tones: CallTonePlayer,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.setObjectName("sound_settings")
        self.setWindowTitle(texts.SOUND)
        self._devices, self._microphone, self._tones = devices, microphone, tones
        self._before = devices.choice
        self.boxes: dict[str, QComboBox] = {}
        self._tests: dict[str, QPushButton] = {}
        grid = QGridLayout()
        for row, (kind, text) in enumerate(texts.DEVICE_KINDS.items()):
            box = self.boxes[kind] = QComboBox()
            box.setObjectName(kind)
            box.setAccessibleName(text)
            box.setMinimumWidth(30 * GRID)
            label = QLabel(f"&{text}")
            label.setBuddy(box)
            test = self._tests[kind] = QPushButton(texts.TEST, autoDefault=False)
            test.setObjectName(f"test_{kind}")
            test.setAccessibleName(texts.TEST_NAME.format(name=text))
            test.clicked.connect(lambda _=False, kind=kind: self._test(kind))
            for column, widget in enumerate((label, box, test)):
                grid.addWidget(widget, 2 * row, column)
        self.level = QProgressBar(maximum=100, textVisible=False)
        self.level.setObjectName("level")
        self.level.setAccessibleName(texts.MICROPHONE_LEVEL)
        self.level.setFixedHeight(GRID)
        grid.addWidget(self.level, 1, 1)
        self.said = QLabel(devices.why_no_sound(), wordWrap=True)
        self.said.setObjectName("said")
        buttons = QDialogButtonBox(
            QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel
        )
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        rows = QVBoxLayout(self)
        rows.addLayout(grid)
        rows.addWidget(self.said)
        rows.addWidget(buttons)
        self._looking = QTimer(self, interval=LOOK_MS)
        self._looking.timeout.connect(self._show_level)
        self._left_ms = 0
        self._fill()
        devices.plugged.connect(self._fill)
        devices.said.connect(self._say)
        for box in self.boxes.values():
            box.activated.connect(self._use)

    def _fill(self) -> None:
        """List the devices that there are now."""
        chosen = asdict(self._devices.choice)
        for kind, box in self.boxes.items():
            names = self._devices.names(kind)
            box.clear()
            box.addItem(texts.SYSTEM_DEVICE if names else texts.NO_DEVICE, "")
            for key, name in names:
                box.addItem(name, key)
            box.setCurrentIndex(max(0, box.findData(chosen[kind])))
            box.setEnabled(bool(names))
            self._tests[kind].setEnabled(bool(names))
            self._tests[kind].setToolTip("" if names else texts.NO_DEVICE)
        self._say("")

    def _say(self, sentence: str) -> None:
        self.said.setText(sentence or self._devices.why_no_sound())

    def _use(self) -> None:
        self._devices.choose(
            DeviceChoice(**{k: box.currentData() for k, box in self.boxes.items()})
        )

    def _test(self, kind: str) -> None:
        self._use()
        if kind == "microphone":
            self._left_ms = MICROPHONE_TEST_MS
            self._looking.start()
            self._say(texts.SPEAK_NOW)
        else:
            self._tones.test(TEST_TONES[kind])
            self._say(texts.YOU_SHOULD_HEAR)

    def _show_level(self) -> None:
        self._microphone.use()
        self.level.setValue(round(100 * self._microphone.level))
        self._left_ms -= LOOK_MS
        if self._left_ms <= 0:
            self._looking.stop()
            self.level.setValue(0)
            self._say("")

    def done(self, result: int) -> None:
        self._looking.stop()
        self._tones.test(None)
        if result:
            self.chosen.emit(self._devices.choice)
        else:
            self._devices.choose(self._before)
        super().done(result)
