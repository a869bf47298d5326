"""Puts show, window and application together: the two ways to run the stage, and ending it in good
order.

Ctrl-C, SIGTERM and SIGHUP close the window like a person would. Python runs signal handlers only
between its own instructions, so a wake-up socket brings the GUI thread back from Qt for them,
instead of a timer that polls.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from PySide6.QtCore import QSocketNotifier, QTimer
from PySide6.QtWidgets import QApplication

from softphone.gui import qapplication
from softphone.gui.theme import install
from stage.controller import DemoController
from stage.processes.cluster import Ports
from stage.scenes import auto_player as player

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
# s: painting may keep the phones' threads waiting that long, instead of Python's usual 5 ms
SWITCH = 0.001


def show(free_ports: bool, more: Sequence[str], pair: bool) -> int:
    """The window for a person; 1 if the programs could not be started, and the reason is then shown
    in it."""
    app = application()
    stage = DemoController(Ports.free() if free_ports else None, more=more, pair=pair)
    trouble: list[str] = []

    def fail(sentence: str) -> None:
        trouble.append(sentence)
        print(sentence, file=sys.stderr, flush=True)
        stage.window.show_trouble(sentence)

    stage.failed.connect(fail)
    stage.window.closing.connect(app.quit)
    with ended_by_signals(stage.window.close):
        try:
            stage.window.show()
            stage.start()
            app.exec()
        finally:
            stage.stop()
    return 1 if trouble else 0


def play(
    free_ports: bool,
    more: Sequence[str],
    pair: bool,
    talk: float,
    as_json: bool,
    folder: Path | None,
    screenless: bool,
) -> int:
    """The example by itself; 0 only if every step was observed."""
    app = application()
    stage = DemoController(Ports.free() if free_ports else None, more=more, pair=pair)
    actor = player.AutoPlayer(stage, talk, folder, lambda line: print(line, flush=True))
    outcome: list[bool] = []

    def end(complete: bool) -> None:
        outcome.append(complete)
        QTimer.singleShot(0 if screenless or not complete else int(player.LINGER * 1000), app.quit)

    actor.finished.connect(end)
    stage.window.closing.connect(actor.close)
    stage.window.closing.connect(app.quit)
    with ended_by_signals(stage.window.close):
        try:
            stage.window.show()
            actor.start()
            app.exec()
            measured = player.report(stage) if as_json else None
        finally:
            stage.stop()
    if measured is not None:
        player.print_report(measured)
    return 0 if outcome and outcome[0] else 1


def application() -> QApplication:
    app = qapplication.application(sys.argv[:1])
    sys.setswitchinterval(SWITCH)
    app.setApplicationName("Call Failover")
    app.setQuitOnLastWindowClosed(False)
    install(app)
    return app


@contextlib.contextmanager
def ended_by_signals(close: Callable[[], object]) -> Iterator[None]:
    """While inside, the signals that ask a program to end call `close` in the GUI thread."""
    ours, wake = socket.socketpair()
    ours.setblocking(False)
    wake.setblocking(False)
    notifier = QSocketNotifier(ours.fileno(), QSocketNotifier.Type.Read)

    def woken() -> None:
        with contextlib.suppress(OSError):
            ours.recv(64)

    notifier.activated.connect(woken)
    before = {
        name: signal.signal(getattr(signal, name), lambda *_: close())
        for name in SIGNALS
        if hasattr(signal, name)
    }
    descriptor = signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(descriptor)
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
        notifier.setEnabled(False)
        ours.close()
        wake.close()
