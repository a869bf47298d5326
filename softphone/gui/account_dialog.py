"""The sheet in which one's own phone is set up, with a button that tries it at the server."""

from __future__ import annotations

import threading
import time
from queue import Empty, SimpleQueue
from typing import NamedTuple

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
from softphone.gui.theme import GRID
from softphone.gui.widgets import StateMark, TextLabel
from softphone.options import FieldFault, PhoneOptions, account_options
from softphone.phone import Phone
from softphone.settings import SavedAccount
from softphone.ua.events import RegistrationChanged, RegistrationState

# that a test may take, the look-up of the server's name included
PATIENCE_SECONDS = 4.0
STOP_SECONDS = 1.0
LOOK_MS = 50  # between two looks for the result of a test
ABANDONED = object()


class TestResult(NamedTuple):
    """`field`: the one to look at, "" for none; `works`: the server has registered the phone."""

    sentence: str
    field: str
    works: bool = False


class RegistrationTest:
    """One try to register at the server, with a phone and a thread of its own. No Qt object is
    known to the thread, so the dialog may go at any time."""

    def __init__(self, options: PhoneOptions) -> None:
        self._result: TestResult | None = None
        self._options = options
        self._server = format_address(options.proxy)
        self._deadline = time.monotonic() + PATIENCE_SECONDS
        self._events: SimpleQueue[object] = SimpleQueue()
        threading.Thread(target=self._run, name="account-test").start()

    @property
    def result(self) -> TestResult | None:
        """None until there is one. In time there is one although the thread still looks the
        server's name up."""
        if self._result is None and time.monotonic() >= self._deadline:
            return TestResult(texts.NO_SERVER_ANSWERS.format(server=self._server), "server")
        return self._result

    def abandon(self) -> None:
        """End the test without a result, if it goes on."""
        self._events.put(ABANDONED)

    def _run(self) -> None:
        options = self._options
        phone = Phone(options.account, options.proxy, options.listen, self._events.put)
        try:
            phone.start()  # looks the server's name up, which may take seconds
            self._result = self._wait()
        except Empty:
            pass  # `result` tells
        except OSError as fault:
            reason = fault.strerror or str(fault)
            sentence = texts.SERVER_UNKNOWN.format(server=self._server, reason=reason)
            self._result = TestResult(sentence, "server")
        finally:
            phone.stop(STOP_SECONDS)

    def _wait(self) -> TestResult | None:
        """Wait for the server's answer; Empty if there is none in time."""
        while True:
            event = self._events.get(timeout=max(0.0, self._deadline - time.monotonic()))
            if event is ABANDONED:
                return None
            if isinstance(event, RegistrationChanged):
                if event.state is RegistrationState.REGISTERED:
                    return TestResult(texts.TEST_WORKS, "", works=True)
                if event.state is RegistrationState.REFUSED:
                    field = "password" if event.wants_password else "user"
                    return TestResult(event.sentence, field)


class AccountDialog(QDialog):
    """`saved` is emitted with the SavedAccount on OK, with None if it is to be forgotten."""

    saved = Signal(object)

    def __init__(self, account: SavedAccount | None = None, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("account")
        self.setWindowTitle(texts.ACCOUNT)
        self._test: RegistrationTest | None = None
        self._looking = QTimer(self, interval=LOOK_MS)
        self._looking.timeout.connect(self._look)
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
            self._test = RegistrationTest(options)
            self._looking.start()

    def _look(self) -> None:
        result = self._test.result if self._test is not None else None
        if result is not None:
            self._abandon()
            self.test_button.setEnabled(True)
            shape, tone = ("check", "alive") if result.works else ("warning", "stop")
            self._say(result.sentence, shape, tone, result.field)
            if result.works:
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
        self._looking.stop()
        if self._test is not None:
            self._test.abandon()
            self._test = None

    def done(self, result: int) -> None:
        self._abandon()
        super().done(result)
