"""The button with which one listens to the phones of a window: off, one of them, or all."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtGui import QAction, QActionGroup
from PySide6.QtWidgets import QMenu, QWidget

from softphone import texts
from softphone.gui.widgets import FlatButton
from softphone.media.audio_interfaces import SwitchedSink


class ListenInButton(FlatButton):
    """`sinks` are what the phones play to, each switched on here; off at first. Their names stand
    in `names`. `why_not`: a sentence if nothing can be heard on this computer."""

    def __init__(
        self,
        names: Sequence[str],
        sinks: Sequence[Sequence[SwitchedSink]],
        why_not: str = "",
        parent: QWidget | None = None,
    ) -> None:
        super().__init__("", "listen", parent=parent)
        self.setObjectName("listen_in")
        self._sinks = sinks
        self._menu = QMenu(self)
        self._group = QActionGroup(self)
        everybody = frozenset(range(len(names)))
        choices = [(texts.LISTEN_OFF, frozenset[int]())]
        choices += [(name, frozenset({number})) for number, name in enumerate(names)]
        choices += [(texts.LISTEN_BOTH if len(names) == 2 else texts.LISTEN_ALL, everybody)]
        for text, heard in choices:
            action = QAction(text, self._group, checkable=True)
            action.setData(heard)
            self._menu.addAction(action)
        self._group.triggered.connect(self._choose)
        self._group.actions()[0].setChecked(True)
        self._choose(self._group.actions()[0])
        self.allow(not why_not, why_not or texts.LISTEN_TIP)
        self.clicked.connect(self._open)

    def _open(self) -> None:
        self._menu.popup(self.mapToGlobal(self.rect().topLeft()))

    def _choose(self, action: QAction) -> None:
        heard = action.data()
        for number, sinks in enumerate(self._sinks):
            for sink in sinks:
                sink.on = number in heard
        self.dress(texts.LISTEN_IN.format(who=action.text()), "listen", "hot" if heard else "")
        self.setAccessibleName(self.text())
