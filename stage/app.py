"""Runs the demo in one of three ways, `show` for a person, `play` and `play_scene` by itself, and
ends it with every program it started.

Ctrl-C, SIGTERM and SIGHUP close the window like a person would.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PySide6.QtCore import QTimer
from PySide6.QtGui import QImage
from PySide6.QtWidgets import QApplication

from softphone.gui import qapplication
from softphone.gui.theme import install
from softphone.gui.unix_signals import Interrupt
from stage.controller import DemoController
from stage.processes.cluster import Ports
from stage.scenes import auto_player
from stage.scenes.catalogue import SCENES, Scene
from stage.scenes.director import Director
from stage.story import Story

# those that ask a program to end; Windows has no SIGHUP
SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
# s: painting may keep the phones' threads waiting that long, instead of Python's usual 5 ms
SWITCH = 0.001


@dataclass(frozen=True)
class Options:
    """How the demo is run. `more`: further arguments of the servers; `talk`: seconds that Alice and
    Bob talk; `pictures`: a folder for a picture of each step; `report`: a file for the story;
    `lan`: the address at which other telephones are let in, too."""

    free_ports: bool = False
    more: tuple[str, ...] = ()
    pair: bool = False
    talk: float = 12.0
    as_json: bool = False
    pictures: Path | None = None
    report: Path | None = None
    screenless: bool = False
    scene: str = ""
    lan: str = ""


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


def play(options: Options) -> int:
    """The example by itself; 0 only if every step was observed."""
    app = application()
    controller = _controller(options)
    story = Story(controller)
    actor = auto_player.AutoPlayer(controller, options.talk, options.pictures, _say)
    outcome: list[bool] = []

    def end(complete: bool) -> None:
        outcome.append(complete)
        _quit(app, linger=complete and not options.screenless)

    actor.finished.connect(end)
    controller.window.closing.connect(actor.close)
    controller.window.closing.connect(app.quit)
    with _shown(controller):
        actor.start()
        app.exec()
        measured = auto_player.report(controller) if options.as_json else None
        if options.report is not None:
            story.save(options.report)
    if measured is not None:
        auto_player.print_report(measured)
    return 0 if outcome and outcome[0] else 1


def play_scene(options: Options) -> int:
    """One scene by itself; 0 only if everything was as the scene expects it."""
    app = application()
    scene = SCENES[options.scene]
    controller = _controller(options, scene)
    story = Story(controller)
    pictures: list[QImage] = []

    def take_picture() -> None:
        if options.pictures:
            pictures.append(controller.window.grab().toImage())

    def say(line: str) -> None:
        take_picture()  # of what the line before has led to
        _say(line)
        _announce(controller, scene, line)

    director = Director(controller, scene.play, say)
    outcome: list[str] = []

    def end(sentence: str) -> None:
        outcome.append(sentence)
        take_picture()
        _quit(app, linger=not sentence and not options.screenless)

    director.finished.connect(end)
    director.finished.connect(partial(_ended, controller, scene))
    controller.window.closing.connect(director.close)
    controller.window.closing.connect(app.quit)
    with _shown(controller):
        controller.start()
        director.start()
        app.exec()
        if options.pictures:
            _save_pictures(options.pictures, scene.name, pictures)
        if options.report is not None:
            story.save(options.report)
    passed = outcome == [""]
    print("As expected." if passed else (outcome or ["It was ended."])[0], flush=True)
    if options.as_json:
        result = {"scene": scene.name, "passed": passed, **director.measured}
        auto_player.print_report(result)
    return 0 if passed else 1


def _controller(options: Options, scene: Scene | None = None) -> DemoController:
    return DemoController(
        Ports.free() if options.free_ports else None,
        more=options.more,
        pair=options.pair or bool(scene and scene.pair),
        servers=scene.servers if scene else 2,
        lan=options.lan,
    )


def _announce(controller: DemoController, scene: Scene, line: str) -> None:
    controller.window.setWindowTitle(f"Call Failover - {scene.title}: {line}")
    controller.announce(scene.title, line)


def _ended(controller: DemoController, scene: Scene, trouble: str) -> None:
    words = trouble or "everything was as expected."
    controller.window.setWindowTitle(f"Call Failover - {scene.title}: {words}")
    controller.announce(scene.title, "" if not trouble else words)


def _save_pictures(folder: Path, name: str, pictures: Sequence[QImage]) -> None:
    """One PNG for each line that the scene has said."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures, 1):
        path = folder / f"{name}-{number}.png"
        if not picture.save(str(path)):
            print(f"The picture {path} could not be written.", file=sys.stderr)


def _quit(app: QApplication, linger: bool) -> None:
    """Ends the event loop, at once or after somebody had the time to look at the end."""
    QTimer.singleShot(int(auto_player.LINGER * 1000) if linger else 0, app.quit)


def _say(line: str) -> None:
    print(line, flush=True)


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
        self._director = Director(
            self._controller, scene.play, partial(_announce, self._controller, scene)
        )
        self._director.finished.connect(partial(_ended, self._controller, scene))
        self._director.start()


def application() -> QApplication:
    app = qapplication.application(sys.argv[:1])
    sys.setswitchinterval(SWITCH)
    app.setOrganizationName("Call Failover")
    app.setApplicationName("Call Failover")
    app.setQuitOnLastWindowClosed(False)
    install(app)
    return app


@contextlib.contextmanager
def _shown(controller: DemoController) -> Iterator[None]:
    """Shows the window; at the end, or after a signal that asks the program to end, the programs
    are stopped."""
    interrupt = Interrupt(controller.window.close, signals=SIGNALS)
    try:
        controller.window.show()
        yield
    finally:
        controller.stop()
        interrupt.close()
