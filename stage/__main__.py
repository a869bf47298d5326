"""The demonstration on one computer: `python -m stage` for a person, `python -m stage play` plays
it by itself."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from plumbing import screen_check
from stage.options import parse


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 if the window was closed, or if every step was observed; 1 otherwise, 2 for an
    option that cannot be followed."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    if options.lan == "":
        from softphone.local_host import own_host

        options.lan = own_host("0.0.0.0", None)
        if options.lan is None:
            print("This computer is in no network: give --lan the address to listen on.")
            return 2
    if options.lan and options.scene:
        print("A scene is played without other telephones: --lan or --scene, please.")
        return 2
    if options.scenes or options.scene:
        from stage.scenes.catalogue import SCENES

        if options.scenes:
            print("\n".join(f"{name:<18}{scene.moral}" for name, scene in SCENES.items()))
            return 0
        if options.scene not in SCENES:
            print(f"There is no scene {options.scene!r}. There are: {', '.join(SCENES)}.")
            return 2
    for option, path in (("--report", options.report), ("--screenshots", options.screenshots)):
        if path is not None and (reason := unwritable(path, folder=option == "--screenshots")):
            print(f"{option} {path}: {reason}. Choose another place.", file=sys.stderr)
            return 2
    screenless = screen_check.why_none()
    if screenless:
        if not options.plays:
            print(f"{screenless} So the example plays by itself.", flush=True)
        if not screen_check.shows_nothing():
            os.environ["QT_QPA_PLATFORM"] = "offscreen"
    # after the platform is chosen: importing Qt's widgets needs nothing else from us
    from stage import app

    if screenless or options.plays:
        return app.play(options, linger=not screenless)
    return app.show(options)


def unwritable(path: Path, folder: bool) -> str:
    """Why nothing can be saved at `path`, a file or a folder to be made; "" if it can be. Asks the
    system by trying: that the folder is there does not say so."""
    try:
        if folder:
            path.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=path).close()
        else:
            new = not path.exists()
            path.open("ab").close()
            if new:
                path.unlink()
    except OSError as error:
        return error.strerror or str(error)
    return ""


if __name__ == "__main__":
    if hasattr(signal, "pthread_sigmask"):
        # Ctrl-C waits until app.py answers it: a KeyboardInterrupt within Qt's imports is lost, or
        # crashes them. The start-up blocks it, too, before it becomes this program.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    sys.exit(main())
