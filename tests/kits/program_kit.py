"""Real server processes, and the one socket that a test plays the forwarder and both phones
with."""

from __future__ import annotations

import json
import signal
import socket
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from process_kit import RunningProgram, server_argv

from plumbing.address import Address, format_address, parse_address
from sip.message import parse
from slee_mock.server import Server
from slee_mock.settings import Settings
from slee_mock.store.interface import Transaction
from slee_mock.store.sqlite_store import SqliteStore

HELLO = 20.0  # seconds a process may take to start on a busy computer


def status_page(server: Server) -> dict[str, Any]:
    """The page /status of a server in this process, whether or not it has pages."""
    return server._queries.status()


def address_of(server: Server) -> Address:
    return parse_address(status_page(server)["address"])


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
        listen, management = f"127.0.0.1:{port}", f"127.0.0.1:{page}"
        self.argv = server_argv(name, listen, forwarder, store, management, *options)
        self.process = None

    def start(self):
        self.close()
        self.log = Path(tempfile.mkstemp(".log", self.name)[1])
        self._running = RunningProgram(self.argv, self.log)
        self.process = self._running.process
        return self

    def read(self, path):
        with urllib.request.urlopen(self.page + path, timeout=HELLO) as answer:
            return json.load(answer)

    def end(self, number):
        """Sends the signal and returns the exit status and what went to stderr."""
        return self._running.stop(number), self.log.read_text()

    def close(self):
        if self.process:
            self._running.stop(signal.SIGKILL)
            self.log.unlink(missing_ok=True)


class Site:
    """A server in this process, its page, and the socket that it takes for the forwarder."""

    def __init__(self, tmp_path, free_port):
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.settimeout(5.0)
        self.listen = ("127.0.0.1", free_port())
        self.management = ("127.0.0.1", free_port())
        self.root = f"http://{format_address(self.management)}"
        self.store = str(tmp_path / "cluster.db")
        self.server = Server(
            Settings("server1", self.listen, self.sock.getsockname(), self.store, self.management)
        )

    def ask(self, data):
        self.sock.sendto(data if isinstance(data, bytes) else data.to_bytes(), self.listen)
        return parse(self.sock.recv(65_535))

    def get(self, path):
        with urllib.request.urlopen(self.root + path, timeout=5) as answer:
            return answer.headers, answer.read().decode()

    def refused(self, path):
        with pytest.raises(urllib.error.HTTPError) as told:
            self.get(path)
        with told.value as answer:
            assert answer.code == 503
            return answer.read().decode()

    def json(self, path):
        return json.loads(self.get(path)[1])

    def keep(self, *records):
        store = SqliteStore(self.store)
        Transaction(store).commit(records)
        store.close()
