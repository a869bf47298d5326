"""The options of `python -m stage`. Imports nothing of Qt: the start-up reads them before it is
there.

Paths are meant from the folder in which they are parsed, and are absolute afterwards.
"""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Options:
    """How the demo is run. `talk`: seconds that Alice and Bob talk; `screenshots`: a folder for a
    picture of each step; `report`: a file for the story; `lan`: the address at which other
    telephones are let in, too, "" for this computer's own."""

    what: str = "show"
    json: bool = False
    screenshots: Path | None = None
    talk: float = 12.0
    deploy: list[str] = field(default_factory=list)
    store: str | None = None
    pair: bool = False
    free_ports: bool = False
    lan: str | None = None
    scene: str = ""
    scenes: bool = False
    report: Path | None = None

    @property
    def arguments(self) -> list[str]:
        """The command line that asks for these options."""
        words, usual = [self.what], Options()
        for name, value in vars(self).items():
            if name == "what" or value == getattr(usual, name):
                continue
            for each in value if isinstance(value, list) else [value]:
                # a flag, or --lan alone
                words.append(f"--{name.replace('_', '-')}")
                words += [] if each is True or each == "" else [str(each)]
        return words

    @property
    def plays(self) -> bool:
        """By itself, without a person."""
        others = self.json or self.screenshots or self.scene or self.report
        return self.what == "play" or bool(others)

    @property
    def server_arguments(self) -> list[str]:
        services = [argument for each in self.deploy for argument in ("--deploy", each)]
        return services + (["--store", self.store] if self.store else [])


def parse(arguments: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(
        prog="demo.py",
        description="Two phones, a forwarder and two servers: place a call, crash server1, "
        "read the bill.",
    )
    parser.add_argument(
        "what",
        nargs="?",
        type=command,
        metavar="show|play",
        default=Options.what,
        help="play: go through the nine steps by itself (default: a window for you)",
    )
    parser.add_argument(
        "--json", action="store_true", help="play, and print what was measured as the last line"
    )
    parser.add_argument(
        "--screenshots",
        metavar="DIR",
        type=absolute,
        help="play, and save a picture of every step there, with --scene of every line",
    )
    parser.add_argument(
        "--talk",
        metavar="SECONDS",
        type=seconds,
        help="how long Alice and Bob talk when it plays by itself (default: 12)",
    )
    parser.add_argument(
        "--deploy",
        metavar="NAME:ARGUMENT",
        type=service,
        action="append",
        help="a further service on both servers, as in prepaid:balances.txt",
    )
    parser.add_argument(
        "--store",
        metavar="URL",
        type=store,
        help="where the servers keep their calls: a file, or as redis://127.0.0.1:6379/0",
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
        type=own_address,
        help="listen on that address (default: the one towards the network), for other telephones",
    )
    parser.add_argument("--scene", metavar="NAME", help="play that scene instead of the nine steps")
    parser.add_argument("--scenes", action="store_true", help="list the scenes, one a line")
    parser.add_argument(
        "--report", metavar="FILE", type=absolute, help="play, and save the story as one HTML file"
    )
    return parser.parse_args(arguments, Options())


def command(text: str) -> str:
    if text not in ("show", "play"):
        raise argparse.ArgumentTypeError(
            f"{text!r} is unknown: show or play; or begin with test, softphone or pack"
        )
    return text


def absolute(text: str) -> Path:
    return Path(os.path.abspath(text))


def service(text: str) -> str:
    """NAME:ARGUMENT; where ARGUMENT is a file, its absolute path."""
    name, _, argument = text.partition(":")
    return f"{name}:{absolute(argument)}" if argument and os.path.exists(argument) else text


def store(text: str) -> str:
    return text if "://" in text else str(absolute(text))


def own_address(text: str) -> str:
    """An IP address of this computer; "", of --lan alone, stays for the one it uses."""
    if not text:
        return text
    try:
        family = socket.AF_INET6 if ":" in text else socket.AF_INET
        socket.inet_pton(family, text)
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((text, 0))
    except OSError:
        wrong = f"{text!r} is no IP address of this computer; without one it takes the usual one"
        raise argparse.ArgumentTypeError(wrong) from None
    return text


def seconds(text: str) -> float:
    value = float(text)
    if not 3 <= value <= 3600:
        raise argparse.ArgumentTypeError("between 3 and 3600 seconds, please")
    return value
