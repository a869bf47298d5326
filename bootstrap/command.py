"""The command line of demo.py: prepare the computer, then start the right program with the right
interpreter."""

import argparse
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from bootstrap import desktop, environment, libraries
from bootstrap.fault import SetupFault, say
from bootstrap.pack import FILE, pack

ROOT = Path(__file__).resolve().parent.parent

HELP = """\
usage: python3 demo.py [--pair] [--deploy NAME:FILE] [--store URL] [--free-ports]
       python3 demo.py play [--scene NAME] [--report FILE] [--json] [--screenshots DIR]
                            [--talk SECONDS] [and the above]
       python3 demo.py --scenes
       python3 demo.py test [pytest's arguments]
       python3 demo.py softphone [the phone's arguments]
       python3 demo.py pack [FILE]

Call Failover: two SIP servers, a forwarder before them, two phones; a server dies in mid-call,
the call goes on.
Whatever is needed is set up first, in .venv beside this file.

  (nothing)            the example in a window, for you to play
  play                 the example plays by itself and says each step; unseen without a display
    --scene NAME       another crash: while ringing, at the BYE, frozen, a hundred calls ...
    --report FILE      save the story as one HTML file, to take away
    --json             its last line is one JSON object with everything that was measured
    --screenshots DIR  save a picture of each step
    --talk SECONDS     how long the two talk, 3 to 3600 seconds (12 if you do not say)
  --scenes             list the scenes, one name a line
  --pair               two forwarders, one on standby for the other's address, which crashes too
  --deploy NAME:FILE   a further service on both servers, as in prepaid:balances.txt (docs/slee.txt)
  --store URL          the servers keep their calls in a Redis: redis://HOST:6379/0 (docs/store.txt)
  --free-ports         any free ports instead of 5060 (forwarder) and its fellows
  test                 run the tests, without a display
  softphone            the two phones alone
  pack [FILE]          the forwarder as one file, forwarder.pyz if you do not say; it needs Python
                       3.10 and nothing else
  --version            print the version
  --help               print this
"""


class Job(NamedTuple):
    """What to start once everything is there: a module with its arguments, and whether it must not
    show a window."""

    module: str
    arguments: tuple[str, ...] = ()
    offscreen: bool = False


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SetupFault(f"demo.py: {message}. What there is: python3 demo.py --help", status=2)


def _seconds(text: str) -> str:
    try:
        good = 3 <= float(text) <= 3600  # as stage takes it, but asked before anything is set up
    except ValueError:
        good = False
    if not good:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds from 3 to 3600")
    return text


def parse(argv: Sequence[str]) -> Job | str:
    """The job that the arguments ask for, or a text to print instead; SetupFault if they make no
    sense."""
    if argv and argv[0] == "test":
        return Job("pytest", tuple(argv[1:]), offscreen=True)
    if argv and argv[0] == "softphone":
        return Job("softphone", tuple(argv[1:]))
    if argv and argv[0] == "pack":
        return _packed(argv[1:])
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("what", nargs="?", choices=("play", "test", "softphone", "pack"))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--screenshots", metavar="DIR")
    parser.add_argument("--talk", metavar="SECONDS", type=_seconds)
    parser.add_argument("--scene", metavar="NAME")
    parser.add_argument("--report", metavar="FILE")
    parser.add_argument("--scenes", action="store_true")
    parser.add_argument("--deploy", action="append", default=[])
    parser.add_argument("--store", metavar="URL")
    parser.add_argument("--pair", action="store_true")
    parser.add_argument("--free-ports", action="store_true")
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--version", action="store_true")
    options = parser.parse_args(argv)
    if options.help:
        return HELP
    if options.version:
        from sip import VERSION

        return f"Call Failover {VERSION}\n"
    arguments = ["play"] if options.what else []
    arguments += ["--json"] if options.json else []
    # The program is started in this folder; files and folders are meant from where the person
    # stands.
    arguments += (
        ["--screenshots", os.path.abspath(options.screenshots)] if options.screenshots else []
    )
    arguments += ["--talk", options.talk] if options.talk else []
    arguments += ["--scene", options.scene] if options.scene else []
    arguments += ["--report", os.path.abspath(options.report)] if options.report else []
    if options.what not in (None, "play") or (arguments and not options.what):
        parser.error("these options belong to play: python3 demo.py play " + " ".join(argv))
    arguments += ["--scenes"] if options.scenes else []
    for wish in options.deploy:
        name, colon, file = wish.partition(":")
        arguments += ["--deploy", f"{name}{colon}{os.path.abspath(file) if file else ''}"]
    arguments += ["--store", options.store] if options.store else []
    arguments += ["--pair"] if options.pair else []
    arguments += ["--free-ports"] if options.free_ports else []
    return Job("stage", tuple(arguments))


def _packed(argv: Sequence[str]) -> str:
    """Make the file at once: it needs no set-up."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("file", nargs="?", default=FILE, type=Path)
    file: Path = parser.parse_args(argv).file
    if not file.parent.is_dir():
        raise SetupFault(
            f"There is no folder {file.parent} to put {file.name} into. Make it, or name another "
            "file."
        )
    if file.is_dir():
        raise SetupFault(f"{file} is a folder. Name a file, as in {file / FILE}.")
    try:
        pack(ROOT, file)
    except OSError as error:
        raise SetupFault(f"{file} could not be made: {error}.") from None
    return (
        f"{file} is the forwarder. Beside a servers.properties: python3 {file} --check, then "
        "without --check.\n"
    )


def prepare(root: Path, offscreen: bool) -> Path:
    """See to the system libraries and the Python packages; the interpreter that has them all.
    Raises SetupFault."""
    wanted = libraries.purposes({"QT_QPA_PLATFORM": "offscreen"} if offscreen else os.environ)
    settled = environment.running_fits(root) or environment.venv_fits(root)
    packages = (
        [] if settled or not environment.lacks_venv_module() else [environment.venv_package()]
    )
    lacking = libraries.missing(wanted)
    libraries.provide(lacking, packages)
    still = ", ".join(library.name for library in libraries.missing(wanted)) if lacking else ""
    if still:
        raise SetupFault(
            f"These libraries still cannot be loaded: {still}. Look into that and start again."
        )
    python = environment.ready(root)
    if not offscreen:
        desktop.write_entry(root, python)
    return python


def start(python: Path, job: Job, root: Path) -> int:
    """Become that program (POSIX), or run it and pass on its exit status (Windows, which cannot
    become another)."""
    if job.offscreen:
        os.environ["QT_QPA_PLATFORM"] = "offscreen"
    os.chdir(root)
    argv = [str(python), "-m", job.module, *job.arguments]
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name != "nt":
        os.execv(argv[0], argv)
    child = subprocess.Popen(argv)
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            continue  # Ctrl-C reaches the child too: how to end is its affair


class _Stopped(KeyboardInterrupt):
    """SIGTERM or SIGHUP came: to be undone like Ctrl-C."""


def _stop(number: int, frame: object) -> NoReturn:
    raise _Stopped(number)


def main(argv: Sequence[str]) -> int:
    """Do what the arguments say; the exit status. Whatever stops set-up is one sentence on
    stderr."""
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _stop)
    try:
        job = parse(argv)
        if isinstance(job, str):
            sys.stdout.write(job)
            return 0
        return start(prepare(ROOT, job.offscreen), job, ROOT)
    except SetupFault as fault:
        say(str(fault))
        return fault.status
    except KeyboardInterrupt as stop:
        say("Set-up was stopped; nothing was left half-made. The same command starts it again.")
        return 128 + (stop.args[0] if isinstance(stop, _Stopped) else signal.SIGINT)
    except OSError as error:
        say(_sentence(error))
        return 1


def _sentence(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"The disk is full ({error.filename or ROOT}). Make room and start again; nothing was "
            "left half-made."
        )
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        where = error.filename or ROOT
        return (
            f"Set-up may not write to {where}. Copy this folder to a place of your own and start "
            "again there."
        )
    return f"The system refused: {error}. Mend that and start again."
