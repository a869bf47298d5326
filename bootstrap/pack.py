"""The forwarder as one file: an archive that Python runs (zipapp, PEP 441), made of the standard
library alone."""

import os
import shutil
import tempfile
import zipapp
from pathlib import Path

FILE = "forwarder.pyz"
PACKAGES = ("failover", "plumbing", "sip")  # what forwarder.py imports, and what that imports
INTERPRETER = "/usr/bin/env python3"


def pack(root: Path, target: Path) -> None:
    """Write the archive of the sources under `root` to `target`. The one that stood there stays
    until the new one is whole, for a forwarder may be running from it. Raises OSError."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as place:
        sources, made = Path(place) / "sources", Path(place) / target.name
        for package in PACKAGES:
            shutil.copytree(
                root / package, sources / package, ignore=shutil.ignore_patterns("__pycache__")
            )
        shutil.copy2(root / "forwarder.py", sources / "__main__.py")
        zipapp.create_archive(sources, made, INTERPRETER)
        os.replace(made, target)
