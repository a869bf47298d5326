"""Forwards SIP over UDP to the first living server of a list, and moves on when that one dies.

    python forwarder.py [servers.properties] [--check] [--probe HOST:PORT] [--version] [--help] [-v]

Needs nothing but Python's standard library. What it does is in failover/; servers.properties
explains the settings. `python3 demo.py pack` makes one file of it, forwarder.pyz, which reads the
servers.properties beside itself.
"""

import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while the modules load needs no traceback
    from failover.cli import main

    sys.exit(main(sys.argv[1:], Path(sys.argv[0]).resolve().parent / "servers.properties"))
