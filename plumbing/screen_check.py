"""Tells whether a window can be opened. Qt ends the whole process where there is no screen, so ask
first."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping

SCREENLESS = ("offscreen", "minimal")  # Qt's platforms that show nothing


def shows_nothing(environment: Mapping[str, str] = os.environ) -> bool:
    """Is Qt told to open its windows on no screen?"""
    return environment.get("QT_QPA_PLATFORM", "").partition(":")[0] in SCREENLESS


def why_none(environment: Mapping[str, str] = os.environ, platform: str = sys.platform) -> str:
    """A sentence that says why no window can be seen, or "" if one can."""
    chosen = environment.get("QT_QPA_PLATFORM", "")
    if shows_nothing(environment):
        return f"There is no display: QT_QPA_PLATFORM is {chosen.partition(':')[0]}."
    if not platform.startswith(("linux", "freebsd", "openbsd", "netbsd")) or chosen:
        return ""
    if environment.get("WAYLAND_DISPLAY"):
        return ""
    display = environment.get("DISPLAY", "")
    if not display:
        return "There is no display: neither DISPLAY nor WAYLAND_DISPLAY is set."
    return "" if _answers(display) else f"There is no display: nobody answers at DISPLAY={display}."


def _answers(display: str) -> bool:
    """True unless it is a display of this computer at which nobody listens."""
    host, _, rest = display.rpartition(":")
    number = rest.partition(".")[0]
    if host not in ("", "unix") or not (number.isascii() and number.isdigit()):
        return True
    # where X servers put their socket; the one in the abstract namespace is Linux's
    path = f"/tmp/.X11-unix/X{number}"
    for name in (path, "\0" + path):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(1.0)
            try:
                sock.connect(name)
                return True
            except OSError:
                continue
    return False
