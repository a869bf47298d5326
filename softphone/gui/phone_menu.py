"""The menu of one phone, and the windows that it opens."""

from __future__ import annotations

import time
from collections.abc import Callable

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QAction, QKeySequence
from PySide6.QtWidgets import QMenu, QWidget

from softphone import texts
from softphone.call_history import CallHistory, Outcome, PastCall, past_call
from softphone.gui import formatting
from softphone.gui.call_list import CallList
from softphone.gui.trace_window import TraceWindow
from softphone.phone import Phone
from softphone.sip_trace import SipTrace
from softphone.ua.events import CallView, MessagePassed, RegistrationState


class PhoneMenu(QMenu):
    """`call` is emitted with an address that the person chose to call. `missed_changed`: how many
    calls were missed since the list of calls was looked at."""

    call = Signal(str)
    missed_changed = Signal(int)

    def __init__(self, label: str, history: CallHistory, phone: Phone, panel: QWidget) -> None:
        super().__init__(panel)
        self.setToolTipsVisible(True)
        self._panel, self._history = panel, history
        self.missed = 0
        self._call_list = CallList(label, history, panel)
        self._call_list.call_back.connect(self.call)
        self.trace = SipTrace()
        self._trace_window = TraceWindow(label, self.trace, panel)
        self.redial = self.add("redial", texts.REDIAL, self._redial, keys="Ctrl+R")
        self.add("calls", texts.CALLS, self.show_calls, texts.CALLS_TIP, "Ctrl+H")
        self.addSeparator()
        self.add("register", texts.REGISTER_AGAIN, phone.register, texts.REGISTER_TIP)
        self.log_off = self.add("log_off", texts.LOG_OFF, phone.unregister, texts.LOG_OFF_TIP)
        self.addSeparator()
        self.add("messages", texts.TRACE_ENTRY, self.show_trace, keys="Ctrl+M")
        self.aboutToShow.connect(self._update)
        self._update()

    def add(
        self, name: str, text: str, slot: Callable[[], object], tip: str = "", keys: str = ""
    ) -> QAction:
        """Add an entry that is also a shortcut of the whole panel."""
        action = self.addAction(text)
        action.setObjectName(name)
        action.setToolTip(tip)
        action.setShortcut(QKeySequence(keys))
        action.setShortcutContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        action.triggered.connect(lambda: slot())
        self._panel.addAction(action)
        return action

    def show_registration(self, state: RegistrationState) -> None:
        """Offer what makes sense in this state."""
        self.log_off.setEnabled(state is not RegistrationState.UNREGISTERED)

    def _open(self, window: CallList | TraceWindow) -> None:
        window.refresh()
        window.show()
        window.raise_()
        window.activateWindow()

    # -- SIP trace ---------------------------------------------------------------------------------

    def keep_message(self, message: MessagePassed) -> None:
        """A SIP message has passed."""
        self.trace.add(message)
        if self._trace_window.isVisible():
            self._trace_window.refresh()

    def show_trace(self) -> None:
        """Open the window with the SIP messages."""
        self._open(self._trace_window)

    # -- calls -------------------------------------------------------------------------------------

    def remember(self, call: CallView, now: float) -> None:
        """A call has ended, or somebody was turned away; `now`: monotonic seconds. What was no
        address is not listed."""
        past = past_call(call, now, time.time())
        is_listed = self._call_list.isVisible()
        if not past.uri:
            return
        self._history.add(past)
        if past.outcome is Outcome.MISSED and not (is_listed and self._call_list.isActiveWindow()):
            self._set_missed(self.missed + 1)
        if is_listed:
            self._call_list.refresh()
        self._update()

    def show_calls(self) -> None:
        """Open the list of calls."""
        self._open(self._call_list)
        self._call_list.table.setFocus()
        self._set_missed(0)

    def _set_missed(self, number: int) -> None:
        if number != self.missed:
            self.missed = number
            self.missed_changed.emit(number)

    def _redial(self) -> None:
        last = self._last_placed()
        if last is not None:
            self.call.emit(last.uri)

    def _last_placed(self) -> PastCall | None:
        placed = (Outcome.PLACED, Outcome.UNANSWERED)
        return next((call for call in self._history if call.outcome in placed), None)

    def _update(self) -> None:
        last = self._last_placed()
        self.redial.setEnabled(last is not None)
        if last is not None:
            name = formatting.party(last.name, last.uri)
            self.redial.setText(texts.REDIAL_NAME.format(name=name))
            self.redial.setToolTip(formatting.one_line(last.uri))
        else:
            self.redial.setText(texts.REDIAL)
            self.redial.setToolTip(texts.NOBODY_TO_REDIAL)
