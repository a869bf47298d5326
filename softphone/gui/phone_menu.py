"""The menu of one phone, and the windows that it opens."""

from __future__ import annotations

import time
from collections.abc import Callable

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QAction, QKeySequence
from PySide6.QtWidgets import QMenu, QWidget

from softphone import texts
from softphone.call_history import CallHistory, Outcome, past_call
from softphone.gui import formatting
from softphone.gui.call_list import CallList, name_of
from softphone.gui.trace_window import TraceWindow
from softphone.sip_trace import SipTrace
from softphone.ua.events import CallView, MessagePassed, RegistrationState


class PhoneMenu(QMenu):
    """`call` is emitted with an address that the person chose to call. `missed_changed`: how many
    calls were missed since the list of calls was looked at."""

    call = Signal(str)
    missed_changed = Signal(int)

    def __init__(self, label: str, history: CallHistory, panel: QWidget) -> None:
        super().__init__(panel)
        self.setToolTipsVisible(True)
        self._panel, self._history = panel, history
        self.missed = 0
        self._call_list = CallList(label, history, panel)
        self._call_list.call_back.connect(self.call)
        self.trace = SipTrace()
        self._trace_window = TraceWindow(label, self.trace, panel)
        self.redial = self._add("redial", texts.REDIAL, "", self._redial, "Ctrl+R")
        self._add("calls", texts.CALLS, texts.CALLS_TIP, self.show_calls, "Ctrl+H")
        self.addSeparator()
        self.register_again = self._add("register", texts.REGISTER_AGAIN, texts.REGISTER_TIP)
        self.log_off = self._add("log_off", texts.LOG_OFF, texts.LOG_OFF_TIP)
        self.addSeparator()
        self._add("messages", texts.TRACE_ENTRY, "", self.show_trace, "Ctrl+M")
        self.aboutToShow.connect(self._update)
        self._update()

    def add_entry(self, name: str, text: str, slot: Callable[[], object], tip: str = "") -> QAction:
        """Add an entry of the program that shows this phone."""
        return self._add(name, text, tip, slot)

    def show_registration(self, state: RegistrationState) -> None:
        """Offer what makes sense in this state."""
        self.log_off.setEnabled(state is not RegistrationState.UNREGISTERED)

    def _add(
        self,
        name: str,
        text: str,
        tip: str,
        slot: Callable[[], object] = lambda: None,
        keys: str = "",
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
        uri = self._last_called()[0]
        if uri:
            self.call.emit(uri)

    def _last_called(self) -> tuple[str, str]:
        placed = (Outcome.PLACED, Outcome.UNANSWERED)
        return next(((c.uri, name_of(c)) for c in self._history if c.outcome in placed), ("", ""))

    def _update(self) -> None:
        uri, name = self._last_called()
        self.redial.setEnabled(bool(uri))
        self.redial.setText(texts.REDIAL_NAME.format(name=name) if uri else texts.REDIAL)
        self.redial.setToolTip(formatting.one_line(uri) or texts.NOBODY_TO_REDIAL)
