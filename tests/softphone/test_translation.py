"""Every text of the phone's windows goes through the translation: in a language that is English in
capitals nothing on any window keeps a small letter."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMES = ("ALICE", "BOB")  # of the two phones, and data rather than texts
# Qt's properties that a person sees, or hears from a screen reader
SHOWN = (
    *("windowTitle", "text", "toolTip", "accessibleName", "accessibleDescription"),
    *("placeholderText", "currentText"),
)


def shouted(text: str) -> str:
    """In capitals, but for what is put in later: {name}."""
    parts = text.split("{")
    shouted = [part.partition("}")[0] + "}" + part.partition("}")[2].upper() for part in parts[1:]]
    return "{".join([parts[0].upper(), *shouted])


def walk() -> list[str]:
    """Open all windows in all states; the texts with a small letter in them. In a process of its
    own, whose `tr` shouts."""
    from softphone import translation

    translation.tr = shouted
    from PySide6.QtCore import QAbstractItemModel, Qt
    from PySide6.QtGui import QAction
    from PySide6.QtWidgets import QAbstractItemView, QDialogButtonBox, QLineEdit, QWidget
    from qt_kit import FakePhone, FakeStats

    from softphone.call_history import CallHistory, Outcome, PastCall
    from softphone.gui.account_dialog import AccountDialog
    from softphone.gui.call_list import CallList
    from softphone.gui.event_bridge import Bridge
    from softphone.gui.listen_in import ListenInButton
    from softphone.gui.phone_panel import PhonePanel
    from softphone.gui.qapplication import application
    from softphone.gui.sound_settings import SoundSettings
    from softphone.gui.trace_window import TraceWindow
    from softphone.gui.windows import PhonesWindow
    from softphone.media.audio_devices import AudioDevices
    from softphone.media.call_tone_player import CallTonePlayer
    from softphone.settings import SavedAccount
    from softphone.sip_trace import SipTrace
    from softphone.ua.events import CallState, RegistrationState
    from softphone.ua.user_messages import registered

    application(["softphone"])
    small: set[str] = set()

    def look(root: QWidget) -> None:
        standard = QDialogButtonBox.StandardButton
        kinds = (standard.Ok, standard.Cancel, standard.Close)
        boxes = root.findChildren(QDialogButtonBox)
        from_qt = [box.button(kind) for box in boxes for kind in kinds]  # which Qt translates
        for thing in {root, *root.findChildren(QWidget), *root.findChildren(QAction)}:
            shown = {name: thing.property(name) or "" for name in SHOWN}
            if isinstance(thing, QLineEdit):
                del shown["text"]  # a person's own
            if isinstance(thing, QAbstractItemView):
                shown |= cells_of(thing.model())
            if thing not in from_qt:
                name = thing.objectName() or type(thing).__name__
                said = map(str, shown.values())
                small.update(f"{name}: {text}" for text in said if text != text.upper())

    def cells_of(model: QAbstractItemModel) -> dict[str, str]:
        columns = range(model.columnCount())
        headings = {str(c): model.headerData(c, Qt.Orientation.Horizontal) for c in columns}
        rows = range(model.rowCount())
        return headings | {f"{r} {c}": model.index(r, c).data() for r in rows for c in columns}

    bridges = [Bridge(), Bridge()]
    phones = [FakePhone(bridge) for bridge in bridges]
    panels = [
        PhonePanel(name, phone, bridge)
        for name, phone, bridge in zip(NAMES, phones, bridges, strict=True)
    ]
    window = PhonesWindow(panels, ListenInButton(NAMES, [[], []]))
    window.show()
    look(window)
    phones[0].tell_registration(RegistrationState.REFUSED, "", True)
    phones[1].tell_registration(sentence=registered("BOB", ""))
    phones[0].stats = FakeStats(codec="PCMU", elsewhere="192.0.2.1", round_trip_ms=1.0)
    for state in CallState:
        phones[0].begin(state, name="BOB", uri="SIP:BOB@192.0.2.1", call_id=state.value)
        window.panels[0]._show_frame()
        look(window)
        phones[0].become(state, held_here=True)
        phones[0].become(CallState.ENDED)
    look(window)
    history = CallHistory()
    for outcome in Outcome:
        history.add(PastCall("SIP:BOB@192.0.2.1", "BOB", outcome, 0.0, 1.0, ""))
    devices = AudioDevices()
    devices.names = lambda kind: []  # what it has here is called as its maker pleased
    player = CallTonePlayer(devices.loudspeaker("ringer"), devices.loudspeaker())
    for dialog in (
        AccountDialog(SavedAccount("alice")),
        CallList("ALICE", history),
        CallList("ALICE", CallHistory()),
        TraceWindow("ALICE", SipTrace()),
        SoundSettings(devices, devices.microphone(), player),
    ):
        look(dialog)
    devices.stop()
    return sorted(small)


def test_nothing_on_the_windows_stays_untranslated(tmp_path: Path) -> None:
    paths = os.pathsep.join(map(str, [ROOT, ROOT / "tests" / "kits", Path(__file__).parent]))
    settings = {"PYTHONPATH": paths, "QT_QPA_PLATFORM": "offscreen"}
    run = subprocess.run(
        [sys.executable, "-c", "import test_translation as t; print(*t.walk(), sep='\\n')"],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | settings,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == ""


def test_a_catalogue_of_gettext_translates(tmp_path: Path) -> None:
    folder = ROOT / "softphone" / "locale"
    assert not folder.exists(), "the test would have to put its catalogue elsewhere"
    program = (
        "import gettext, pathlib; find = gettext.translation\n"
        f"gettext.translation = lambda d, _, **k: find(d, pathlib.Path({str(tmp_path)!r}), **k)\n"
        "from softphone import texts; print(texts.HANG_UP)"
    )
    catalogue = tmp_path / "de" / "LC_MESSAGES" / "softphone.mo"
    catalogue.parent.mkdir(parents=True)
    catalogue.write_bytes(compiled("Hang up", "Auflegen"))
    said = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=os.environ | {"LANGUAGE": "de", "PYTHONPATH": str(ROOT)},
    )
    assert said.stdout.strip() == "Auflegen", said.stderr


def compiled(text: str, translated: str) -> bytes:
    """A catalogue of one text, as msgfmt writes it: magic number, tables of lengths and places."""
    one, other = text.encode(), translated.encode()
    start = 28 + 16
    header = struct.pack("<7I", 0x950412DE, 0, 1, 28, 36, 0, 0)
    tables = struct.pack("<4I", len(one), start, len(other), start + len(one) + 1)
    return header + tables + one + b"\0" + other + b"\0"
