"""The benchmarks' command lines, and the tables and JSON that they print."""

from __future__ import annotations

import argparse
import json
import platform
import socket
from collections.abc import Sequence
from typing import Any


class Parser(argparse.ArgumentParser):
    """Has `--port`, which is the first of those that are used, and `--json`."""

    def __init__(self, doc: str | None, port: int, ports: str) -> None:
        super().__init__(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
        self.add_argument("--port", type=int, default=port, help=f"this one and {ports} are used")
        self.add_argument(
            "--json", action="store_true", help="print everything measured as one JSON object"
        )

    def number(self, name: str, default: int, most: int, text: str, least: int = 1) -> None:
        """Add an option that takes a whole number."""

        def within(words: str) -> int:  # `choices` would list every number where one does not fit
            value = int(words)
            if not least <= value <= most:
                raise argparse.ArgumentTypeError(f"{value} is not between {least} and {most}")
            return value

        self.add_argument(
            name,
            type=within,
            metavar="N",
            default=default,
            help=f"{text}: {least} to {most} (default {default})",
        )

    def names(self, known: Sequence[str]) -> None:
        """Add `--only`, to choose among what is measured."""
        self.add_argument("--only", nargs="+", choices=known, metavar="NAME", help=", ".join(known))


def free(port: int, count: int) -> None:
    """Raise OSError where one of so many ports is taken."""
    for n in range(count):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            # what an earlier run had open is no hindrance
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            udp.bind(("127.0.0.1", port + n))
            tcp.bind(("127.0.0.1", port + n))


def print_json(options: argparse.Namespace, **told: Any) -> None:
    """Print the options, the version of Python, and what was measured."""
    print(json.dumps({**vars(options), "python": platform.python_version(), **told}))


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """The first column to the left, the others to the right."""
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    form = "  ".join(f"{{:{'>' if n else '<'}{width}}}" for n, width in enumerate(widths))
    return "\n".join(form.format(*row).rstrip() for row in rows)
