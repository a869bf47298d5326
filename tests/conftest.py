"""Fixtures every test may use, and the rule that no test leaves a thread behind."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import process_kit
import pytest
from PySide6.QtCore import QCoreApplication, QEvent
from second_process import pytest_runtestloop

__all__ = ["pytest_runtestloop"]  # a hook of pytest's
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
# SIGTERM ends the tests as Ctrl-C does, so that their programs are ended, too.
signal.signal(signal.SIGTERM, signal.default_int_handler)
# files with passwords and stores are their owner's alone, or the servers refuse them
os.umask(0o077)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fuzz-seconds",
        type=float,
        default=1.5,
        help="how long each of the forwarder's fuzz tests runs",
    )
    parser.addoption("--fuzz-seed", type=int, default=1, help="which dice they throw")
    parser.addoption(
        "--processes", type=int, choices=(1, 2), default=1, help="how many run the tests"
    )


@pytest.fixture
def free_port() -> Callable[[], int]:
    """free_port() -> a port of 127.0.0.1 that neither UDP nor TCP uses."""
    return process_kit.free_port


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """eventually(condition, timeout=10.0) -> the first true value of condition(); fails the test
    after the timeout."""
    return process_kit.wait_until


@pytest.fixture(autouse=True)
def no_widget_stays(request: pytest.FixtureRequest) -> Iterator[None]:
    """pytest-qt asks Qt to delete a test's windows, which Qt does in an event loop only. Those that
    stay are styled with each one that is made, and make every later test slower."""
    yield
    if "qtbot" in request.fixturenames:
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 2.0
    while True:
        left = [t for t in threading.enumerate() if t not in before and t.is_alive()]
        # A thread that Qt made shows as a dummy for as long as Qt keeps it.
        left = [t for t in left if not isinstance(t, threading._DummyThread)]
        if not left:
            return
        if time.monotonic() > deadline:
            pytest.fail(f"threads outlive the test: {', '.join(t.name for t in left)}")
        time.sleep(0.01)
