"""The system libraries that Qt needs on Linux, which wheels cannot bring: find out what is missing
and get it."""

import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from bootstrap.fault import SetupFault, say


class Library(NamedTuple):
    """A shared library by the name the dynamic linker looks for, and the Debian and Ubuntu package
    that has it."""

    name: str
    package: str


# What PySide6's own libraries are linked against and do not bring, by what they are needed for.
LIBRARIES: dict[str, tuple[Library, ...]] = {
    "qt": (
        Library("libglib-2.0.so.0", "libglib2.0-0"),
        Library("libGL.so.1", "libgl1"),
        Library("libEGL.so.1", "libegl1"),
        Library("libX11.so.6", "libx11-6"),
        Library("libxkbcommon.so.0", "libxkbcommon0"),
        Library("libfontconfig.so.1", "libfontconfig1"),
        Library("libfreetype.so.6", "libfreetype6"),
        Library("libdbus-1.so.3", "libdbus-1-3"),
        Library("libzstd.so.1", "libzstd1"),
        Library("libstdc++.so.6", "libstdc++6"),
    ),
    "sound": (
        Library("libpulse.so.0", "libpulse0"),
        Library("libgssapi_krb5.so.2", "libgssapi-krb5-2"),
        Library("libbrotlidec.so.1", "libbrotli1"),
    ),
    "x11": (
        Library("libxkbcommon-x11.so.0", "libxkbcommon-x11-0"),
        Library("libX11-xcb.so.1", "libx11-xcb1"),
        Library("libxcb-cursor.so.0", "libxcb-cursor0"),
        Library("libxcb-icccm.so.4", "libxcb-icccm4"),
        Library("libxcb-image.so.0", "libxcb-image0"),
        Library("libxcb-keysyms.so.1", "libxcb-keysyms1"),
        Library("libxcb-randr.so.0", "libxcb-randr0"),
        Library("libxcb-render.so.0", "libxcb-render0"),
        Library("libxcb-render-util.so.0", "libxcb-render-util0"),
        Library("libxcb-shape.so.0", "libxcb-shape0"),
        Library("libxcb-shm.so.0", "libxcb-shm0"),
        Library("libxcb-sync.so.1", "libxcb-sync1"),
        Library("libxcb-util.so.1", "libxcb-util1"),
        Library("libxcb-xfixes.so.0", "libxcb-xfixes0"),
        Library("libxcb-xkb.so.1", "libxcb-xkb1"),
    ),
    "wayland": (
        Library("libwayland-client.so.0", "libwayland-client0"),
        Library("libwayland-cursor.so.0", "libwayland-cursor0"),
        Library("libwayland-egl.so.1", "libwayland-egl1"),
    ),
}

# The oldest GNU C library that the pinned Qt wheels were built for (their manylinux tag), and
# systems that have it.
OLDEST_GLIBC = {
    "x86_64": ((2, 34), "Debian 12, Ubuntu 22.04, Fedora 36"),
    "aarch64": ((2, 39), "Debian 13, Ubuntu 24.04, Fedora 40"),
}


def purposes(environ: Mapping[str, str]) -> tuple[str, ...]:
    """What Qt is needed for here: a window if there is a display to show it on, and sound
    always."""
    wish = environ.get("QT_QPA_PLATFORM", "").partition(":")[0].partition(";")[0]
    if wish in ("xcb", "wayland"):
        return ("qt", "sound", "x11" if wish == "xcb" else "wayland")
    if wish:
        return ("qt", "sound")
    # With both, Qt falls back to X11 where Wayland does not do, and every Wayland desktop has its
    # own libraries.
    if environ.get("DISPLAY"):
        return ("qt", "sound", "x11")
    if environ.get("WAYLAND_DISPLAY"):
        return ("qt", "sound", "wayland")
    return ("qt", "sound")


def missing(wanted: Sequence[str], load: Callable[[str], object] | None = None) -> list[Library]:
    """Those libraries for the wanted purposes that cannot be loaded; none where Qt brings them all
    (macOS, Windows)."""
    if not sys.platform.startswith("linux"):
        return []
    if load is None:
        try:
            from ctypes import CDLL
        # a Python built without libffi: then Qt itself has to say what it lacks
        except ImportError:
            return []
        load = CDLL
    lacking = []
    for library in (library for purpose in wanted for library in LIBRARIES[purpose]):
        try:
            load(library.name)
        except OSError:
            lacking.append(library)
    return lacking


def refuse_old_system() -> None:
    """Raise SetupFault where no wheel of Qt runs, before 150 MB are on their way."""
    if not sys.platform.startswith("linux"):
        return
    machine = platform.machine()
    if machine not in OLDEST_GLIBC:
        raise SetupFault(
            f"Qt for Python is not made for this kind of Linux computer ({machine}), but for "
            "x86_64 and ARM64."
        )
    needed, systems = OLDEST_GLIBC[machine]
    kind, version = platform.libc_ver()
    if kind != "glibc" or tuple(int(part) for part in version.split(".")[:2]) < needed:
        raise SetupFault(
            f"Qt for Python needs the GNU C library {needed[0]}.{needed[1]} or newer on {machine}, "
            "and this Linux has "
            f"{kind or 'another one'} {version or ''}. Use a newer Linux, for example {systems}."
        )


def distribution() -> frozenset[str]:
    """The names this Linux goes by: its own and those it says it is like; none if it does not
    say."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return frozenset()
    return frozenset([release.get("ID", "linux"), *release.get("ID_LIKE", "").split()])


def provide(lacking: Sequence[Library], packages: Sequence[str] = ()) -> None:
    """Get what is missing, on Debian with further packages in the same go; SetupFault says how
    where we may not."""
    names = [library.name for library in lacking]
    if distribution() & {"debian", "ubuntu"} and shutil.which("apt-get"):
        if lacking or packages:
            wanted = {library.package for library in lacking} | set(packages)
            _install_with_apt(sorted(wanted), ", ".join([*names, *packages]))
    elif lacking:
        raise SetupFault(_advice(names, distribution()))


def _advice(names: Sequence[str], system: Collection[str]) -> str:
    # rpm packages say which libraries they provide, so that the name of the library will do.
    provided = " ".join(f"'{name}()(64bit)'" for name in names)
    sentence = f"Qt needs system libraries that are missing here: {', '.join(names)}."
    for like, command in (
        ({"fedora", "rhel", "centos"}, f"sudo dnf install {provided}"),
        ({"suse", "opensuse"}, f"sudo zypper install {provided}"),
        ({"arch"}, f"sudo pacman -Fy {' '.join(names)}   (tells the packages that have them)"),
    ):
        if like & set(system):
            return f"{sentence} Get them, then start again:\n    {command}"
    return f"{sentence} Install the packages that have them, then start again."


def _install_with_apt(packages: Sequence[str], what: str) -> None:
    install = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    update = ["apt-get", "update"]
    if os.geteuid() == 0:
        say(f"Missing on this system: {what}. Installing {' '.join(packages)} with apt-get ...")
        _run_apt([update, install], packages)
        return
    sudo = shutil.which("sudo")
    command = " && ".join(
        ("sudo " if sudo else "") + shlex.join(step) for step in (update, install)
    )
    if not sudo:
        command = f"su -c '{command}'"
    sentence = f"Missing on this system: {what}. This installs it:\n    {command}"
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty() and sudo):
        raise SetupFault(f"{sentence}\nThen start again.")
    say(sentence)
    if not _agreed("Run it now? [y/N] "):
        raise SetupFault("Nothing was installed. Run the command above, then start again.")
    _run_apt([[sudo, *update], [sudo, *install]], packages)


def _agreed(question: str) -> bool:
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _run_apt(commands: Sequence[Sequence[str]], packages: Sequence[str]) -> None:
    # Another apt at work (a desktop's daily update) is waited for, not failed on.
    environ = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    for command in commands:
        quiet = [*command, "-q", "-o", "DPkg::Lock::Timeout=120", "-o", "Dpkg::Use-Pty=0"]
        status = subprocess.run(quiet, env=environ, stdout=sys.stderr, check=False).returncode
        if status:
            raise SetupFault(
                f"apt-get could not install {' '.join(packages)} (status {status}; its own words "
                "are above). "
                "Is this computer on-line, and its package list in order? Mend that and start "
                "again."
            )
