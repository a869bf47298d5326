"""A clone in a temporary folder, with a stage that only says how it was started and one tiny
requirement to install."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Stands for stage, softphone and pytest: tells the interpreter, the arguments and the platform it
# was given.
PROGRAM = """\
import json, os, sys
platform = os.environ.get("QT_QPA_PLATFORM")
print(json.dumps({"name": __name__, "prefix": sys.prefix, "arguments": sys.argv[1:], "platform": platform}))
sys.exit(int(os.environ.get("STAGE_STATUS", "0")))
"""


def make_wheel(folder: Path, name: str, version: str) -> None:
    """A wheel with one empty module, so that pip has something to install without a network."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)


class Clone:
    """demo.py and what it needs in a folder of their own."""

    def __init__(self, root: Path, wheels: Path) -> None:
        self.root = root
        self.wheels = wheels
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(root),
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(wheels),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_CACHE_DIR": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    @classmethod
    def make(cls, folder: Path) -> Clone:
        clone = cls(folder / "clone", folder / "wheels")
        ignore = shutil.ignore_patterns("__pycache__")
        for name in ("bootstrap", "plumbing", "sip"):
            shutil.copytree(ROOT / name, clone.root / name, ignore=ignore)
        shutil.copy(ROOT / "demo.py", clone.root)
        (clone.root / "stage").mkdir()
        for name in ("__init__.py", "options.py"):
            shutil.copy(ROOT / "stage" / name, clone.root / "stage")
        main = (ROOT / "stage" / "__main__.py").read_text(encoding="utf-8")
        options, _, _ = main.partition("def main(")  # those of the example itself
        (clone.root / "stage" / "__main__.py").write_text(
            options + 'if __name__ == "__main__":\n' + textwrap.indent(PROGRAM, "    ")
        )
        for module in ("softphone.py", "pytest.py"):
            (clone.root / module).write_text(PROGRAM)
        clone.require("failover_probe==1.0")
        for version in ("1.0", "2.0"):
            make_wheel(clone.wheels, "failover_probe", version)
        return clone

    def copy(self, folder: Path) -> Clone:
        """The same clone somewhere else, with its .venv."""
        shutil.copytree(self.root, folder / "clone", symlinks=True)
        return Clone(folder / "clone", self.wheels)

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    def require(self, *lines: str) -> None:
        (self.root / "requirements.txt").write_text("".join(line + "\n" for line in lines))

    def patch(self, code: str) -> None:
        """Run this code at the start of every interpreter: a computer that lacks something."""
        site = self.root.parent / "site"
        site.mkdir(exist_ok=True)
        (site / "sitecustomize.py").write_text(code)
        self.environ["PYTHONPATH"] = str(site)

    def command(self, name: str, script: str) -> Path:
        """Put a command before all others on the PATH; it first notes its arguments. The notes are
        returned."""
        folder = self.root.parent / "bin"
        folder.mkdir(exist_ok=True)
        notes = folder / f"{name}.notes"
        (folder / name).write_text(f'#!/bin/sh\necho "$@" >> "{notes}"\n{script}\n')
        (folder / name).chmod(0o755)
        self.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
        return notes

    def start(self, *arguments: str, **options: object) -> subprocess.Popen[str]:
        """Start demo.py without waiting for it; in a session of its own, like in a terminal of its
        own."""
        pipes = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        } | options
        return subprocess.Popen(
            [sys.executable, str(self.root / "demo.py"), *arguments],
            env=self.environ,
            text=True,
            start_new_session=True,
            **pipes,  # type: ignore[call-overload]
        )

    def run(self, *arguments: str, **options: object) -> Outcome:
        process = self.start(*arguments, **options)
        out, err = process.communicate(timeout=60)
        return Outcome(process.returncode, out, err)


class Outcome:
    """How a demo.py ended: status, what the program it became printed, and the sentences on
    stderr."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def started(self) -> dict[str, object]:
        seen: dict[str, object] = json.loads(self.out)
        return seen

    def assert_fault(self, *words: str) -> None:
        """It failed, with a sentence that has these words and no traceback."""
        assert self.status != 0
        assert "Traceback" not in self.err + self.out
        for word in words:
            assert word in self.err, self.err
