#!/usr/bin/env python3
"""Start here: `python3 demo.py` sets up what the example needs, beside this file, and shows it.

`python3 demo.py play` plays it by itself, `python3 demo.py test` runs the tests, `--help` tells the
rest. This file parses on every Python, so that an old one can say which one is needed; the work is
done in bootstrap/.
"""

import sys

if __name__ == "__main__":
    if sys.version_info < (3, 10):
        sys.exit(
            "Call Failover needs Python 3.10 or newer; this is Python %s (%s). Start demo.py with "
            "a newer one: python3.13 demo.py, for example, or https://www.python.org/downloads/"
            % (sys.version.split()[0], sys.executable)
        )
    try:
        from bootstrap.launcher import main

        status = main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.stderr.write("Stopped.\n")
        status = 130
    sys.exit(status)
