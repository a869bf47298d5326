"""The programs of the example: a forwarder or two, and two servers; their store and settings in a
folder of their own.

Everything is on loopback unless it is said where else the forwarder listens. `start`, `restart` and
`stop` wait and so belong on a worker thread.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from plumbing.address import Address, format_address
from plumbing.file_permissions import OWNER_ONLY
from stage.observation.http_readers import read_page
from stage.processes.program import CleanupProcess, Program, StartError

ROOT = Path(__file__).resolve().parents[2]  # the programs are started from here
HOST = "127.0.0.1"
DOMAIN = "failover.test"  # RFC 6761: a name that nobody else can own
SERVERS = ("server1", "server2")
PAIR = ("forwarder1", "forwarder2")
FOLDER = "call-failover-"  # then the demo's process ID, and letters


@dataclass(frozen=True)
class Ports:
    """Of 127.0.0.1. The defaults are the document's 5060 and its neighbours."""

    forwarder: int = 5060
    servers: tuple[int, int] = (5070, 5080)
    management: tuple[int, int] = (8071, 8072)
    admin: int = 8060
    twin_admin: int = 8061  # of the second forwarder, if there is one

    @classmethod
    def free(cls) -> Ports:
        """Ports that nobody uses at this moment, for several demos on one computer."""
        with contextlib.ExitStack() as held:

            def port(kind: socket.SocketKind) -> int:
                sock = held.enter_context(socket.socket(socket.AF_INET, kind))
                sock.bind((HOST, 0))
                number: int = sock.getsockname()[1]
                return number

            udp = [port(socket.SOCK_DGRAM) for _ in range(3)]
            tcp = [port(socket.SOCK_STREAM) for _ in range(4)]
        return cls(udp[0], (udp[1], udp[2]), (tcp[0], tcp[1]), tcp[2], tcp[3])

    def taken(self) -> bool:
        """Does another program use one of them at this moment, on any address of this computer?"""
        kinds = {
            socket.SOCK_DGRAM: (self.forwarder, *self.servers),
            socket.SOCK_STREAM: (*self.management, self.admin, self.twin_admin),
        }
        for kind, numbers in kinds.items():
            for port in numbers:
                with socket.socket(socket.AF_INET, kind) as sock:
                    if kind == socket.SOCK_STREAM:  # a connection of ours that has ended is no user
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    try:
                        sock.bind(("", port))
                    except OSError:
                        return True
        return False


def port_in_use(sentence: str, temporary: Path | None = None) -> str:
    """A program's complaint that a port is in use, with the demo's remedy. The settings file that
    the program names is a temporary one of ours. `temporary`: the folder of the demos' folders."""
    remedy = "end it, or add --free-ports."
    temporary = temporary or Path(tempfile.gettempdir())
    for settings in temporary.glob(f"{FOLDER}*/*.properties"):
        demo = re.match(rf"{FOLDER}([0-9]+)-", settings.parent.name)
        with contextlib.suppress(OSError):  # it ends at this moment
            usual = f":{Ports.forwarder}\n" in settings.read_text(encoding="utf-8")
            if demo and usual and int(demo[1]) != os.getpid():
                return f"Another demo is running (pid {demo[1]}): {remedy}"
    return f"{sentence.partition('; ')[0].rstrip('.')}: {remedy}"


SETTINGS = """\
# Written by the demo. Every setting is explained in servers.properties beside forwarder.py.
{servers}
forwarder.listen={forwarder}
forwarder.standby={standby}
admin.listen={admin}
admin.links={links}
"""


class Cluster:
    """`users` maps names to passwords; empty: the servers ask nobody. `on_end(name, status)`: a
    program is gone. `more`: further arguments of both servers; where one is said twice the last
    counts. `pair`: two forwarders on one address instead of one. `servers`: how many of the two are
    started and known to the forwarder. `host`: where the phones reach the forwarder; everything
    else is on loopback."""

    def __init__(
        self,
        ports: Ports | None = None,
        users: Mapping[str, str] | None = None,
        on_end: Callable[[str, int], None] | None = None,
        more: Sequence[str] = (),
        pair: bool = False,
        servers: int = len(SERVERS),
        host: str = HOST,
    ) -> None:
        self._more = more
        self.ports = ports or Ports()
        self._on_end = on_end
        self._aborted = False
        self.forwarder: Address = (host, self.ports.forwarder)
        admins = zip(
            PAIR if pair else ("forwarder",),
            (self.ports.admin, self.ports.twin_admin),
            strict=False,
        )
        self.admins = {name: f"http://{HOST}:{port}" for name, port in admins}
        self.management = {
            name: f"http://{HOST}:{port}"
            for name, port in zip(SERVERS, self.ports.management, strict=True)
        }
        self.addresses: dict[str, Address] = {
            name: (HOST, port) for name, port in zip(SERVERS, self.ports.servers, strict=True)
        }
        self.running = (*self.admins, *SERVERS[:servers])  # the programs that are to be started
        self.folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-"))
        self._cleanup = CleanupProcess()
        self._cleanup.folder(self.folder)
        self.programs = {
            name: self._program(name, ["forwarder.py", str(self._write_settings(name))])
            for name in self.admins
        }
        users_file = self._write_users(users or {})
        for name in SERVERS:
            self.programs[name] = self._program(name, self._server_arguments(name, users_file))
        self._argv = {name: program.argv for name, program in self.programs.items()}

    def start(self, timeout: float = 15.0) -> None:
        """Start all of them; StartError with a sentence if one does not get ready within `timeout`
        seconds."""
        for name in self.admins:  # first and one by one: theirs is the port that people have in use
            self.programs[name].start(timeout)
            status = read_page(f"{self.admins[name]}/status") if name == PAIR[0] else None
            if status and status.get("role") == "standby":
                address = format_address(self.forwarder)
                raise StartError(f"{address} is in use by another forwarder, perhaps a demo's.")
        servers = [name for name in SERVERS if name in self.running]
        for name in servers:
            if self._aborted:
                raise StartError("The demonstration was ended while it started.")
            self.programs[name].launch()
        for name in servers:
            self.programs[name].wait_ready(timeout)

    def abort_start(self) -> None:
        """Any thread: the end is near, a `start` that is under way should give up."""
        self._aborted = True
        if not all(self.programs[name].ready_line for name in self.running):
            for program in self.programs.values():
                program.ask_to_stop()

    def restart(self, name: str, timeout: float = 15.0, *, zombie: bool = False) -> None:
        """Start a program that is gone again as it was, or a `zombie` server in its place, which
        answers heartbeats and nothing else; does nothing if it lives."""
        program = self.programs[name]
        if not program.alive:
            address = format_address(self.addresses.get(name, self.forwarder))
            module = "stage.processes.zombie_server"
            program.argv = self._argv[name]
            if zombie:
                program.argv = [sys.executable, "-m", module, address]
            program.start(timeout)

    def stop(self) -> None:
        """End every program and remove the folder. Twice is fine."""
        for program in self.programs.values():
            program.ask_to_stop()
        for program in self.programs.values():
            program.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._cleanup.close()

    def _program(self, name: str, arguments: list[str]) -> Program:
        argv = [sys.executable, *arguments]
        return Program(name, argv, folder=ROOT, cleanup=self._cleanup, on_end=self._on_end)

    def _server_arguments(self, name: str, users_file: Path | None) -> list[str]:
        arguments = [
            "-m",
            "slee_mock",
            "--name",
            name,
            "--listen",
            format_address(self.addresses[name]),
            "--forwarder",
            format_address(self.forwarder),
            "--store",
            str(self.folder / "store.db"),
            "--management",
            self.management[name].removeprefix("http://"),
            "--forwarder-page",
            f"{next(iter(self.admins.values()))}/",
            "--server-header",
        ]
        return [*arguments, *self._more, *(["--users", str(users_file)] if users_file else [])]

    def _write_settings(self, name: str) -> Path:
        """A pair has two files for the sake of its pages alone, each at a known port; the secret
        beside them is one."""
        path = self.folder / f"{name}.properties"
        path.write_text(
            SETTINGS.format(
                forwarder=format_address(self.forwarder),
                admin=self.admins[name].removeprefix("http://"),
                standby="yes" if len(self.admins) > 1 else "no",
                links=", ".join(f"{each} {page}" for each, page in self.management.items()),
                servers="\n".join(
                    f"{server}={format_address(address)}"
                    for server, address in self.addresses.items()
                    if server in self.running
                ),
            ),
            encoding="utf-8",
        )
        return path

    def _write_users(self, users: Mapping[str, str]) -> Path | None:
        if not users:
            return None
        path = self.folder / "users"
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, OWNER_ONLY)
        with open(handle, "w", encoding="utf-8") as file:
            file.write("".join(f"{name}:{password}\n" for name, password in users.items()))
        return path
