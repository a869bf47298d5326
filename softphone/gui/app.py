"""The program: makes the phones, their sound and their window, and runs until the window is
closed."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PySide6.QtCore import QObject, QStandardPaths
from PySide6.QtWidgets import QApplication, QMessageBox

from plumbing.screen_check import SCREENLESS
from softphone import settings as settings_file
from softphone import texts
from softphone.call_history import CallHistory
from softphone.gui.account_dialog import AccountDialog
from softphone.gui.event_bridge import Bridge
from softphone.gui.listen_in import ListenInButton
from softphone.gui.phone_panel import PhonePanel
from softphone.gui.qapplication import application
from softphone.gui.sound_settings import SoundSettings
from softphone.gui.unix_signals import Interrupt
from softphone.gui.windows import PhonesWindow
from softphone.media.audio_devices import AudioDevices
from softphone.media.audio_interfaces import AudioSink, AudioSource, SwitchedSink
from softphone.media.call_tone_player import CallTonePlayer
from softphone.media.tone_generator import ToneSource
from softphone.options import PhoneOptions, account_options
from softphone.phone import Account, Phone
from softphone.settings import SavedAccount, Settings

LOG = logging.getLogger("qt")
# Hz; the next phone speaks a third higher, so that one hears and sees who is sending
LOWEST_TONE = 440.0


class Softphone(QObject):
    """The windows of the program, one after the other: closing one ends the program, unless another
    was asked for. `folder` holds the settings and the lists of calls."""

    def __init__(self, app: QApplication, folder: Path, pair: Sequence[PhoneOptions]) -> None:
        super().__init__(app)
        self._app, self._folder, self._pair = app, folder, pair
        self._settings, self._fault = self._load()
        self.devices = AudioDevices(self._settings.devices, self)
        self.devices.said.connect(self._show_remark)
        self._missing = ""  # names the sound device that this computer lacks
        self._microphone = self.devices.microphone()
        self._test_tones = self._tone_player(
            self.devices.loudspeaker("ringer"), self.devices.loudspeaker()
        )
        self._next: list[PhoneOptions] | None = None
        self.window: PhonesWindow | None = None

    def own_phone(self) -> list[PhoneOptions]:
        """The phone that was set up; none if there is none, or it makes no sense any more."""
        try:
            return [account_options(self._settings.account)] if self._settings.account else []
        except ValueError as fault:
            self._fault = str(fault)
            return []

    def open(self, wanted: Sequence[PhoneOptions]) -> None:
        """Show a window with these phones; OSError if one cannot have its address."""
        is_pair = len(wanted) > 1
        sinks = [self._sinks(on=not is_pair) for _ in wanted]
        panels = [
            self._panel(options, self._source(options, number), sinks[number], is_pair)
            for number, options in enumerate(wanted)
        ]
        listen_in = None
        if is_pair:
            why_not = "" if self.devices.has("loudspeaker") else texts.NOTHING_TO_LISTEN_WITH
            names = [options.account.display_name for options in wanted]
            listen_in = ListenInButton(names, sinks, why_not)
        for panel in panels:
            self._add_entries(panel, wanted)
        window = PhonesWindow(panels, listen_in)
        try:
            for panel in panels:
                panel.phone.start()
        except OSError:
            for panel in panels:
                panel.phone.stop(0.0)
            raise
        self.window, self._next = window, None
        self._missing = "" if wanted[0].tone else self.devices.why_no_sound()
        self._show_remark(self._fault)
        window.gone.connect(self._on_gone)
        window.show()
        LOG.info("the window is open: %s", window.windowTitle())

    def _panel(
        self,
        options: PhoneOptions,
        source: AudioSource,
        sinks: Sequence[AudioSink],
        is_pair: bool,
    ) -> PhonePanel:
        """A phone with its tones and its panel, not started yet. `sinks`: of its calls, and of its
        ring."""
        bridge = Bridge(self)
        loudspeaker, ringer = sinks
        bridge.received.connect(self._tone_player(ringer, loudspeaker).show_event)
        phone = Phone(
            options.account,
            options.proxy,
            options.listen,
            bridge.received.emit,
            (source, loudspeaker),
            session_expires=options.session_expires,
            direct=options.direct,
            keep_alive=options.keep_alive,
        )
        # the pair is a toy on one computer: its calls are not worth a file
        history = None if is_pair else self._history(options.account)
        name = options.account.display_name
        return PhonePanel(name, phone, bridge, target=options.target, history=history)

    def close(self) -> None:
        """End the program, and close a message box that is open."""
        self._next = None
        box = QApplication.activeModalWidget()
        if isinstance(box, QMessageBox):
            box.close()
        if self.window is not None:
            self.window.close()

    def stop(self) -> None:
        """No window is left: let the devices go."""
        self.devices.stop()

    # -- sound -------------------------------------------------------------------------------------

    def _source(self, options: PhoneOptions, number: int) -> AudioSource:
        if options.tone or not self.devices.has("microphone"):
            return ToneSource(LOWEST_TONE * 1.25**number)
        return self._microphone

    def _sinks(self, on: bool) -> list[SwitchedSink]:
        """The sinks of a phone: for its calls, and for its ring."""
        kinds = ("loudspeaker", "ringer")
        return [SwitchedSink(self.devices.loudspeaker(kind), on) for kind in kinds]

    def _tone_player(self, ringer: AudioSink, loudspeaker: AudioSink) -> CallTonePlayer:
        player = CallTonePlayer(ringer, loudspeaker)
        self.devices.adopt(player)
        return player

    def _show_remark(self, sentence: str) -> None:
        """Show a fault of sound devices or settings on the panel of one's own phone; "": no fault
        any more."""
        if self.window is not None and len(self.window.panels) == 1:
            self.window.panels[0].set_note(sentence or self._missing)

    def show_sound_settings(self) -> None:
        """Open the window in which devices are chosen."""
        dialog = SoundSettings(self.devices, self._microphone, self._test_tones, self.window)
        dialog.chosen.connect(lambda choice: self._save(replace(self._settings, devices=choice)))
        dialog.open()

    # -- account -----------------------------------------------------------------------------------

    def show_account(self) -> None:
        """Open the sheet in which one's own phone is set up."""
        dialog = AccountDialog(self._settings.account, self.window)
        dialog.saved.connect(self._set_account)
        dialog.open()

    def _set_account(self, account: SavedAccount | None) -> None:
        self._save(replace(self._settings, account=account))
        wanted = self.own_phone() or list(self._pair)
        if wanted:
            self._reopen(wanted)

    def _keep_password(self, password: str) -> None:
        """It was typed in the panel of one's own phone."""
        account = self._settings.account
        if account is not None:
            account = replace(account, password=password)
            self._save(replace(self._settings, account=account))

    def _reopen(self, wanted: list[PhoneOptions]) -> None:
        if self.window is not None:
            self.window.close()
            self._next = wanted

    def _on_gone(self) -> None:
        wanted = self._next
        if wanted is None:
            self._app.quit()
            return
        try:
            self.open(wanted)
        except OSError as fault:
            complain(texts.CANNOT_START.format(reason=fault.strerror or fault))
            if self._next is None:  # the program was ended meanwhile
                self._app.quit()
            else:
                self.open(list(self._pair))

    def _add_entries(self, panel: PhonePanel, wanted: Sequence[PhoneOptions]) -> None:
        add = panel.menu.add
        add("sound", texts.SOUND_ENTRY, self.show_sound_settings)
        add("account", texts.ACCOUNT_ENTRY, self.show_account, texts.ACCOUNT_TIP)
        if self._pair and len(wanted) == 1:
            add("pair", texts.PAIR_ENTRY, lambda: self._reopen(list(self._pair)), texts.PAIR_TIP)
        if list(wanted) == self.own_phone():
            panel.password_given.connect(self._keep_password)

    # -- files -------------------------------------------------------------------------------------

    @property
    def _file(self) -> Path:
        return self._folder / "softphone.json"

    def _load(self) -> tuple[Settings, str]:
        try:
            return settings_file.load(self._file), ""
        except ValueError as fault:
            return Settings(), str(fault)

    def _save(self, settings: Settings) -> None:
        self._settings = settings
        try:
            settings_file.save(self._file, settings)
        except OSError as fault:
            complain(texts.CANNOT_SAVE.format(reason=fault.strerror or fault))

    def _history(self, account: Account) -> CallHistory:
        name = f"{account.user}@{account.domain}".replace("/", "_").replace(":", "_")
        return CallHistory(self._folder / f"calls of {name}.jsonl")


def settings_folder() -> Path:
    """Where this system keeps the settings of programs."""
    kind = QStandardPaths.StandardLocation.GenericConfigLocation
    return Path(QStandardPaths.writableLocation(kind)) / "call-failover"


def run(wanted: Sequence[PhoneOptions], may_use_own: bool = False) -> int:
    """Show one window with these phones, or if `may_use_own` with the one that was set up; returns
    the exit status when it is closed or the program is interrupted."""
    app = application(["softphone"])
    app.setApplicationDisplayName(texts.SOFTPHONE)
    app.setQuitOnLastWindowClosed(False)  # the phones say goodbye after their window has gone
    pair = wanted if len(wanted) > 1 else []
    program = Softphone(app, settings_folder(), pair)
    interrupt = Interrupt(program.close)
    try:
        program.open((program.own_phone() if may_use_own else []) or wanted)
        return app.exec()
    except OSError as fault:
        return complain(texts.CANNOT_START.format(reason=fault.strerror or fault))
    finally:
        interrupt.close()
        program.stop()


def complain(sentence: str) -> int:
    """Say what cannot be done: to the terminal, and to a person who started the phone with a double
    click."""
    print(f"softphone: {sentence}", file=sys.stderr)
    started_by_click = sys.stderr is None or not sys.stderr.isatty()
    if started_by_click and QApplication.platformName() not in SCREENLESS:
        QMessageBox.critical(None, texts.SOFTPHONE, sentence)
    return 1
