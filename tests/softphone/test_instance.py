"""The application is made in one place, which takes one line of the screenless platform for
said."""

from __future__ import annotations

import os
import subprocess
import sys

from PySide6.QtWidgets import QApplication

from softphone.gui.qapplication import EXPECTED, application

PROGRAM = """
import sys
from PySide6.QtCore import qWarning
from PySide6.QtWidgets import QWidget
from softphone.gui.qapplication import application
app = application(["test"])
window = QWidget()
window.setMinimumSize(100, 100)
window.show()
app.processEvents()
qWarning(sys.argv[1])
qWarning("something else")
"""


def test_offscreen_nothing_is_printed_but_what_is_news():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, EXPECTED],
        env={**os.environ, "QT_QPA_PLATFORM": "offscreen"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr.splitlines()) == (0, ["something else"])


def test_there_is_only_one(qapp):
    assert application(["another"]) is qapp is QApplication.instance()
