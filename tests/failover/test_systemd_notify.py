"""What systemd hears over a real datagram socket: ready, reloading, stopping, and alive for as long
as that is true."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from forwarder_kit import fake_servers

from failover.admin.systemd_notify import Notifier
from failover.config.settings import read
from failover.forwarder import Forwarder

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(
    not hasattr(socket, "AF_UNIX") or sys.platform == "win32",
    reason="systemd's protocol needs AF_UNIX datagrams",
)


class Systemd:
    """The receiving end; `heard` has every datagram's lines."""

    def __init__(self, name):
        self.name = name
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind("\0" + name[1:] if name.startswith("@") else name)
        self.sock.settimeout(5.0)
        self.heard = []

    def environment(self, **more):
        return {"NOTIFY_SOCKET": self.name, **more}

    def next(self):
        self.heard.append(self.sock.recv(4096).decode().split("\n"))
        return self.heard[-1]

    def until(self, line):
        """The lines of the next datagram that has this one."""
        for _ in range(200):
            if line in self.next():
                return self.heard[-1]
        raise AssertionError(f"{line} was not among {self.heard[-200:]}")

    def drain(self):
        """What has come and was not read yet."""
        lines = []
        self.sock.setblocking(False)
        try:
            while True:
                lines += self.next()
        except BlockingIOError:
            return lines
        finally:
            self.sock.settimeout(5.0)


@pytest.fixture
def systemd(tmp_path):
    listening = Systemd(str(tmp_path / "notify"))
    yield listening
    listening.sock.close()


def test_every_word_is_spelled_as_sd_notify_has_it(systemd):
    notifier = Notifier(systemd.environment())
    notifier.ready()
    assert systemd.next() == ["READY=1"]
    before = time.monotonic_ns() // 1000
    notifier.reloading()
    word, moment = systemd.next()
    assert word == "RELOADING=1"
    assert (
        before
        <= int(re.fullmatch(r"MONOTONIC_USEC=(\d+)", moment)[1])
        <= time.monotonic_ns() // 1000
    )
    notifier.stopping()
    assert systemd.next() == ["STOPPING=1", "STATUS=stopping"]
    notifier.close()
    notifier.ready()
    assert systemd.drain() == [], "nothing after the end"


def test_a_status_is_told_when_it_is_new_and_the_watchdog_every_time(systemd):
    quiet = Notifier(systemd.environment())
    quiet.beat("server1 is hot")
    quiet.beat("server1 is hot")
    assert systemd.drain() == ["STATUS=server1 is hot"], "no watchdog was asked for"
    watched = Notifier(systemd.environment(WATCHDOG_USEC="3000000", WATCHDOG_PID=str(os.getpid())))
    assert (watched.watchdog, watched.interval) == (3.0, 1.0)
    watched.beat("a")
    watched.beat("a")
    watched.beat("b")
    assert systemd.drain() == ["WATCHDOG=1", "STATUS=a", "WATCHDOG=1", "WATCHDOG=1", "STATUS=b"]
    quiet.close()
    watched.close()


def test_an_abstract_address_is_understood():
    name = f"@call-failover-test-{os.getpid()}"
    if sys.platform != "linux":
        pytest.skip("abstract addresses are Linux's")
    listening, notifier = Systemd(name), Notifier({"NOTIFY_SOCKET": name})
    notifier.ready()
    assert listening.next() == ["READY=1"]
    notifier.close()
    listening.sock.close()


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": "vsock:2:1234"},
        {"NOTIFY_SOCKET": "/nowhere/at/all", "WATCHDOG_USEC": "1000000"},
    ],
)
def test_where_nobody_listens_nothing_happens(environment):
    notifier = Notifier(environment)
    notifier.ready()
    notifier.beat("x")
    notifier.stopping()
    notifier.close()
    notifier.close()


@pytest.mark.parametrize(
    "microseconds, watchdog",
    [("", None), ("0", None), ("soon", None), ("-5", None), ("500000", 0.5)],
)
def test_the_watchdog_s_time(microseconds, watchdog):
    assert Notifier({"WATCHDOG_USEC": microseconds}).watchdog == watchdog
    assert Notifier({"WATCHDOG_USEC": microseconds, "WATCHDOG_PID": "1"}).watchdog is None, (
        "another process is meant"
    )


def test_a_full_socket_is_not_waited_for(systemd):
    notifier = Notifier(systemd.environment(WATCHDOG_USEC="1000000"))
    began = time.monotonic()
    for n in range(2_000):
        notifier.beat(str(n))
    assert time.monotonic() - began < 5.0
    notifier.close()


def test_the_watchdog_stops_when_the_sip_thread_hangs_and_goes_on_when_it_gets_on(
    systemd, free_port, eventually
):
    with fake_servers(free_port, 1) as servers:
        where = f"server1=127.0.0.1:{servers[0].address[1]}"
        forwarder = Forwarder(read(f"{where}\nforwarder.listen=127.0.0.1:{free_port()}", "test"))
        notifier = Notifier(systemd.environment(WATCHDOG_USEC="90000"))
        forwarder.start()
        forwarder.every(notifier.interval, lambda: notifier.beat(forwarder.summary()))
        hang, hung = threading.Event(), threading.Event()
        try:
            eventually(lambda: "STATUS=server1 is hot; 1 of 1 live" in systemd.next())
            forwarder._loop.post(lambda: (hung.set(), hang.wait(10.0)))
            hung.wait()
            systemd.drain()
            systemd.sock.settimeout(5 * notifier.interval)
            with pytest.raises(TimeoutError):
                systemd.next()
            hang.set()
            systemd.sock.settimeout(5.0)
            systemd.until("WATCHDOG=1")
        finally:
            hang.set()
            forwarder.stop()
            notifier.close()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_the_program_from_start_to_stop_as_systemd_sees_it(systemd, tmp_path, free_port):
    file = tmp_path / "servers.properties"
    file.write_text(
        f"server1=127.0.0.1:{free_port()}\nforwarder.listen=127.0.0.1:{free_port()}\nadmin.listen=\n"
    )
    environment = {**os.environ, **systemd.environment(WATCHDOG_USEC="300000")}
    command = [sys.executable, "-S", str(ROOT / "forwarder.py"), str(file)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            told = set()
            while (
                not {"READY=1", "STATUS=NO SERVER TAKES NEW CALLS; 0 of 1 live", "WATCHDOG=1"}
                <= told
            ):
                told.update(systemd.next())
            file.write_text("nonsense.key=1")
            process.send_signal(signal.SIGHUP)
            assert systemd.until("RELOADING=1")[1].startswith("MONOTONIC_USEC=")
            systemd.until("READY=1")
            process.terminate()
            systemd.until("STOPPING=1")
            assert process.wait(5) == 0
        finally:
            process.kill()
