"""The virtual environment `.venv` beside demo.py.

The file `requirements.stamp` in it says what set-up has made of it: the hash of the requirements
that are installed, and the kind of Python; "unfinished" stands for what is not done yet. Set-up
changes or removes no .venv without that file.

New requirements are installed into the .venv that is there: pip downloads everything before it
changes anything, so that the old packages stay when the computer is off-line. Another Python, or a
.venv whose making was interrupted, means a new one. A new one that fails is removed.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from bootstrap.errors import SetupError, explain, say

# Measured with the pinned versions on Linux: the download, and the room it takes to install it.
DOWNLOAD_MB, NEEDED_MB = (260, 1300) if sys.version_info < (3, 12) else (150, 750)
FULL_BYTES = 20_000_000  # less than this left explains a failed step that does not say why
PYTHON = f"{sys.implementation.cache_tag} {sysconfig.get_platform()}"
UNFINISHED = "unfinished"
PIP = "-m pip install --disable-pip-version-check --no-input --only-binary=:all: --retries 3 -r"


def running_fits(root: Path) -> bool:
    """Whether the running interpreter has every requirement in its pinned version."""
    try:
        from packaging.requirements import Requirement  # a requirement itself
    except ImportError:
        return False
    lines = (root / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = [Requirement(line) for line in lines if line and not line.startswith("#")]
    installed = {each.name: each.version for each in importlib.metadata.distributions()}
    return all(
        installed.get(each.name, "") in each.specifier
        for each in wanted
        if each.marker is None or each.marker.evaluate()
    )


def venv_python(root: Path) -> Path:
    """The interpreter inside `.venv`."""
    return root / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _digest(root: Path) -> str:
    return hashlib.sha256((root / "requirements.txt").read_bytes()).hexdigest()


def _read_stamp(root: Path) -> tuple[str, str]:
    """(hash of the requirements, Python); two empty texts if the .venv is not ours."""
    stamp = root / ".venv" / "requirements.stamp"
    if not stamp.is_file() or stamp.parent.is_symlink():
        return "", ""
    text = stamp.read_text(encoding="utf-8", errors="replace")
    match = re.fullmatch(r"requirements (\w+)\npython (.+)\n", text)
    return (match[1], match[2]) if match else ("", "")


def _write_stamp(root: Path, requirements: str, python: str) -> None:
    part = root / ".venv" / "requirements.part"
    part.write_text(f"requirements {requirements}\npython {python}\n", encoding="utf-8")
    part.replace(part.with_suffix(".stamp"))


def venv_fits(root: Path) -> bool:
    """Whether `.venv` is finished, of this kind of Python, and of today's requirements."""
    return _read_stamp(root) == (_digest(root), PYTHON) and venv_python(root).exists()


def lacks_venv_module() -> bool:
    """Debian and Ubuntu ship python3 without what makes virtual environments."""
    return not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip"))


def venv_package() -> str:
    """The Debian package with the venv module of the running interpreter."""
    if os.path.realpath("/usr/bin/python3") == os.path.realpath(sys.executable):
        return "python3-venv"
    return f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"


def ready(root: Path) -> Path:
    """The interpreter to go on with: this one if it has everything, else that of `.venv`, which is
    made or brought up to date if need be. Raises SetupError."""
    if running_fits(root):
        return Path(sys.executable)
    if not venv_fits(root):
        with only_one(root):
            if not venv_fits(root):  # the one that was waited for may have made it
                build(root)
    return venv_python(root)


def build(root: Path) -> None:
    """Make `.venv` or bring it up to date. Raises SetupError."""
    venv, (requirements, python) = root / ".venv", _read_stamp(root)
    if os.path.lexists(venv) and not requirements:
        raise SetupError(
            f"There is a .venv in {root} that this set-up did not make, and it is left alone. "
            f"Rename it and start again. Or, to use it: {venv_python(root)} -m pip install -r "
            f"requirements.txt, and then {venv_python(root)} demo.py."
        )
    free = shutil.disk_usage(root).free // 1_000_000
    if free < NEEDED_MB:
        raise SetupError(
            f"The disk is too full: set-up needs {NEEDED_MB} MB in {root}, and {free} MB are free. "
            "Make room, or move this folder to a larger disk, and start again."
        )
    made_before = python == PYTHON and venv_python(root).exists()
    say(f"Setting up .venv in this folder: about {DOWNLOAD_MB} MB to download.")
    try:
        if not made_before:
            shutil.rmtree(venv, ignore_errors=True)
            venv.mkdir()
            _write_stamp(root, UNFINISHED, UNFINISHED)
            _run([sys.executable, "-m", "venv", str(venv)], venv, subprocess.PIPE)
        _write_stamp(root, UNFINISHED, PYTHON)
        pip = [str(venv_python(root)), *PIP.split(), str(root / "requirements.txt")]
        _run(pip, venv, sys.stderr)
        _write_stamp(root, _digest(root), PYTHON)
    except BaseException:
        if not made_before:
            shutil.rmtree(venv, ignore_errors=True)
        raise
    say("Set-up is done.")


def _run(command: Sequence[str], venv: Path, stdout: IO[str] | int) -> None:
    """Run one step of the set-up; raise SetupError with the reason if it fails."""
    # Its temporary files go where the room was looked for: /tmp is often a small disk.
    temporary = venv / "tmp"
    temporary.mkdir(exist_ok=True)
    environ = {**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary))}
    for name in ("PIP_TARGET", "PIP_PREFIX", "PIP_USER"):
        environ.pop(name, None)
    with subprocess.Popen(
        command,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        close_fds=False,  # it shares the lock: a pip that outlives its demo.py is waited for
        start_new_session=True,  # to be killed with all the processes that it has started
    ) as child:
        try:
            output = "".join(text or "" for text in child.communicate())
        except BaseException:
            child.kill() if sys.platform == "win32" else os.killpg(child.pid, signal.SIGKILL)
            raise
    shutil.rmtree(temporary, ignore_errors=True)
    if child.returncode:
        full = shutil.disk_usage(venv).free < FULL_BYTES
        raise SetupError(explain("No space left on device" if full else output))


@contextmanager
def only_one(root: Path) -> Iterator[None]:
    """Let one set-up at a time work in this folder: a second demo.py waits for the first."""
    with open(root / "requirements.txt", "rb") as file:
        if not locked(file):
            say("Another demo.py is setting up this folder; waiting for it ...")
            while not locked(file):
                time.sleep(0.2)
        os.set_inheritable(file.fileno(), True)
        yield


def locked(file: IO[bytes]) -> bool:
    """Lock the file until it is closed or its process ends. True, too, where there are no locks
    (some network file systems)."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(1 << 30)  # others cannot read what is locked: lock where nothing is
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return sys.platform != "win32" and not isinstance(error, BlockingIOError)
    return True
