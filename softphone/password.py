"""Where the account's password comes from. A command line can be read by everybody on the
computer (`ps`), so there is a file, a question or the environment; --password stays, with a
warning."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Callable, MutableMapping
from pathlib import Path

from plumbing.file_permissions import exposed

VARIABLE = "SOFTPHONE_PASSWORD"
WARNING = (
    "--password can be read by everybody on this computer (ps); "
    f"better: --password-file FILE, --ask-password or the environment variable {VARIABLE}"
)
LONGEST_FILE = 4096  # octets; more is no file of a password


def add_options(options: argparse.ArgumentParser) -> None:
    """The ways to give the password, of which one may be used."""
    ways = options.add_mutually_exclusive_group()
    ways.add_argument(
        "--password-file",
        metavar="FILE",
        help="the password is the first line of this file (-: of standard input); "
        f"else of {VARIABLE}",
    )
    ways.add_argument(
        "--ask-password", action="store_true", help="ask for the password in the terminal"
    )
    ways.add_argument(
        "--password", metavar="P", default="", help="the password, for everybody to see (ps): avoid"
    )


def password_of(
    arguments: argparse.Namespace,
    environment: MutableMapping[str, str] = os.environ,
    ask: Callable[[str], str] = getpass.getpass,
) -> str:
    """The password; "" if there is none. ValueError with a sentence if it was promised and
    cannot be had."""
    from_environment = environment.pop(VARIABLE, "")  # whatever we start has no business with it
    if arguments.password_file:
        return _first_line(arguments.password_file)
    if arguments.ask_password:
        try:
            return ask(f"Password of {arguments.user}: ")
        except (EOFError, OSError):
            raise ValueError(
                "--ask-password: there is no terminal to ask in; use --password-file"
            ) from None
    return arguments.password or from_environment


def _first_line(name: str) -> str:
    try:
        if name == "-":
            text = sys.stdin.readline(LONGEST_FILE)
        else:
            with Path(name).open(encoding="utf-8") as file:
                text = file.readline(LONGEST_FILE)
    except UnicodeDecodeError:
        raise ValueError(f"--password-file: {name} is not a text in UTF-8") from None
    except OSError as fault:
        raise ValueError(f"--password-file: {name} cannot be read ({fault.strerror})") from None
    password = text.removeprefix("\ufeff").rstrip("\r\n")
    if not password:
        raise ValueError(
            f"--password-file: the first line of {name} is empty; the password belongs there"
        )
    return password


def warning(arguments: argparse.Namespace) -> str:
    """How the password could be kept better; "" if it is kept well."""
    if arguments.password:
        return WARNING
    if arguments.password_file in (None, "-"):
        return ""
    path = Path(arguments.password_file)
    return exposed(path, path.stat()) if path.exists() else ""
