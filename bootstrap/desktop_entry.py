"""The entry to double-click on Linux: it starts the two phones without a terminal."""

import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

NAME = "Call Failover phones.desktop"
ENTRY = """\
[Desktop Entry]
Type=Application
Version=1.0
Name=Call Failover phones
Comment=Alice and Bob: two SIP phones that call through the forwarder
Exec="{python}" -m softphone
Path={root}
Icon={root}/softphone.svg
Terminal=false
Categories=Network;Telephony;
"""


def write_entry(root: Path, python: Path) -> None:
    """Write the entry beside demo.py unless it is there already. Where that fails (a read-only
    folder), the example runs all the same."""
    if not sys.platform.startswith("linux"):
        return
    # Desktop Entry Specification: in a value a backslash is doubled. In Exec, which is a command
    # line within a value, quotes and the like get one before that, and % begins a field code.
    quoted = "".join("\\" + char if char in '\\"`$' else char for char in str(python))
    quoted = quoted.replace("\\", "\\\\").replace("%", "%%")
    text = ENTRY.format(python=quoted, root=str(root).replace("\\", "\\\\"))
    path = root / NAME
    with suppress(OSError, subprocess.SubprocessError):
        if path.exists() and path.read_text(encoding="utf-8") == text:
            return
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
        if shutil.which("gio"):  # GNOME starts only what is marked as trusted
            mark = ["gio", "set", str(path), "metadata::trusted", "true"]
            subprocess.run(mark, capture_output=True, check=False, timeout=5)
