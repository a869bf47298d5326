#!/bin/sh
# Double-click to start the two phones, on macOS. The Terminal window shows the set-up, which the first start needs.
cd "$(dirname "$0")" || exit 1
# Apple's own python3 may be too old: take a newer one if there is any.
for python in python3.14 python3.13 python3.12 python3.11 python3.10 python3; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; then
        exec "$python" demo.py softphone
    fi
done
echo "Call Failover needs Python 3.10 or newer: install it from https://www.python.org/downloads/ and start this again."
exit 1
