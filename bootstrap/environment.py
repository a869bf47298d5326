"""The virtual environment `.venv` beside demo.py: made once, whole or not at all, and anew when it
no longer fits.

A finished one has a stamp, written last: the hash of requirements.txt and the kind of Python. An
interrupt undoes what was begun; where even that was impossible (power cut, kill -9) the stamp is
missing and the next start begins anew.

Nothing is removed that was not made here: what is ours has a mark, written first. And no finished
environment is removed before the next one is: that is made beside it, as `.venv.new`, and then the
two change places. What a crash leaves of the three folders, `_put_right` sees to:

    .venv   .venv.new   .venv.old     what happened, and what is done
    old     half                      killed while it was made: .venv.new goes
    -       new         old           killed between two renames: .venv.new becomes .venv
    new     -           old           killed before the old one was removed: .venv.old goes
    -       half or -   old           .venv was removed by somebody: .venv.old becomes .venv
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
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from bootstrap.fault import SetupFault, say
from bootstrap.libraries import refuse_old_system
from bootstrap.trouble import explain

# Measured with the pins on Linux: what pip fetches, and what that takes on the disk while it is
# being unpacked.
DOWNLOAD_MB, NEEDED_MB = (260, 1300) if sys.version_info < (3, 12) else (150, 750)

# What must be importable for a requirement to count as there; those not named are needed by these.
MODULES = {
    "PySide6_Essentials": "PySide6.QtWidgets",
    "PySide6_Addons": "PySide6.QtMultimedia",
    "netifaces-plus": "netifaces",
    "pytest": "pytest",
    "pytest-qt": "pytestqt.plugin",
}

_MARKER = re.compile(r'(python_version|sys_platform) (<|>=|==) "([A-Za-z0-9_.]+)"')


def pins(text: str) -> dict[str, str]:
    """The exact versions that requirements.txt asks for on this computer: {name: version}."""
    wanted = {}
    for line in text.splitlines():
        requirement, _, marker = line.partition("#")[0].partition(";")
        name, _, version = requirement.strip().partition("==")
        if name and _applies(marker.strip()):
            wanted[name] = version
    return wanted


_STAMP = re.compile(r"requirements [0-9a-f]{64}\npython \S+ \S+\n")
MARK = "made-by-call-failover"  # a file in the folder, written before anything else


def _pins(root: Path) -> dict[str, str]:
    return pins((root / "requirements.txt").read_text(encoding="utf-8"))


def _applies(marker: str) -> bool:
    if not marker:
        return True
    match = _MARKER.fullmatch(marker)
    if match is None:
        raise ValueError(f"requirements.txt: this marker is not understood: {marker}")
    variable, comparison, value = match.groups()
    if variable == "sys_platform":
        return sys.platform == value
    bound = tuple(int(part) for part in value.split("."))
    here = sys.version_info[:2]
    return {"<": here < bound, ">=": here >= bound, "==": here == bound}[comparison]


def running_fits(root: Path) -> bool:
    """Whether the running interpreter has every requirement in the pinned version."""
    for name, version in _pins(root).items():
        try:
            if importlib.metadata.version(name) != version:
                return False
        except importlib.metadata.PackageNotFoundError:
            return False
    return True


def venv_python(root: Path) -> Path:
    """The interpreter inside `.venv`."""
    return _python_in(root / ".venv")


def _python_in(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _stamp(folder: Path) -> Path:
    return folder / "requirements.stamp"


def _stamp_text(root: Path) -> str:
    digest = hashlib.sha256((root / "requirements.txt").read_bytes()).hexdigest()
    return (
        f"requirements {digest}\npython {sys.implementation.cache_tag} {sysconfig.get_platform()}\n"
    )


def venv_fits(root: Path) -> bool:
    """Whether `.venv` is whole, of this kind of Python and made from the requirements as they are
    now."""
    return _fits(root / ".venv", root)


def _fits(folder: Path, root: Path) -> bool:
    return _stamped(folder) == _stamp_text(root) and _python_in(folder).exists()


def _stamped(folder: Path) -> str:
    """What the stamp says; empty without one."""
    try:
        return _stamp(folder).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""


def is_ours(folder: Path) -> bool:
    """Whether a set-up made it, finished or not. Those of before the mark have a stamp if they are
    finished. We make no links."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    return (folder / MARK).is_file() or _STAMP.fullmatch(_stamped(folder)) is not None


def lacks_venv_module() -> bool:
    """Debian and Ubuntu leave out of their python3 what makes virtual environments."""
    return importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None


def venv_package() -> str:
    """The Debian package that has the venv module for the running interpreter."""
    if os.path.realpath("/usr/bin/python3") == os.path.realpath(sys.executable):
        return "python3-venv"
    return f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"


def ready(root: Path) -> Path:
    """The interpreter to go on with: this one if it has everything, else that of `.venv`, which is
    made if need be."""
    if running_fits(root) and not import_trouble(Path(sys.executable), root):
        return Path(sys.executable)
    if venv_fits(root) and is_ours(root / ".venv.old"):
        remove(root / ".venv.old")  # of a set-up that was killed at its very end
    if not venv_fits(root):
        with only_one(root):
            if not venv_fits(root):  # the one that was waited for may have made it
                build(root)
    return venv_python(root)


def import_trouble(python: Path, root: Path) -> str:
    """What that interpreter says when it imports what the requirements bring; empty if all is
    well."""
    modules = [module for name, module in MODULES.items() if name in _pins(root)]
    program = f"import importlib\nfor name in {modules!r}:\n    importlib.import_module(name)"
    done = subprocess.run(
        [python, "-c", program], capture_output=True, text=True, errors="replace", check=False
    )
    return (
        ""
        if done.returncode == 0
        else (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    )


def build(root: Path) -> None:
    """Make `.venv` and install the requirements into it, all of it or nothing; raises SetupFault.
    One that is finished and made for something else stays until the next one is."""
    refuse_old_system()
    if lacks_venv_module():
        raise SetupFault(
            f"This Python ({sys.executable}) has no venv module to make a virtual environment "
            "with. "
            f"On Debian or Ubuntu: sudo apt-get install {venv_package()}. "
            "Elsewhere install Python from https://www.python.org. Then start again."
        )
    venv, fresh = root / ".venv", root / ".venv.new"
    _refuse_foreign(root)
    _put_right(root)
    if venv_fits(root):
        return
    _refuse_full_disk(root)
    remove(fresh)
    # Where no finished one is lost, the new one is made in its place at once.
    kept = bool(_stamped(venv))
    folder = fresh if kept else venv
    with _undone_on_failure(folder):
        if kept:
            other = "The .venv that is here is made for something else"
            say(f"{other}: making another, and keeping it until then.")
        elif os.path.lexists(venv):
            say("The .venv that is here is unfinished: making it anew.")
            remove(venv)
        _make(folder, root)
    if kept:
        _move_paths(fresh, venv)
        venv.rename(root / ".venv.old")
        fresh.rename(venv)
        remove(root / ".venv.old")
    say("Set-up is done.")


def _refuse_foreign(root: Path) -> None:
    for name in (".venv", ".venv.new", ".venv.old"):
        if os.path.lexists(root / name) and not is_ours(root / name):
            raise SetupFault(
                f"There is a {name} in {root} that this set-up did not make, and it is left alone. "
                f"Rename it and start again. Or, to use it: {venv_python(root)} -m pip install "
                f"-r requirements.txt, and then {venv_python(root)} demo.py."
            )


def _refuse_full_disk(root: Path) -> None:
    """Before anything is removed. What is unfinished will be, so its room counts as free."""
    unfinished = [root / name for name in (".venv", ".venv.new") if not _stamped(root / name)]
    free = shutil.disk_usage(root).free + sum(_size(folder) for folder in unfinished)
    if free < NEEDED_MB * 1_000_000:
        raise SetupFault(
            f"The disk is too full: set-up needs {NEEDED_MB} MB in {root}, "
            f"and {free // 1_000_000} MB are free. Make room, or move this folder to a larger "
            "disk, and start again."
        )


def _size(folder: Path) -> int:
    """Octets of all files in it."""
    paths = (os.path.join(at, name) for at, _, names in os.walk(folder) for name in names)
    return sum(os.lstat(path).st_size for path in paths)


def _put_right(root: Path) -> None:
    """After a set-up that was killed: see the table above. All three folders are ours where they
    exist."""
    venv, fresh, old = root / ".venv", root / ".venv.new", root / ".venv.old"
    if not venv.exists() and _fits(fresh, root):
        fresh.rename(venv)
    elif not venv.exists() and old.exists():
        old.rename(venv)
    if _stamped(venv):
        remove(old)


def _make(folder: Path, root: Path) -> None:
    say(f"Setting up .venv in this folder, once: about {DOWNLOAD_MB} MB to download.")
    folder.mkdir()
    mark = "demo.py of Call Failover makes this folder, and may remove it.\n"
    (folder / MARK).write_text(mark, encoding="ascii")
    _run([sys.executable, "-m", "venv", "--prompt", ".venv", str(folder)], folder, quiet=True)
    _install(folder, root)
    trouble = import_trouble(_python_in(folder), root)
    if trouble:
        raise SetupFault(
            f"What was installed does not run here: {trouble}. Get that, and start again."
        )
    unfinished = _stamp(folder).with_suffix(".part")
    unfinished.write_text(_stamp_text(root), encoding="ascii")
    unfinished.replace(_stamp(folder))


def _move_paths(made: Path, wanted: Path) -> None:
    """Scripts name the folder that they were made in. We start none of them; people may."""
    before, after = os.fsencode(made), os.fsencode(wanted)
    for path in [made / "pyvenv.cfg", *_python_in(made).parent.iterdir()]:
        if path.is_file() and not path.is_symlink() and path.suffix != ".exe":
            octets = path.read_bytes()
            if before in octets:
                path.write_bytes(octets.replace(before, after))


def _install(folder: Path, root: Path) -> None:
    command = [str(_python_in(folder)), "-m", "pip", "install"]
    command += ["--disable-pip-version-check", "--no-input"]
    # Few retries, to learn soon that one is off-line; but some, for pip tells what fails only when
    # it tries again.
    command += ["--only-binary=:all:", "--retries", "3"]
    command += [f"{name}=={version}" for name, version in _pins(root).items()]
    _run(command, folder, quiet=False)


def _run(command: Sequence[str], folder: Path, quiet: bool) -> None:
    """Run one step of the set-up, its progress to be seen unless quiet; raise SetupFault with what
    went wrong."""
    # Its temporary files go where an undone set-up takes them away with the rest, and where the
    # room was looked for.
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    environ = {
        key: value
        for key, value in os.environ.items()
        if key not in ("PIP_TARGET", "PIP_PREFIX", "PIP_USER")
    }
    environ.update(dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary)))
    with subprocess.Popen(
        command,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if quiet else sys.stderr,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        close_fds=False,  # the lock goes with it
        start_new_session=True,  # so that what it has started itself can be ended with it
    ) as child:
        try:
            out, err = child.communicate()
        except BaseException:
            _end(child)
            raise
    remove(temporary)
    if child.returncode:
        free = shutil.disk_usage(folder).free
        raise SetupFault(explain(f"{out or ''}{err}", child.returncode, free))


def _end(child: subprocess.Popen[str]) -> None:
    """Stop a step and all it has started, for certain: what still ran would write into what is
    being removed."""
    if os.name == "nt":
        child.kill()
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with suppress(subprocess.TimeoutExpired):
            child.wait(timeout=2)


@contextmanager
def _undone_on_failure(folder: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        # Whatever it was, an interrupt too: half an environment is worse than none.
        remove(folder)
        raise


def remove(path: Path) -> None:
    """Delete a file, link or folder with all that is in it; gone already is fine."""
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def only_one(root: Path) -> Iterator[None]:
    """Let one set-up at a time work in this folder: a second demo.py waits here for the first."""
    with open(root / "requirements.txt", "rb") as file:
        if not _locked(file):
            say("Another demo.py is setting up this folder; waiting for it ...")
            while not _locked(file):
                time.sleep(0.2)
        # The steps share the lock: a pip that outlives its killed demo.py still writes, and has to
        # be waited for.
        os.set_inheritable(file.fileno(), True)
        yield


def _locked(file: IO[bytes]) -> bool:
    """Try to lock the file until it is closed. The lock dies with its process. True where locking
    is not to be had."""
    if sys.platform == "win32":
        import msvcrt

        with suppress(OSError):
            # Windows keeps others from reading what is locked: so lock what nobody reads
            file.seek(1 << 30)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            return True
        return False
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # some network file systems cannot
    return True
