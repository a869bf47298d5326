"""The command line of demo.py: set up what is missing, then start the right program."""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple, NoReturn

from bootstrap import desktop_entry as desktop
from bootstrap import environment, qt_libraries
from bootstrap.errors import SetupError, explain, say
from bootstrap.pack import FILE, pack
from sip import VERSION

ROOT = Path(__file__).resolve().parent.parent
OTHER_COMMANDS = """\
python3 demo.py [show|play] [OPTIONS]      the example: see below
python3 demo.py test [pytest's arguments]  the tests, without a display: test tests/sip, test -k bye
python3 demo.py softphone [OPTIONS]        the two phones alone (softphone --help)
python3 demo.py pack [FILE]                the forwarder as one file, forwarder.pyz
python3 demo.py --version                  the version
Whatever is needed is set up first, in .venv beside demo.py.
"""


class Program(NamedTuple):
    """A module to start, and its arguments. `services`: modules of the person's folder are loaded,
    too."""

    module: str
    arguments: tuple[str, ...] = ()
    offscreen: bool = False
    services: bool = False


def parse(argv: Sequence[str]) -> Program:
    """The program that the arguments ask for. Exits as argparse does where they make no sense: an
    option of the example is complained of here, before anything is downloaded for it."""
    if argv[:1] == ["test"]:
        words = ("-q", "--durations=10", "--processes=2", *argv[1:])
        return Program("pytest", words, offscreen=True)
    if argv[:1] == ["softphone"]:
        return Program("softphone", tuple(argv[1:]))
    if {"-h", "--help"} & set(argv):
        print(OTHER_COMMANDS)
    options = import_module("stage.options").parse(argv)
    return Program("stage", tuple(options.arguments), services=bool(options.deploy))


def make_pack(argv: Sequence[str]) -> None:
    """Make forwarder.pyz, which needs no set-up."""
    parser = argparse.ArgumentParser("demo.py pack", description="Make one file of the forwarder.")
    parser.add_argument("file", nargs="?", default=FILE, type=Path, help=f"default: {FILE}")
    file: Path = parser.parse_args(argv).file
    if file.is_dir() or not file.parent.is_dir():
        wrong = f"{file} is a folder" if file.is_dir() else f"There is no folder {file.parent}"
        raise SetupError(f"{wrong}. Name a file in a folder that is there, as in {FILE}.")
    pack(ROOT, file)
    beside = f"Beside a servers.properties: python3 {file} --check, then without --check."
    print(f"{file} is the forwarder. {beside}")


def prepare(root: Path, offscreen: bool) -> Path:
    """Get the system libraries and the Python packages; the interpreter that has them all. Raises
    SetupError."""
    environ = {"QT_QPA_PLATFORM": "offscreen"} if offscreen else os.environ
    settled = environment.running_fits(root) or environment.venv_fits(root)
    no_venv = not settled and environment.lacks_venv_module()
    lacking = qt_libraries.missing(environ)
    qt_libraries.provide(lacking, [environment.venv_package()] if no_venv else [])
    if lacking and (still := qt_libraries.missing(environ)):
        raise SetupError(f"These libraries still cannot be loaded: {', '.join(still)}.")
    python = environment.ready(root)
    if not offscreen:
        desktop.write_entry(root, python)
    return python


def start(python: Path, program: Program, root: Path) -> int:
    """Become that program, or on Windows, which cannot do that, run it; its exit status."""
    if program.offscreen:
        os.environ["QT_QPA_PLATFORM"] = "offscreen"
    if program.services:
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join([os.getcwd(), *([before] if before else [])])
    os.chdir(root)
    argv = [str(python), "-m", program.module, *program.arguments]
    sys.stdout.flush()
    if os.name != "nt":
        if program.module == "stage":  # which unblocks it once it can end in order
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        os.execv(argv[0], argv)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program, which gets it too
    return subprocess.call(argv)


def _stop(number: int, frame: object) -> NoReturn:
    """On SIGTERM and SIGHUP: undo what was begun, as on Ctrl-C."""
    raise KeyboardInterrupt(number)


def main(argv: Sequence[str]) -> int:
    """Do what the arguments say; the exit status. An error of set-up is one sentence on stderr."""
    for name in {"SIGTERM", "SIGHUP"} & set(dir(signal)):
        signal.signal(getattr(signal, name), _stop)
    try:
        if argv[:1] == ["pack"]:
            make_pack(argv[1:])
            return 0
        if argv == ["--version"]:
            print(f"Call Failover {VERSION}")
            return 0
        program = parse(argv)
        return start(prepare(ROOT, program.offscreen), program, ROOT)
    except SetupError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt as stop:
        say("Set-up was stopped. The same command starts it again.")
        return 128 + (stop.args[0] if stop.args else signal.SIGINT)
    except OSError as error:
        say(explain(str(error)))
        return 1
