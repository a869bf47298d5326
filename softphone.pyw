"""Double-click to start the two phones, on Windows without a console window (elsewhere: python3 softphone.pyw).

If this folder is not set up yet, that is done first, in a console window where its progress is to be seen.
"""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def visibly(python):
    """Start the phones through demo.py, which sets up what is missing; on Windows in a console, kept if it fails."""
    command = [python, str(HERE / "demo.py"), "softphone"]
    if os.name != "nt":
        return subprocess.call(command, cwd=HERE)
    # cmd takes off the outermost quotes of what follows /c, and only those.
    line = f'cmd /c "{subprocess.list2cmdline(command)} || pause"'
    return subprocess.call(line, cwd=HERE, creationflags=subprocess.CREATE_NEW_CONSOLE)


def main():
    """Start the phones: at once if everything is there, visibly if it has to be set up."""
    from bootstrap.environment import venv_fits, venv_python

    if os.name == "nt" and venv_fits(HERE):
        subprocess.Popen([str(venv_python(HERE).with_name("pythonw.exe")), "-m", "softphone"], cwd=HERE)
        return 0
    return visibly(sys.executable.replace("pythonw.exe", "python.exe"))


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    # bootstrap needs the newer Python that demo.py asks for; an older one is told so by demo.py, visibly.
    sys.exit(main() if sys.version_info >= (3, 10) else visibly(sys.executable.replace("pythonw.exe", "python.exe")))
