"""The system libraries Qt needs: found missing before a download, installed where that may be done,
named where not."""

from __future__ import annotations

import os
import pty
import shutil
import stat
import subprocess
import sys

import pytest
from setup_kit import Clone

from bootstrap import desktop_entry as desktop
from bootstrap import qt_libraries
from bootstrap.errors import explain

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="other systems bring what Qt needs"
)

# A computer without libEGL until a file appears; of the distribution and for the user that are
# filled in.
LACKING = """
import ctypes, os, platform
real = ctypes.CDLL
def load(name, *rest, **more):
    if name == "libEGL.so.1" and not os.path.exists({found!r}):
        raise OSError(name + ": cannot open shared object file: No such file or directory")
    return object()
ctypes.CDLL = load
platform.freedesktop_os_release = lambda: {release!r}
os.geteuid = lambda: {user}
"""
DEBIAN = {"ID": "debian"}
MINT = {"ID": "linuxmint", "ID_LIKE": "ubuntu debian"}
APT = "apt-get install -y --no-install-recommends libegl1"


@pytest.fixture
def clone(tmp_path):
    """A clone that needs nothing else: the running interpreter has all it requires."""
    clone = Clone.make(tmp_path)
    clone.require()
    return clone


def lacking(clone, release, user):
    found = clone.root.parent / "found"
    clone.patch(LACKING.format(found=str(found), release=release, user=user))
    return found


@pytest.mark.parametrize("release", [DEBIAN, MINT])
def test_root_on_debian_gets_them_installed_and_the_example_starts(clone, release):
    found = lacking(clone, release, user=0)
    notes = clone.command(
        "apt-get",
        f'[ "$1" = update ] || touch "{found}"; [ -z "$DEBIAN_FRONTEND" ] && exit 9; exit 0',
    )
    outcome = clone.run()
    assert outcome.status == 0, outcome.err
    assert outcome.started["arguments"] == ["show"]
    assert "libEGL.so.1" in outcome.err
    first, second = notes.read_text().splitlines()
    assert first.startswith("update") and second.startswith(APT.removeprefix("apt-get "))


def test_apt_that_fails_is_said(clone):
    lacking(clone, DEBIAN, user=0)
    clone.command("apt-get", "echo no network >&2; exit 100")
    clone.run().assert_fault("apt-get could not install libegl1", "status 100", "on-line")


def test_library_that_stays_away_after_apt_is_named(clone):
    lacking(clone, DEBIAN, user=0)
    clone.command("apt-get", "exit 0")
    clone.run().assert_fault("still cannot be loaded: libEGL.so.1")


def test_ordinary_user_without_a_terminal_gets_the_exact_command(clone):
    lacking(clone, DEBIAN, user=1000)
    apt, sudo = clone.command("apt-get", "exit 0"), clone.command("sudo", "exit 0")
    outcome = clone.run()
    outcome.assert_fault(f"sudo apt-get update && sudo {APT}", "then start again.")
    assert not apt.exists() and not sudo.exists()
    assert not clone.venv.exists()


@pytest.mark.parametrize(("answer", "status"), [("y", 0), ("n", 1), ("", 1)])
def test_ordinary_user_in_a_terminal_is_asked(clone, answer, status):
    found = lacking(clone, DEBIAN, user=1000)
    clone.command("apt-get", "exit 0")
    sudo = clone.command("sudo", f'[ "$2" = update ] || touch "{found}"')
    try:
        ours, theirs = pty.openpty()
    except OSError:
        pytest.skip("no terminals here: /dev/pts is not mounted")
    try:
        os.write(ours, f"{answer}\n".encode())
        process = clone.start(stdin=theirs, stderr=theirs)
        process.communicate(timeout=20)
        said = os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert process.returncode == status
    assert "Run it now? [y/N]" in said and f"sudo {APT}" in said
    assert sudo.exists() == (status == 0)


@pytest.mark.parametrize(
    ("release", "command"),
    [
        ({"ID": "fedora"}, "sudo dnf install 'libEGL.so.1()(64bit)'"),
        (
            {"ID": "rocky", "ID_LIKE": "rhel centos fedora"},
            "sudo dnf install 'libEGL.so.1()(64bit)'",
        ),
        (
            {"ID": "opensuse-tumbleweed", "ID_LIKE": "opensuse suse"},
            "sudo zypper install 'libEGL.so.1()(64bit)'",
        ),
        ({"ID": "arch"}, "pacman -Fy libEGL.so.1"),
        ({"ID": "gentoo"}, "install the packages of your system that have them"),
    ],
)
def test_other_systems_are_told_the_names(clone, release, command):
    lacking(clone, release, user=1000)
    outcome = clone.run()
    outcome.assert_fault("libEGL.so.1", command)


def without_venv(clone, release):
    """As Debian delivers python3: it needs an environment, and has not all it takes to make one."""
    clone.require("failover_probe==1.0")
    lacking(clone, release, user=1000).touch()
    site = clone.root.parent / "site" / "sitecustomize.py"
    site.write_text(site.read_text() + "import sys\nsys.modules['ensurepip'] = None\n")


def test_debian_python_without_venv_is_told_the_package(clone):
    without_venv(clone, DEBIAN)
    clone.command("sudo", "exit 0")
    clone.command("apt-get", "exit 0")
    outcome = clone.run()
    outcome.assert_fault("sudo apt-get install -y --no-install-recommends python3", "-venv")
    assert not clone.venv.exists()


def test_python_without_venv_elsewhere_gets_a_sentence_too(clone):
    without_venv(clone, {"ID": "gentoo"})
    clone.run().assert_fault("python3", "-venv", "start again")
    assert not clone.venv.exists()


@pytest.mark.parametrize(
    ("environ", "x11", "wayland"),
    [
        ({}, False, False),
        ({"DISPLAY": ""}, False, False),
        ({"DISPLAY": ":0"}, True, False),
        ({"WAYLAND_DISPLAY": "wayland-0"}, False, True),
        ({"WAYLAND_DISPLAY": "wayland-0", "DISPLAY": ":0"}, True, False),
        ({"DISPLAY": ":0", "QT_QPA_PLATFORM": "offscreen"}, False, False),
        ({"QT_QPA_PLATFORM": "wayland;xcb", "DISPLAY": ":0"}, False, True),
        ({"QT_QPA_PLATFORM": "xcb"}, True, False),
    ],
)
def test_window_libraries_are_asked_for_only_where_a_window_can_be(environ, x11, wayland):
    needed = qt_libraries.needed(environ)
    assert ("libxcb-cursor.so.0" in needed, "libwayland-client.so.0" in needed) == (x11, wayland)
    assert "libGL.so.1" in needed and "libpulse.so.0" in needed


@pytest.mark.parametrize(
    ("library", "package"),
    [
        ("libglib-2.0.so.0", "libglib2.0-0"),
        ("libGL.so.1", "libgl1"),
        ("libX11.so.6", "libx11-6"),
        ("libdbus-1.so.3", "libdbus-1-3"),
        ("libstdc++.so.6", "libstdc++6"),
        ("libgssapi_krb5.so.2", "libgssapi-krb5-2"),
        ("libbrotlidec.so.1", "libbrotli1"),
        ("libxkbcommon-x11.so.0", "libxkbcommon-x11-0"),
        ("libX11-xcb.so.1", "libx11-xcb1"),
        ("libxcb-render-util.so.0", "libxcb-render-util0"),
        ("libwayland-client.so.0", "libwayland-client0"),
    ],
)
def test_debian_s_package_of_a_library(library, package):
    assert qt_libraries.debian_package(library) == package


@pytest.mark.skipif(not shutil.which("dpkg"), reason="the packages are Debian's")
@pytest.mark.long
def test_debian_has_every_package_that_is_installed_here():
    """Of those that are installed, dpkg knows each under the name that set-up would ask for."""
    libraries = qt_libraries.needed({"DISPLAY": ":0"})
    search = ["dpkg", "-S", *(f"/usr/lib/*/{library}" for library in libraries)]
    found = subprocess.run(search, capture_output=True, text=True, check=False).stdout
    for line in found.splitlines():
        packages, _, path = line.rpartition(": ")
        owners = {name.partition(":")[0] for name in packages.split(", ")}
        assert qt_libraries.debian_package(path.rpartition("/")[2]) in owners


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("ERROR: Could not install: [Errno 28] No space left on device", "The disk is full"),
        ("OSError: [Errno 122] Disk quota exceeded", "The disk is full"),
        ("ERROR: [Errno 30] Read-only file system: '/x'", "may not write here"),
        ("WARNING: Retrying (Retry(total=2)) ... CERTIFICATE_VERIFY_FAILED", "PIP_CERT"),
        (
            "WARNING: Retrying after connection broken by 'NewConnectionError'\nERROR: No matching "
            "distribution found",
            "off-line",
        ),
        ("ERROR: No matching distribution found for PySide6_Addons==6.11.3", "does not exist for"),
        ("ERROR: something new", "Set-up stopped: something new."),
        ("", "Set-up stopped: no output."),
    ],
)
def test_what_pip_says_becomes_one_sentence(words, sentence):
    assert sentence in explain(words)


def test_desktop_entry_starts_the_phones_by_absolute_path(clone):
    root = clone.root.rename(clone.root.with_name('my "calls" at 100%'))
    desktop.write_entry(root, root / ".venv/bin/python")
    path = root / desktop.NAME
    lines = path.read_text().splitlines()
    assert lines[0] == "[Desktop Entry]"
    assert f"Path={root}" in lines and "Terminal=false" in lines and "Type=Application" in lines
    quoted = str(root).replace('"', '\\\\"').replace("%", "%%")
    assert f'Exec="{quoted}/.venv/bin/python" -m softphone' in lines
    assert path.stat().st_mode & stat.S_IXUSR
    if shutil.which("desktop-file-validate"):
        assert os.system(f"desktop-file-validate '{path}'") == 0


def test_desktop_entry_is_written_with_the_example_and_again_when_it_differs(clone):
    lacking(clone, DEBIAN, user=1000).touch()
    assert clone.run().status == 0
    path = clone.root / desktop.NAME
    text = path.read_text()
    path.write_text("of another folder")
    assert clone.run("play").status == 0
    assert path.read_text() == text
