"""The button with which one listens to the phones of a window: off, one of them, or all."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtGui import QAction, QActionGroup
from PySide6.QtWidgets import QMenu

from softphone import texts
from softphone.gui.widgets import FlatButton
from softphone.media.audio_interfaces import SwitchedSink


class ListenInButton(FlatButton):
    """`sinks` are what the phones play to, each switched on here; off at first. Their names stand
    in `names`. `why_not`: a sentence if nothing can be heard on this computer."""

    def __init__(
        self, names: Sequence[str], sinks: Sequence[Sequence[SwitchedSink]], why_not: str = ""
    ) -> None:
        super().__init__(icon="listen", name="listen_in")
        self._sinks = sinks
        menu, group = QMenu(self), QActionGroup(self)
        everybody = texts.LISTEN_BOTH if len(names) == 2 else texts.LISTEN_ALL
        choices = [(texts.LISTEN_OFF, frozenset[int]())]
        choices += [(name, frozenset({number})) for number, name in enumerate(names)]
        choices += [(everybody, frozenset(range(len(names))))]
        for text, heard in choices:
            action = QAction(text, group, checkable=True)
            action.setData(heard)
            menu.addAction(action)
        group.triggered.connect(self._choose)
        group.actions()[0].trigger()
        self.setMenu(menu)
        self.set_allowed(not why_not, why_not or texts.LISTEN_TIP)

    def _choose(self, action: QAction) -> None:
        heard = action.data()
        for number, sinks in enumerate(self._sinks):
            for sink in sinks:
                sink.on = number in heard
        self.set_face(texts.LISTEN_IN.format(who=action.text()), "listen", "hot" if heard else "")
