"""Measures how long an address is silent: sends OPTIONS every few ms until one is answered."""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Callable

from plumbing.address import Address, format_address
from sip.errors import RemoteProtocolError
from sip.message import Request, Response, parse
from sip.via import MAGIC_COOKIE

BETWEEN = 0.005  # s
PATIENCE = 15.0  # s: then nobody is coming


class OutageMeter:
    """Threads `ping`, one for each `ping()`. `on_answer(at, began)`, in monotonic seconds, is
    called on them."""

    def __init__(
        self, address: Address, domain: str, on_answer: Callable[[float, float], None]
    ) -> None:
        self._address, self._domain, self._on_answer = address, domain, on_answer
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []

    def ping(self) -> None:
        """Any thread; returns at once."""
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        if not self._stopped.is_set():
            self._threads.append(threading.Thread(target=self._run, name="ping", daemon=True))
            self._threads[-1].start()

    def stop(self, timeout: float = 1.0) -> None:
        """Twice is fine."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(timeout)

    def _run(self) -> None:
        began = time.monotonic()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(self._address)  # so that a closed port is told at once
            sock.settimeout(BETWEEN)
            while not self._stopped.is_set() and time.monotonic() < began + PATIENCE:
                if self._answers(sock):
                    self._on_answer(time.monotonic(), began)
                    return

    def _answers(self, sock: socket.socket) -> bool:
        """Ask once. An answer that comes later than BETWEEN is that of the next question."""
        try:
            sock.send(self._options(format_address(sock.getsockname())))
            answer = parse(sock.recv(65535))
            return isinstance(answer, Response) and 200 <= answer.status < 300
        except TimeoutError:
            return False
        except (OSError, RemoteProtocolError):
            self._stopped.wait(BETWEEN)
            return False

    def _options(self, own: str) -> bytes:
        """RFC 3261 11.1, from nobody: whoever serves the address answers it, or has a server do
        so."""
        token = secrets.token_hex(8)
        return Request(
            "OPTIONS",
            f"sip:{self._domain}",
            [
                ("Via", f"SIP/2.0/UDP {own};branch={MAGIC_COOKIE}{token}"),
                ("Max-Forwards", "70"),
                ("From", f"<sip:ping@{self._domain}>;tag={token}"),
                ("To", f"<sip:{self._domain}>"),
                ("Call-ID", token),
                ("CSeq", "1 OPTIONS"),
            ],
        ).to_bytes()
