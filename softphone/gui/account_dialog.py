"""The sheet in which one's own phone is set up, with a button that tries it at the server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import ClassVar

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QFormLayout,
    QHBoxLayout,
    QLineEdit,
    QVBoxLayout,
    QWidget,
)

from plumbing.address import format_address
from softphone import texts
from softphone.gui.event_bridge import Bridge
from softphone.gui.theme import GRID
from softphone.gui.widgets import StateMark, TextLabel
from softphone.options import FieldFault, PhoneOptions, account_options
from softphone.phone import Phone
from softphone.settings import SavedAccount
from softphone.ua.events import RegistrationChanged, RegistrationState

PATIENCE_MS = 4000  # how long the server may take until the test says that it does not answer
STOP_SECONDS = 0.5
STOPPED = object()  # what a test's bridge carries last


class RegistrationTest:
    """One try to register at the server, with a phone of its own. GUI thread.

    `told(sentence, field, works)` is called once: `field` is the one to look at. The object stays
    in `running` until its phone has stopped, whoever lets go of it before, for the bridge must
    outlive the phone, and end in the GUI thread.
    """

    running: ClassVar[set[RegistrationTest]] = set()

    def __init__(self, options: PhoneOptions, told: Callable[[str, str, bool], None]) -> None:
        self._told = told
        self._options = options
        self._bridge = Bridge()
        self._bridge.received.connect(self._on_event)
        emit = self._bridge.received.emit
        self._phone = Phone(options.account, options.proxy, options.listen, emit)
        self._over = False
        self._timer = QTimer(singleShot=True, interval=PATIENCE_MS)
        self._timer.timeout.connect(self._on_silence)
        self._timer.start()
        self.running.add(self)
        self._starting = threading.Thread(target=self._start, name="test-start", daemon=True)
        self._starting.start()

    def _start(self) -> None:
        try:
            self._phone.start()  # looks the server's name up, which may take seconds
        except (OSError, RuntimeError) as fault:
            self._bridge.received.emit(fault)

    def _on_event(self, event: object) -> None:
        if event is STOPPED:
            self.running.discard(self)
        elif isinstance(event, OSError):
            server = format_address(self._options.proxy)
            reason = event.strerror or str(event)
            self._end(texts.SERVER_UNKNOWN.format(server=server, reason=reason), "server")
        elif not isinstance(event, RegistrationChanged):
            return
        elif event.state is RegistrationState.REGISTERED:
            self._end(texts.TEST_WORKS, "", True)
        elif event.state is RegistrationState.REFUSED:
            self._end(event.sentence, "password" if event.wants_password else "user")

    def _on_silence(self) -> None:
        server = format_address(self._options.proxy)
        self._end(texts.NO_SERVER_ANSWERS.format(server=server), "server")

    def _end(self, sentence: str, field: str, works: bool = False) -> None:
        if not self._over:
            self.abandon()
            self._told(sentence, field, works)

    def abandon(self) -> None:
        """End the test without a result."""
        self._over = True
        self._timer.stop()
        threading.Thread(target=self._stop, name="test-stop").start()

    def _stop(self) -> None:
        try:
            self._phone.stop(STOP_SECONDS)
            self._starting.join(STOP_SECONDS)
        finally:
            self._bridge.received.emit(STOPPED)


class AccountDialog(QDialog):
    """`saved` is emitted with the SavedAccount on OK, with None if it is to be forgotten."""

    saved = Signal(object)

    def __init__(self, account: SavedAccount | None = None, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("account")
        self.setWindowTitle(texts.ACCOUNT)
        self._test: RegistrationTest | None = None
        form = QFormLayout()
        self.fields: dict[str, QLineEdit] = {}
        for name, (label, hint) in texts.ACCOUNT_FIELDS.items():
            text = getattr(account, name) if account else ""
            edit = self.fields[name] = QLineEdit(text, placeholderText=hint)
            edit.setObjectName(name)
            edit.setAccessibleName(label)
            edit.setMinimumWidth(38 * GRID)
            form.addRow(f"&{label}", edit)
        self.fields["password"].setEchoMode(QLineEdit.EchoMode.Password)
        self._mark = StateMark()
        self._mark.hide()
        self.result_label = TextLabel(lines=3)
        self.result_label.setObjectName("result")
        result = QHBoxLayout()
        result.addWidget(self._mark, 0, Qt.AlignmentFlag.AlignTop)
        result.addWidget(self.result_label, 1)
        buttons = QDialogButtonBox(
            QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel
        )
        self._ok = buttons.button(QDialogButtonBox.StandardButton.Ok)
        self.test_button = buttons.addButton(texts.TEST, QDialogButtonBox.ButtonRole.ActionRole)
        self.test_button.setObjectName("test")
        self.test_button.setAutoDefault(False)
        self.test_button.clicked.connect(self._run_test)
        if account is not None:
            forget = buttons.addButton(texts.REMOVE_ACCOUNT, QDialogButtonBox.ButtonRole.ResetRole)
            forget.setObjectName("forget")
            forget.setAutoDefault(False)
            forget.clicked.connect(self._forget)
        buttons.accepted.connect(self._save)
        buttons.rejected.connect(self.reject)
        column = QVBoxLayout(self)
        column.addLayout(form)
        column.addLayout(result)
        column.addWidget(buttons)

    def account(self) -> SavedAccount:
        """As it is written now."""
        text = {name: edit.text() for name, edit in self.fields.items()}
        password = text.pop("password")
        return SavedAccount(
            **{name: each.strip() for name, each in text.items()}, password=password
        )

    def _options(self) -> PhoneOptions | None:
        """The options of a phone with this account; None, with the fault shown at its field, if
        there is one."""
        try:
            return account_options(self.account())
        except FieldFault as fault:
            self._say(str(fault), "warning", "stop", fault.field)
            return None

    def _run_test(self) -> None:
        options = self._options()
        if options is not None:
            self._abandon()
            self.test_button.setEnabled(False)
            self._say(texts.TESTING, "ring", "hot")
            self._test = RegistrationTest(options, self._on_tested)

    def _on_tested(self, sentence: str, field: str, works: bool) -> None:
        self._test = None
        self.test_button.setEnabled(True)
        self._say(sentence, *(("check", "alive") if works else ("warning", "stop")), field)
        if works:
            self._ok.setFocus()

    def _say(self, sentence: str, shape: str, tone: str, field: str = "") -> None:
        self._mark.show_state(shape, tone)
        self._mark.show()
        self.result_label.set_text(sentence)
        if field:
            self.fields[field].setFocus()
            self.fields[field].selectAll()

    def _save(self) -> None:
        if self._options() is not None:
            self.saved.emit(self.account())
            self.accept()

    def _forget(self) -> None:
        self.saved.emit(None)
        self.accept()

    def _abandon(self) -> None:
        if self._test is not None:
            self._test.abandon()
            self._test = None

    def done(self, result: int) -> None:
        self._abandon()
        super().done(result)
