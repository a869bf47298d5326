#!/usr/bin/env python3
"""Start here: `python3 demo.py` sets up what the example needs, beside this file, and shows it.

`python3 demo.py play` plays it by itself, `python3 demo.py test` runs the tests, `--help` tells the
rest. This file parses on every Python, so that an old one can say which one is needed; the work is
done in bootstrap/.
"""

import os
import subprocess
import sys

OLDEST = (3, 10)


def newer_python():
    """The name of a Python on the PATH that is new enough, or None."""
    with open(os.devnull, "w") as nowhere:
        for minor in range(19, OLDEST[1] - 1, -1):
            name = "python3.%d" % minor
            try:
                if subprocess.call([name, "-c", ""], stdout=nowhere, stderr=nowhere) == 0:
                    return name
            except OSError:
                pass  # no such command
    return None


def too_old():
    """What to tell somebody whose Python is too old."""
    other = newer_python()
    remedy = (
        "Start it with the newer one that is here: %s demo.py" % other
        if other
        else "Install a newer one (https://www.python.org/downloads/) and start demo.py with that"
    )
    return "Call Failover needs Python %d.%d or newer; this is Python %s (%s). %s." % (
        OLDEST[0],
        OLDEST[1],
        sys.version.split()[0],
        sys.executable,
        remedy,
    )


if __name__ == "__main__":
    if sys.version_info < OLDEST:
        sys.exit(too_old())
    from bootstrap.command import main

    sys.exit(main(sys.argv[1:]))
