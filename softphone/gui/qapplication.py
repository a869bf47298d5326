"""The one QApplication of a program, made where there is none yet."""

from __future__ import annotations

import atexit
import sys
from collections.abc import Sequence

from PySide6.QtCore import QMessageLogContext, QtMsgType, qFormatLogMessage, qInstallMessageHandler
from PySide6.QtWidgets import QApplication

from plumbing.screen_check import SCREENLESS
from softphone.gui.theme import theme

# The warning that platforms without a screen give for every window that is shown.
EXPECTED = "This plugin does not support propagateSizeHints()"


def application(arguments: Sequence[str]) -> QApplication:
    """The application there is, or a new one with its look; `arguments`: Qt's, the program's name
    first."""
    app = QApplication.instance()
    if isinstance(app, QApplication):
        return app
    app = QApplication(list(arguments))
    theme()
    if app.platformName() in SCREENLESS:
        qInstallMessageHandler(_say_the_rest)
        # Qt outlives Python, and may still have something to say
        atexit.register(qInstallMessageHandler, None)
    return app


def _say_the_rest(kind: QtMsgType, context: QMessageLogContext, message: str) -> None:
    if message != EXPECTED and sys.stderr is not None:
        print(qFormatLogMessage(kind, context, message), file=sys.stderr, flush=True)
