"""A computer with loopback and nothing else, on which routes may come and go: a network namespace
of the test's own."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys

import pytest

CLONE_NEWNET = 0x40000000


@contextlib.contextmanager
def lonely():
    """The sockets of this thread, and of threads and processes that it starts meanwhile, are on
    that computer. Skips the test where there can be no such namespace."""
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("needs Linux, root and iproute2, for a network namespace")
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as home:
        if libc.unshare(CLONE_NEWNET):
            pytest.skip(f"no network namespaces here: {os.strerror(ctypes.get_errno())}")
        try:
            ip("link", "set", "lo", "up")
            yield
        finally:
            if libc.setns(home.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")


def ip(*words):
    subprocess.run(["ip", *words], check=True, timeout=10)
