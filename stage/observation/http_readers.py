"""Threads that read the forwarder's event stream and the servers' pages over HTTP.

Each reader hands plain objects to a function given to it, on its own thread; the window's bridge
carries them on.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

PATIENCE = 2.0  # s, for a page of this computer
RETRY = 0.2  # s, before asking again a forwarder that does not listen


def parse_events(lines: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The (event, object) pairs of a text/event-stream; comments and broken objects are passed
    over."""
    name, data = "message", ""
    for line in lines:
        line = line.rstrip("\r\n")
        if not line:
            if data:
                with contextlib.suppress(ValueError):
                    value = json.loads(data)
                    if isinstance(value, dict):
                        yield name, value
            name, data = "message", ""
        elif line.startswith("event:"):
            name = line[6:].strip()
        elif line.startswith("data:"):
            data += line[5:].strip()


def read_page(url: str) -> dict[str, Any] | None:
    """The JSON object at `url`; None if nobody answers with one."""
    value = read_json(url)
    return value if isinstance(value, dict) else None


def read_json(url: str) -> object:
    connection = _connection(url)
    try:
        connection.request("GET", urlsplit(url).path)
        response = connection.getresponse()
        return json.loads(response.read()) if response.status == 200 else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def _connection(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE)


class Events:
    """Thread `events`: reads the forwarder's /events for as long as it is wanted, connecting again
    when it breaks."""

    def __init__(self, admin: str, on_event: Callable[[str, dict[str, Any]], None]) -> None:
        self._admin = admin
        self._on_event = on_event
        self._stopped = threading.Event()
        self._sock: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float = 3.0) -> None:
        """Twice is fine."""
        self._stopped.set()
        sock = self._sock
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # wakes the read; close alone would not
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                self._read()
            self._stopped.wait(RETRY)

    def _read(self) -> None:
        connection = _connection(self._admin)
        try:
            connection.connect()
            self._sock = connection.sock
            connection.request("GET", "/events?text=1")
            response = connection.getresponse()
            if response.status != 200 or self._stopped.is_set():
                return
            self._sock.settimeout(None)  # a quiet forwarder is not a dead one; `stop` ends the wait
            for name, value in parse_events(line.decode("utf-8", "replace") for line in response):
                self._on_event(name, value)
        finally:
            self._sock = None
            connection.close()


class Pages:
    """Threads `pages`, one for each of `urls`: reads it every `interval` seconds, or now after
    `look()`; None for a page nobody serves. A frozen server delays its own page alone."""

    def __init__(
        self,
        urls: Iterable[str],
        on_page: Callable[[str, dict[str, Any] | None], None],
        interval: float = 0.5,
    ) -> None:
        self._on_page = on_page
        self._interval = interval
        self._stopped = threading.Event()
        self._wakes = {url: threading.Event() for url in urls}
        self._threads = [
            threading.Thread(target=self._run, args=work, name="pages", daemon=True)
            for work in self._wakes.items()
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def look(self) -> None:
        """Any thread: read again now."""
        for wake in self._wakes.values():
            wake.set()

    def stop(self, timeout: float = PATIENCE + 0.5) -> None:
        """Twice is fine."""
        self._stopped.set()
        self.look()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout)

    def _run(self, url: str, wake: threading.Event) -> None:
        while not self._stopped.is_set():
            wake.clear()
            self._on_page(url, read_page(url))
            wake.wait(self._interval)
