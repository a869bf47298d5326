"""Two forwarders of one file as processes, before two servers: what of them a test kills, freezes
and starts again."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from contextlib import suppress

from parties_kit import Scene
from process_kit import FORWARDER, Process, wait_until

PAGES = re.compile(r"^status page at (http://\S+)/$", re.MULTILINE)
SLOWLY = 5.0  # seconds after which a process that was asked to end is ended


class Twin(Process):
    """One `forwarder.py FILE`."""

    def __init__(self, file, name, environ=None):
        log = file.with_name(f"{name}.log")
        super().__init__(name, [*FORWARDER, str(file)], log, environ=environ)

    @property
    def page(self):
        return PAGES.search(self.said)[1]

    def read(self, path):
        with urllib.request.urlopen(self.page + path, timeout=5) as answer:
            return json.load(answer)

    @property
    def role(self):
        return self.read("/status")["role"]

    def end(self, number=signal.SIGKILL):
        """Returns the exit status."""
        if self.status is None:
            self.signal(number)
        return self.wait(SLOWLY)


class Twins(Scene):
    """`active` and `standby` are the two that run; `began`: when whom the test ends was told to,
    monotonic."""

    def __enter__(self):
        self.twins = []
        return super().__enter__()

    def __exit__(self, *what):
        for twin in self.twins:
            twin.end()
        super().__exit__(*what)

    def twin(self, environ=None):
        name = f"twin{len(self.twins)}"
        self.twins.append(Twin(self.folder / "servers.properties", name, environ))
        self.twins[-1].wait_until_ready()
        return self.twins[-1]

    def pair(self):
        """Both started; the first is active and both know that the servers live."""
        self.write()
        self.active, self.standby = self.twin(), self.twin()
        for twin in (self.active, self.standby):
            wait_until(lambda twin=twin: self.live(twin) == 2, note=lambda twin=twin: twin.said)

    @staticmethod
    def live(twin):
        return sum(server["state"] == "UP" for server in twin.read("/status")["servers"])

    def end_active(self, number=signal.SIGKILL):
        """The standby one has taken over when this returns."""
        self.active.end(number)
        self.active = self.standby
        wait_until(lambda: "active: " in self.active.said, note=lambda: self.active.said)

    def come_back(self):
        """Who was ended is started again, and stands by."""
        self.standby = self.twin()
        wait_until(lambda: self.live(self.standby) == 2, note=lambda: self.standby.said)


class Supervisor:
    """What systemd does for a Type=notify service with WatchdogSec= and Restart=always: kills by
    SIGABRT (and SIGCONT, for who is stopped hears nothing else) one that has been silent for too
    long, and starts another."""

    def __init__(self, twins, name, watchdog):
        self._twins, self._watchdog = twins, watchdog
        self.path = str(twins.folder / f"{name}.notify")
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(self.path)
        self._sock.settimeout(watchdog)
        self._over = False
        self.aborted, self.heard = [], []  # when; every datagram's lines
        self.twin = self._start()
        self._thread = threading.Thread(target=self._watch, name="supervisor")
        self._thread.start()

    def _start(self):
        usec = str(int(self._watchdog * 1e6))
        return self._twins.twin(
            {"NOTIFY_SOCKET": self.path, "WATCHDOG_USEC": usec, "PYTHONFAULTHANDLER": "1"}
        )

    def _watch(self):
        while not self._over:
            try:
                self.heard.append(self._sock.recv(4096).decode().split("\n"))
            except TimeoutError:
                if not self._over:
                    self._restart()

    def _restart(self):
        self.aborted.append(time.monotonic())
        self.twin.signal(signal.SIGABRT)
        self.twin.signal(signal.SIGCONT)
        with suppress(subprocess.TimeoutExpired):
            self.twin.wait(SLOWLY)
        self.twin.end()
        self._sock.settimeout(10.0)  # until it is ready
        self.twin = self._start()
        self._sock.settimeout(self._watchdog)

    def stop(self):
        self._over = True
        self._thread.join()
        self._sock.close()
