"""Real server processes, and the one socket that a test plays the forwarder and both phones
with."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import urllib.request

import pytest

from sip.message import parse

HELLO = 20.0  # seconds a process may take to start on a busy computer


class Forwarder:
    """The one socket that servers send to."""

    def __init__(self, port: int) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", port))
        self.sock.settimeout(5.0)
        self.address = f"127.0.0.1:{port}"

    def send(self, message, server):
        self.sock.sendto(message.to_bytes(), ("127.0.0.1", server.port))

    def ask(self, message, server):
        """Sends and returns what comes of it."""
        self.send(message, server)
        return parse(self.sock.recv(65_535))


class Program:
    def __init__(self, name, store, forwarder, port, page, *options):
        self.name, self.port = name, port
        self.page = f"http://127.0.0.1:{page}"
        # only a Redis needs more than the standard library
        bare = [] if "://" in str(store) else ["-S"]
        self.argv = [
            sys.executable,
            *bare,
            "-m",
            "slee_mock",
            "--name",
            name,
            "--listen",
            f"127.0.0.1:{port}",
            "--forwarder",
            forwarder,
            "--store",
            str(store),
            "--management",
            f"127.0.0.1:{page}",
            *options,
        ]
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            self.argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if line.startswith("ready: "):
                return self
        pytest.fail(f"{self.name} did not start: {lines} {self.process.communicate()[1]}")

    def read(self, path):
        with urllib.request.urlopen(self.page + path, timeout=HELLO) as answer:
            return json.load(answer)

    def end(self, number):
        """Sends the signal and returns the exit status and what went to stderr."""
        self.process.send_signal(number)
        return self.process.wait(HELLO), self.process.stderr.read()

    def close(self):
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            self.process.wait(HELLO)
            self.process.stdout.close()
            self.process.stderr.close()
