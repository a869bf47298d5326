"""The demonstration on one computer: `python -m stage` for a person, `python -m stage play` plays
it by itself."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from plumbing import screen_check


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="demo.py",
        description="Two phones, a forwarder and two servers: place a call, crash server1, "
        "read the bill.",
    )
    parser.add_argument(
        "what",
        nargs="?",
        choices=("show", "play"),
        default="show",
        help="play: go through the nine steps by itself (default: a window for you)",
    )
    parser.add_argument(
        "--json", action="store_true", help="play, and print what was measured as the last line"
    )
    parser.add_argument(
        "--screenshots",
        metavar="DIR",
        type=Path,
        help="play, and save a picture of every step there, with --scene of every line",
    )
    parser.add_argument(
        "--talk",
        metavar="SECONDS",
        type=seconds,
        default=12.0,
        help="how long Alice and Bob talk when it plays by itself (default: 12)",
    )
    parser.add_argument(
        "--deploy",
        metavar="NAME:FILE",
        action="append",
        default=[],
        help="a further service on both servers, as in prepaid:balances.txt",
    )
    parser.add_argument(
        "--store",
        metavar="URL",
        help="where the servers keep their calls, as redis://127.0.0.1:6379/0",
    )
    parser.add_argument(
        "--pair",
        action="store_true",
        help="an active and a standby forwarder on one address; the active one crashes too",
    )
    parser.add_argument(
        "--free-ports",
        action="store_true",
        help="any free ports instead of 5060 (forwarder), 5070 and 5080 (servers), 8060 to 8072",
    )
    parser.add_argument(
        "--lan",
        metavar="ADDRESS",
        nargs="?",
        const="",
        help="listen on that address (default: the one towards the network), for other telephones",
    )
    parser.add_argument(
        "--scene", metavar="NAME", default="", help="play that scene instead of the nine steps"
    )
    parser.add_argument("--scenes", action="store_true", help="list the scenes, one name a line")
    parser.add_argument(
        "--report", metavar="FILE", type=Path, help="play, and save the story as one HTML file"
    )
    return parser.parse_args(arguments)


def seconds(text: str) -> float:
    value = float(text)
    if not 3 <= value <= 3600:
        raise argparse.ArgumentTypeError("between 3 and 3600 seconds, please")
    return value


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
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    playing = bool(
        options.what == "play"
        or options.json
        or options.screenshots
        or options.scene
        or options.report
    )
    screenless = screen_check.why_none()
    if screenless:
        if not playing:
            print(f"{screenless} So the example plays by itself.", flush=True)
        playing = True
        if not screen_check.shows_nothing():
            os.environ["QT_QPA_PLATFORM"] = "offscreen"
    # after the platform is chosen: importing Qt's widgets needs nothing else from us
    from stage import app

    more = [argument for wish in options.deploy for argument in ("--deploy", wish)]
    more += ["--store", options.store] if options.store else []
    wished = app.Options(
        options.free_ports,
        tuple(more),
        options.pair,
        options.talk,
        options.json,
        options.screenshots,
        options.report,
        bool(screenless),
        options.scene,
        options.lan or "",
    )
    return app.play(wished) if playing else app.show(wished)


if __name__ == "__main__":
    sys.exit(main())
