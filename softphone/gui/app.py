"""The program: makes the phones, their sound and their window, and runs until the window is
closed."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
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
from softphone.media.audio_devices import AudioDevices, DeviceChoice, Microphone
from softphone.media.audio_interfaces import AudioSink, AudioSource, SwitchedSink
from softphone.media.call_tone_player import CallTonePlayer
from softphone.media.tone_generator import ToneSource
from softphone.options import PhoneOptions, account_options
from softphone.phone import Account, Phone
from softphone.settings import SavedAccount, Settings

LOG = logging.getLogger("qt")
# Hz; the next phone speaks a third higher, so that one hears and sees who is sending
LOWEST_TONE = 440.0


def phone_of(options: PhoneOptions, bridge: Bridge, sound: tuple[AudioSource, AudioSink]) -> Phone:
    """The phone that is asked for; what happens to it goes over the bridge."""
    return Phone(
        options.account,
        options.proxy,
        options.listen,
        bridge.received.emit,
        sound,
        session_expires=options.session_expires,
        direct=options.direct,
        keep_alive=options.keep_alive,
    )


class Softphone(QObject):
    """The windows of the program, one after the other: closing one ends the program, unless another
    was asked for. `folder` holds the settings and the lists of calls."""

    def __init__(self, app: QApplication, folder: Path, pair: Sequence[PhoneOptions]) -> None:
        super().__init__(app)
        self._app, self._folder, self._pair = app, folder, pair
        self._settings, self._fault = self._load()
        chosen = asdict(self._settings)
        del chosen["account"]
        self.devices = AudioDevices(DeviceChoice(**chosen), self)
        self._next: list[PhoneOptions] | None = None
        self.window: PhonesWindow | None = None
        self._players: list[CallTonePlayer] = []
        self._microphone: Microphone | None = None

    def own_phone(self) -> list[PhoneOptions]:
        """The phone that was set up; none if there is none, or it makes no sense any more."""
        try:
            return [account_options(self._settings.account)] if self._settings.account else []
        except ValueError as fault:
            self._fault = str(fault)
            return []

    def open(self, wanted: Sequence[PhoneOptions]) -> None:
        """Show a window with these phones; OSError if one cannot have its address."""
        self._players = []
        is_pair = len(wanted) > 1
        sinks = [self._sinks(is_pair) for _ in wanted]
        panels = [
            self._panel(
                one, self._source(one, number, is_pair), sink, self._history(one.account, is_pair)
            )
            for number, (one, sink) in enumerate(zip(wanted, sinks, strict=True))
        ]
        window = PhonesWindow(panels)
        if is_pair:
            switched = [[each for each in pair if isinstance(each, SwitchedSink)] for pair in sinks]
            why_not = "" if self.devices.has("loudspeaker") else texts.NOTHING_TO_LISTEN_WITH
            names = [one.account.display_name for one in wanted]
            window.add_below(ListenInButton(names, switched, why_not))
        else:
            self._show_remarks(panels[0], wanted[0])
        for panel in panels:
            self._add_entries(panel, wanted)
        try:
            for panel in panels:
                panel.phone.start()
        except OSError:
            for panel in panels:
                panel.phone.stop(0.0)
            raise
        self.window, self._next = window, None
        window.gone.connect(self._on_gone)
        window.show()
        LOG.info("the window is open: %s", window.windowTitle())

    def _panel(
        self,
        options: PhoneOptions,
        source: AudioSource,
        sinks: tuple[AudioSink, AudioSink],
        history: CallHistory | None,
    ) -> PhonePanel:
        """A phone with its tones and its panel, not started yet."""
        bridge = Bridge(self)
        loudspeaker, ringer = sinks
        player = CallTonePlayer(ringer, loudspeaker)
        self.devices.adopt(player)
        bridge.received.connect(player.show_event)
        self._players.append(player)
        return PhonePanel(
            options.account.display_name,
            phone_of(options, bridge, (source, loudspeaker)),
            bridge,
            target=options.target,
            history=history,
        )

    def close(self) -> None:
        """End the program."""
        self._next = None
        if self.window is not None:
            self.window.close()

    def stop(self) -> None:
        """No window is left: let the devices go."""
        self.devices.stop()

    # -- sound -------------------------------------------------------------------------------------

    def _source(self, options: PhoneOptions, number: int, is_pair: bool) -> AudioSource:
        if is_pair or options.tone or not self.devices.has("microphone"):
            return ToneSource(LOWEST_TONE * 1.25**number)
        self._microphone = self._microphone or self.devices.microphone()
        return self._microphone

    def _sinks(self, is_pair: bool) -> tuple[AudioSink, AudioSink]:
        """The sinks of a phone: for its calls, and for its ring. In the pair both are off at
        first."""
        loudspeaker, ringer = self.devices.loudspeaker(), self.devices.loudspeaker("ringer")
        if is_pair:
            return SwitchedSink(loudspeaker), SwitchedSink(ringer)
        return loudspeaker, ringer

    def _show_remarks(self, panel: PhonePanel, options: PhoneOptions) -> None:
        """Show the faults of sound devices and settings on the panel."""
        missing = "" if options.tone else self.devices.why_no_sound()
        panel.set_note(self._fault or missing)
        self.devices.said.connect(lambda said: panel.set_note(said or missing))

    def show_sound_settings(self) -> None:
        """Open the window in which devices are chosen."""
        self._microphone = self._microphone or self.devices.microphone()
        dialog = SoundSettings(self.devices, self._microphone, self._players[0], self.window)
        dialog.chosen.connect(lambda choice: self._save(replace(self._settings, **asdict(choice))))
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
            self.open(list(self._pair))

    def _add_entries(self, panel: PhonePanel, wanted: Sequence[PhoneOptions]) -> None:
        add = panel.menu.add_entry
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

    def _history(self, account: Account, is_pair: bool) -> CallHistory | None:
        """The pair is a toy on one computer: its calls are not worth a file."""
        if is_pair:
            return None
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
    except OSError as fault:
        interrupt.close()
        program.stop()
        return complain(texts.CANNOT_START.format(reason=fault.strerror or fault))
    try:
        return app.exec()
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
