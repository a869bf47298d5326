"""Runs the demo, `show` for a person or `play` by itself, and ends it with every program it
started.

Ctrl-C, SIGTERM and SIGHUP close the window like a person would.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QApplication

from softphone.gui import qapplication
from softphone.gui.unix_signals import Interrupt
from stage.controller import DemoController
from stage.options import Options
from stage.processes.cluster import Ports
from stage.scenes import nine_steps
from stage.scenes.catalogue import SCENES
from stage.scenes.director import STOPPED, Director, Scene
from stage.story import Story

# those that ask a program to end; Windows has no SIGHUP
SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
# s: painting may keep the phones' threads waiting that long, instead of Python's usual 5 ms
SWITCH = 0.001
LINGER_SECONDS = 3.0  # that the window of a finished play stays


def show(options: Options) -> int:
    """The window for a person; 1 if the programs could not be started, and the reason is then shown
    in it."""
    app = application()
    controller = _controller(options)
    window = controller.window
    trouble: list[str] = []

    def fail(sentence: str) -> None:
        trouble.append(sentence)
        print(sentence, file=sys.stderr, flush=True)
        window.show_trouble(sentence)

    controller.failed.connect(fail)
    window.closing.connect(app.quit)
    menu = SceneMenu(controller)
    with _shown(controller), contextlib.closing(menu):
        controller.start()
        app.exec()
    return 1 if trouble else 0


def play(options: Options, linger: bool) -> int:
    """The nine steps, or one scene, by itself; 0 only if everything was observed as expected.
    `linger`: keep the window for a while after that."""
    app = application()
    scene = SCENES.get(options.scene, nine_steps.NINE_STEPS)
    controller = _controller(options, scene)
    story = Story(controller)
    say = partial(print, flush=True)
    director = Director(controller, scene, say, options.screenshots, options.talk)
    outcome: list[str] = []

    def end(sentence: str) -> None:
        outcome.append(sentence)
        if director.figures:
            print(f"Measured: {', '.join(director.figures)}.", flush=True)
        seconds = LINGER_SECONDS if linger and not sentence else 0
        QTimer.singleShot(int(seconds * 1000), app.quit)

    director.finished.connect(end)
    controller.window.closing.connect(director.close)
    controller.window.closing.connect(app.quit)
    measured: dict[str, Any] = {}
    with _shown(controller):
        controller.start()
        director.start()
        app.exec()
        if options.json and scene is nine_steps.NINE_STEPS:
            measured = nine_steps.report(controller)
        unsaved = [director.save_pictures()]
        if options.report is not None:
            unsaved.append(story.save(options.report))
    trouble = outcome[0] if outcome else STOPPED
    for sentence in filter(None, (trouble, *unsaved)):
        print(sentence, file=sys.stderr, flush=True)
    if options.json:
        scenes = {"scene": scene.name, "passed": not trouble, **director.measured}
        print(json.dumps(measured or scenes), flush=True)
    return 1 if trouble or any(unsaved) else 0


def _controller(options: Options, scene: Scene | None = None) -> DemoController:
    return DemoController(
        Ports.free() if options.free_ports else None,
        more=options.server_arguments,
        pair=options.pair or bool(scene and scene.pair),
        servers=scene.servers if scene else 2,
        lan=options.lan or "",
    )


class SceneMenu:
    """The scenes in the window's menu, and saving the story."""

    def __init__(self, controller: DemoController) -> None:
        self._controller = controller
        self._director: Director | None = None
        story = Story(controller)
        menu = controller.window.menu
        menu.addAction("Save the story ...", story.ask_and_save)
        menu.addSeparator()
        pair = bool(controller.forwarders.pair)
        for scene in SCENES.values():
            action = menu.addAction(scene.title, partial(self._play, scene))
            fits = scene.servers == 2 and (pair or not scene.pair)
            # its callers have no password
            fits = fits and not (controller.guests and scene.name == "hundred-calls")
            action.setEnabled(fits)
            if not fits:
                action.setText(f"{scene.title}: python3 demo.py play --scene {scene.name}")

    def close(self) -> None:
        if self._director is not None:
            self._director.close()

    def _play(self, scene: Scene) -> None:
        self.close()
        self._director = Director(self._controller, scene)
        self._director.start()


def application() -> QApplication:
    app = qapplication.application(sys.argv[:1])
    sys.setswitchinterval(SWITCH)
    app.setOrganizationName("Call Failover")
    app.setApplicationName("Call Failover")
    app.setQuitOnLastWindowClosed(False)
    return app


@contextlib.contextmanager
def _shown(controller: DemoController) -> Iterator[None]:
    """Shows the window; at the end, or after a signal that asks the program to end, the programs
    are stopped."""
    interrupt = Interrupt(controller.window.close, signals=SIGNALS)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # __main__.py has blocked Ctrl-C
    try:
        controller.window.show()
        yield
    finally:
        controller.stop()
        interrupt.close()
