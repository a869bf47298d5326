"""The entry to double-click on Linux: starts the two phones of the example without a terminal."""

import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

NAME = "Call Failover phones.desktop"


def _quoted(argument: str) -> str:
    """One argument for an Exec line, by the quoting rules of the Desktop Entry Specification ("The
    Exec key")."""
    for special in '\\"`$':
        argument = argument.replace(special, "\\" + special)
    # The value is a string before it is a command line: its backslashes are escaped once more. %
    # begins a field code.
    return '"' + argument.replace("\\", "\\\\").replace("%", "%%") + '"'


def entry(root: Path, python: Path) -> str:
    """The text of the entry for this folder and this interpreter."""
    lines = [
        "[Desktop Entry]",
        "Type=Application",
        "Version=1.0",
        "Name=Call Failover phones",
        "Comment=Alice and Bob: two SIP phones that call through the forwarder",
        f"Exec={_quoted(str(python))} -m softphone",
        f"Path={_escaped(root)}",
        f"Icon={_escaped(root / 'softphone.svg')}",
        "Terminal=false",
        "Categories=Network;Telephony;",
    ]
    return "\n".join(lines) + "\n"


def _escaped(path: Path) -> str:
    return str(path).replace("\\", "\\\\")


def write_entry(root: Path, python: Path) -> None:
    """Write the entry beside demo.py, on Linux, whenever it is not there or the folder or the
    interpreter has moved."""
    if not sys.platform.startswith("linux"):
        return
    path = root / NAME
    text = entry(root, python)
    # A convenience: where it cannot be written (a read-only folder), the example runs all the same.
    with suppress(OSError, subprocess.SubprocessError):
        if path.exists() and path.read_text(encoding="utf-8") == text:
            return
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
        if shutil.which("gio"):  # GNOME starts only what was marked so
            mark = ["gio", "set", str(path), "metadata::trusted", "true"]
            subprocess.run(mark, capture_output=True, check=False, timeout=5)
