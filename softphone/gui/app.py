"""Makes the phones, their sound and their window, and runs until the window
is closed."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence

from PySide6.QtWidgets import QApplication, QMessageBox

from softphone.gui.event_bridge import Bridge
from softphone.gui.phone_panel import PhonePanel
from softphone.gui.qapplication import SCREENLESS, application
from softphone.gui.theme import install
from softphone.gui.unix_signals import Interrupt
from softphone.gui.windows import PairWindow, PhoneSlot, PhonesWindow, PhoneWindow
from softphone.media.audio_devices import open_devices
from softphone.media.audio_interfaces import AudioSink, AudioSource, NullSink
from softphone.media.tone_generator import ToneSource
from softphone.options import PhoneOptions
from softphone.phone import Account, Phone

LOG = logging.getLogger("qt")
# Hz; the next phone speaks a third higher, so that one hears and sees who is sending
LOWEST_TONE = 440.0


class NoticeBuffer:
    """Takes what the sound devices say, also before there is a panel to show it."""

    def __init__(self) -> None:
        self._last = ""
        self._panel: PhonePanel | None = None

    def say(self, sentence: str) -> None:
        self._last = sentence
        if self._panel is not None:
            self._panel.set_note(sentence)

    def show_on(self, panel: PhonePanel) -> None:
        self._panel = panel
        panel.set_note(self._last)


def sound_of(
    wish: PhoneOptions, number: int, say: Callable[[str], None]
) -> tuple[AudioSource, AudioSink]:
    """Microphone and loudspeaker, or a tone where they are missing or not wanted. GUI thread."""
    tone = ToneSource(LOWEST_TONE * 1.25**number)
    devices = None if wish.tone else open_devices(tone, say)
    return devices or (tone, NullSink())


def phone_of(wish: PhoneOptions, bridge: Bridge, sound: tuple[AudioSource, AudioSink]) -> Phone:
    """The phone that was wished for; what happens to it goes over the bridge."""
    account = Account(wish.user, wish.domain, wish.password, wish.label, wish.realms, wish.servers)
    return Phone(
        account,
        wish.proxy,
        wish.listen,
        bridge.event.emit,
        sound,
        session_expires=wish.session_expires,
        direct=wish.direct,
        keep_alive=wish.keep_alive,
    )


def run(wanted: Sequence[PhoneOptions]) -> int:
    """Show one window with these phones; returns the exit status when it is closed or the program
    is interrupted."""
    app = application(["softphone"])
    app.setApplicationDisplayName("Softphone")
    app.setQuitOnLastWindowClosed(False)  # the phones say goodbye after their window has gone
    install(app)
    remarks = [NoticeBuffer() for _ in wanted]
    sounds = [sound_of(wish, number, remarks[number].say) for number, wish in enumerate(wanted)]
    bridges = [Bridge() for _ in wanted]
    phones = [phone_of(*each) for each in zip(wanted, bridges, sounds, strict=True)]
    window = _window(
        [
            PhoneSlot(w.label, phone, b, w.target)
            for w, phone, b in zip(wanted, phones, bridges, strict=True)
        ]
    )
    for remark, panel in zip(remarks, window.panels, strict=True):
        remark.show_on(panel)
    try:
        for phone in phones:
            phone.start()
    except OSError as fault:
        for phone in phones:
            phone.stop(0.0)
        return complain(f"The phone cannot start: {fault.strerror or fault}")
    return _show(app, window, sounds)


def _window(seats: list[PhoneSlot]) -> PhonesWindow:
    return PhoneWindow(seats[0]) if len(seats) == 1 else PairWindow(seats[0], seats[1])


def _show(
    app: QApplication, window: PhonesWindow, sounds: Sequence[tuple[AudioSource, AudioSink]]
) -> int:
    interrupt = Interrupt(window.close)
    window.gone.connect(app.quit)
    window.show()
    LOG.info("the window is open: %s", window.windowTitle())
    try:
        return app.exec()
    finally:
        interrupt.close()
        for device in (device for pair in sounds for device in pair):
            close = getattr(device, "close", None)  # a device has one, a tone has not
            if close is not None:
                close()


def complain(sentence: str) -> int:
    """Say why there will be no window: to the terminal, and to a person who started the phone with
    a double click."""
    print(f"softphone: {sentence}", file=sys.stderr)
    started_by_click = sys.stderr is None or not sys.stderr.isatty()
    if started_by_click and QApplication.platformName() not in SCREENLESS:
        QMessageBox.critical(None, "Softphone", sentence)
    return 1
