"""The demonstration on one computer: `python -m stage` for a person, `python -m stage play` plays
it by itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from plumbing import screen_check
from stage.options import parse


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 if the window was closed, or if every step was observed; 1 otherwise."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    if options.lan == "":
        # not before: the start-up reads this module for its options alone
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
            print("\n".join(SCENES))
            return 0
        if options.scene not in SCENES:
            print(f"There is no scene {options.scene!r}. There are: {', '.join(SCENES)}.")
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


if __name__ == "__main__":
    sys.exit(main())
