"""Redis servers and Sentinels of the tests' own: real processes on free ports, in a private folder,
on loopback."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from urllib.parse import quote

import pytest
from process_kit import wait_until

HELLO = 20.0  # seconds a process may take to start on a busy computer
LACKING = next(
    (
        reason
        for is_there, reason in (
            (
                importlib.util.find_spec("redis"),
                "Python's redis is not here (pip install -r requirements-redis.txt)",
            ),
            (shutil.which("redis-server"), "redis-server is not here (apt install redis-server)"),
            (
                shutil.which("redis-sentinel"),
                "redis-sentinel is not here (apt install redis-sentinel)",
            ),
        )
        if not is_there
    ),
    "",
)
needs_redis = pytest.mark.skipif(bool(LACKING), reason=LACKING)


class RedisProgram:
    """One redis-server or, with `sentinel`, one Sentinel. `lines` are those of its configuration
    file."""

    def __init__(
        self, folder: Path, port: int, *lines: str, sentinel: bool = False, password: str = ""
    ) -> None:
        self.port, self.sentinel, self.password = port, sentinel, password
        secret = [f'requirepass "{password}"', f'masterauth "{password}"'] if password else []
        self.url = f"redis://127.0.0.1:{port}/0"
        self._folder = folder / str(port)
        self._folder.mkdir(parents=True)
        self._file = self._folder / "redis.conf"
        common = [f"port {port}", "bind 127.0.0.1", f"dir {self._folder}", "daemonize no"]
        unsaved = [] if sentinel else ['save ""', "appendonly no", "repl-diskless-sync-delay 0"]
        self._file.write_text("\n".join([*common, *unsaved, *secret, *lines]) + "\n")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> RedisProgram:
        self.kill()  # a dead one is started anew
        program = "redis-sentinel" if self.sentinel else "redis-server"
        with open(self._folder / "log", "ab") as log:
            self.process = subprocess.Popen([program, str(self._file)], stdout=log, stderr=log)
        log = self._folder / "log"
        wait_until(lambda: self.says("PING").startswith(("+PONG", "-NOAUTH")), HELLO, log.read_text)
        return self

    def says(self, *words: str) -> str:
        """The raw answer to one command (RESP), as much as comes at once; "" if nobody answers."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=HELLO) as sock:
                if self.password:
                    sock.sendall(_command("AUTH", self.password))
                    sock.recv(65_536)
                sock.sendall(_command(*words))
                return sock.recv(65_536).decode(errors="replace")
        except OSError:
            return ""

    @property
    def replicas(self) -> int:
        """How many are connected and have confirmed anything."""
        return len(re.findall("state=online,offset=[1-9]", self.says("INFO", "replication")))

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            self.process.wait(HELLO)

    def stop(self) -> None:
        if self.process:
            self.signal(signal.SIGCONT)  # a frozen one cannot hear anything else
        self.kill()


def _command(*words: str) -> bytes:
    return b"".join(
        [b"*%d\r\n" % len(words), *(b"$%d\r\n%s\r\n" % (len(w), w) for w in map(str.encode, words))]
    )


class SentinelCluster:
    """A master, two replicas, three Sentinels that agree by two within `down_after` milliseconds:
    as docs/store.txt says, for sooner they depose masters that are merely slow."""

    NAME = "mymaster"

    def __init__(
        self, folder: Path, ports: list[int], down_after: int = 1000, password: str = ""
    ) -> None:
        strict = ["min-replicas-to-write 1", "repl-timeout 5"]
        master, *replicas = ports[:3]
        self.servers = [RedisProgram(folder, master, *strict, password=password)]
        self.servers += [
            RedisProgram(folder, port, f"replicaof 127.0.0.1 {master}", *strict, password=password)
            for port in replicas
        ]
        lines = [
            f"sentinel monitor {self.NAME} 127.0.0.1 {master} 2",
            f"sentinel down-after-milliseconds {self.NAME} {down_after}",
            f"sentinel failover-timeout {self.NAME} 5000",
            *([f'sentinel auth-pass {self.NAME} "{password}"'] if password else []),
        ]
        self.sentinels = [RedisProgram(folder, port, *lines, sentinel=True) for port in ports[3:6]]
        credentials = f":{quote(password)}@" if password else ""
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)
        self.url = f"redis+sentinel://{credentials}{hosts}/{self.NAME}"

    def start(self) -> SentinelCluster:
        for each in (*self.servers, *self.sentinels):
            each.start()
        wait_until(
            lambda: self.servers[0].replicas >= 2 and all(map(self._knows_all, self.sentinels)),
            HELLO,
            lambda: [each.says("SENTINEL", "MASTERS") for each in self.sentinels],
        )
        return self

    @property
    def master(self) -> RedisProgram:
        """Whom the first Sentinel takes for the master now."""
        told = self.sentinels[0].says("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.NAME)
        return next(each for each in self.servers if f"\r\n{each.port}\r\n" in told)

    def stop(self) -> None:
        for each in (*self.sentinels, *self.servers):
            each.stop()

    def _knows_all(self, sentinel: RedisProgram) -> bool:
        words = sentinel.says("SENTINEL", "MASTER", self.NAME).split("\r\n")
        facts = dict(zip(words[2::4], words[4::4], strict=False))
        wanted = {"flags": "master", "num-slaves": "2", "num-other-sentinels": "2"}
        return all(facts.get(name) == value for name, value in wanted.items())
