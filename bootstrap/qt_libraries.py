"""The system libraries that Qt needs on Linux and its wheels do not bring: find those that are
missing, and install them or tell the command that does."""

import ctypes
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence

from bootstrap.errors import SetupError, say

# The libraries that PySide6 is linked against: for itself and for sound, and for a window.
QT = """libglib-2.0.so.0 libGL.so.1 libEGL.so.1 libX11.so.6 libxkbcommon.so.0 libfontconfig.so.1
    libfreetype.so.6 libdbus-1.so.3 libzstd.so.1 libstdc++.so.6 libpulse.so.0 libgssapi_krb5.so.2
    libbrotlidec.so.1"""
X11 = """ libxkbcommon-x11.so.0 libX11-xcb.so.1 libxcb-cursor.so.0 libxcb-icccm.so.4
    libxcb-image.so.0 libxcb-keysyms.so.1 libxcb-randr.so.0 libxcb-render.so.0
    libxcb-render-util.so.0 libxcb-shape.so.0 libxcb-shm.so.0 libxcb-sync.so.1 libxcb-util.so.1
    libxcb-xfixes.so.0 libxcb-xkb.so.1 """
WAYLAND = " libwayland-client.so.0 libwayland-cursor.so.0 libwayland-egl.so.1"


def debian_package(library: str) -> str:
    """The package with that library, by Debian's rule for their names and its two exceptions."""
    name, _, version = library.lower().replace("_", "-").partition(".so.")
    name = {"libglib-2.0": "libglib2.0", "libbrotlidec": "libbrotli"}.get(name, name)
    return f"{name}-{version}" if name[-1].isdigit() else name + version


def needed(environ: Mapping[str, str]) -> list[str]:
    """The libraries that Qt needs here; those for a window only where one can be shown."""
    chosen = re.split("[:;]", environ.get("QT_QPA_PLATFORM", ""))[0]
    if not chosen and environ.get("DISPLAY"):
        chosen = "xcb"  # also under Wayland: Qt falls back to X11
    elif not chosen and environ.get("WAYLAND_DISPLAY"):
        chosen = "wayland"
    return (QT + {"xcb": X11, "wayland": WAYLAND}.get(chosen, "")).split()


def missing(environ: Mapping[str, str]) -> list[str]:
    """Those that cannot be loaded; none on macOS and Windows, where Qt brings them all."""
    if not sys.platform.startswith("linux"):
        return []
    lacking = []
    for library in needed(environ):
        try:
            ctypes.CDLL(library)
        except OSError:
            lacking.append(library)
    return lacking


def provide(lacking: Sequence[str], packages: Sequence[str]) -> None:
    """Install the missing libraries and further Debian packages. Raises SetupError with the
    command to run where that may not be done."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    system = f"{release.get('ID')} {release.get('ID_LIKE')}".replace("opensuse", "suse").split()
    names = ", ".join([*lacking, *packages])
    if not names:
        return
    if {"debian", "ubuntu"} & set(system) and shutil.which("apt-get"):
        _apt_get(sorted({*map(debian_package, lacking), *packages}), names)
        return
    # rpm packages say which libraries they provide, so that the name of the library will do.
    provided = " ".join(f"'{name}()(64bit)'" for name in lacking)
    commands = {
        "fedora": f"sudo dnf install {provided}",
        "suse": f"sudo zypper install {provided}",
        "arch": f"sudo pacman -Fy {' '.join(lacking)}   (tells the packages that have them)",
    }
    known = [command for name, command in commands.items() if name in system and lacking]
    how = known[0] if known else "install the packages of your system that have them"
    raise SetupError(f"Missing on this system: {names}. Get them, then start again:\n    {how}")


def _apt_get(packages: Sequence[str], names: str) -> None:
    """Run apt-get as root, or with sudo when the person at the terminal agrees."""
    root, sudo = os.geteuid() == 0, shutil.which("sudo")
    prefix = [] if root or not sudo else ["sudo"]
    install = ["install", "-y", "--no-install-recommends", *packages]
    steps = [[*prefix, "apt-get", *words] for words in (["update"], install)]
    command = " && ".join(map(shlex.join, steps))
    command = command if root or sudo else f"su -c '{command}'"
    say(f"Missing on this system: {names}. This installs it:\n    {command}")
    if not root:
        if not (sudo and sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
            raise SetupError("Run that command, then start again.")
        print("Run it now? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise SetupError("Nothing was installed. Run that command, then start again.")
    # Another apt-get at work (a desktop's daily update) is waited for.
    quiet = ["-q", "-o", "DPkg::Lock::Timeout=120", "-o", "Dpkg::Use-Pty=0"]
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in steps:
        done = subprocess.run([*step, *quiet], env=environ, stdout=sys.stderr, check=False)
        if done.returncode:
            raise SetupError(
                f"apt-get could not install {' '.join(packages)} (exit status {done.returncode}; "
                "its own words are above). Is this computer on-line? Start again then."
            )
