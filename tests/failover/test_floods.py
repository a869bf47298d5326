"""Floods and other strangers on real sockets: who gets through, what is remembered, and that no
name is looked up."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from contextlib import contextmanager

import pytest
from forwarder_kit import (
    answer,
    ask,
    config,
    fake_servers,
    field,
    head,
    plain_phone,
    request,
    running,
)
from process_kit import FORWARDER, ROOT, RunningProgram

from plumbing.address import format_address

MALLORY = "127.0.0.66"


FLOODER = """
import socket, sys, time
host, port, rate = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind((host, 0))
data = sys.stdin.buffer.read()
due = time.monotonic()
while True:
    for _ in range(rate // 100):
        sock.sendto(data, ("127.0.0.1", port))
    due = max(due + 0.01, time.monotonic() - 0.1)
    time.sleep(max(0.0, due - time.monotonic()))
"""


@contextmanager
def flood(port, data, rate=10_000, host=MALLORY):
    """A process that sends this so many times a second for as long as the block lasts."""
    flooder = subprocess.Popen(
        [sys.executable, "-c", FLOODER, host, str(port), str(rate)], stdin=subprocess.PIPE
    )
    try:
        flooder.stdin.write(data)
        flooder.stdin.close()
        yield
    finally:
        flooder.kill()
        flooder.wait()


@contextmanager
def program(folder, free_port, servers, *lines):
    """A forwarder process. Gives its port and a function that reads its /status."""
    port, page, file = free_port(), free_port(), folder / "servers.properties"
    named = [f"{server.name}={format_address(server.address)}" for server in servers]
    listen = [
        f"forwarder.listen=127.0.0.1:{port}",
        f"admin.listen=127.0.0.1:{page}",
        "forwarder.secret.file=",
    ]
    file.write_text("\n".join([*listen, *named, *lines]))
    running = RunningProgram([*FORWARDER, str(file)], folder / "stderr")

    def status():
        with urllib.request.urlopen(f"http://127.0.0.1:{page}/status", timeout=10) as answer:
            return json.load(answer)

    try:
        yield port, status
    finally:
        running.stop()


def answered(phone, port, count):
    """How many of so many requests are answered within a second, none of them sent again."""
    good, phone_timeout = 0, phone.gettimeout()
    phone.settimeout(1.0)
    for n in range(count):
        branch = f"z9hG4bKquiet{n}"
        phone.sendto(
            request("OPTIONS", source=phone.getsockname(), branch=branch), ("127.0.0.1", port)
        )
        try:
            while branch.encode() not in phone.recv(65_535):
                pass
        except TimeoutError:
            continue
        good += 1
    phone.settimeout(phone_timeout)
    return good


@pytest.mark.slow
def test_a_flood_from_one_source_starves_nobody_else(tmp_path, free_port, eventually):
    """Ten thousand requests a second are more than a forwarder passes on."""
    with fake_servers(free_port) as servers, plain_phone() as phone:
        with program(tmp_path, free_port, servers, "limit.exempt=") as (port, status):
            with flood(port, request("OPTIONS", source=(MALLORY, 5060), branch="z9hG4bKflood")):
                eventually(
                    lambda: status()["counters"].get("dropped.limited", 0) > 5_000, timeout=20
                )
                assert answered(phone, port, 50) >= 45
            now = status()
        assert now["failovers"] == [] and now["hot"] == "server1"
        assert now["counters"]["passed.requests"] < 1000 + 200 * now["uptime"] + 100, (
            "the flooder's share, and 50"
        )
    said = [line for line in (tmp_path / "stderr").read_text().splitlines() if "limit.rate" in line]
    assert 1 <= len(said) <= now["uptime"] + 1 and MALLORY in said[0]


@pytest.mark.slow
def test_servers_have_their_turn_while_the_phones_side_is_flooded(tmp_path, free_port, eventually):
    """Even without a limit: of each socket only so many datagrams are taken in a turn."""
    with fake_servers(free_port) as servers, plain_phone() as phone:
        with program(tmp_path, free_port, servers, "limit.rate=0", "heartbeat.interval=0.2") as (
            port,
            status,
        ):
            eventually(lambda: status()["servers"][0]["state"] == "UP")
            host, own = phone.getsockname()
            with flood(port, b"garbage\r\n\r\n", rate=50_000):
                eventually(
                    lambda: status()["counters"].get("dropped.malformed", 0) > 20_000, timeout=20
                )
                for n in range(50):
                    where = servers[0].address
                    message = request(
                        "MESSAGE", f"sip:bob@{host}:{own}", source=where, branch=f"z9hG4bK{n}"
                    )
                    servers[0].send(message, ("127.0.0.1", port))
                    assert phone.recv(65_535).startswith(b"MESSAGE")
                states = {server["state"] for server in status()["servers"]}
        assert states <= {"UP", "FAILING"}, "heartbeats have their turn too"


def test_a_limited_source_may_still_end_its_calls(free_port):
    with fake_servers(free_port, 1) as servers, plain_phone() as phone:
        port = free_port()
        with running(
            config(port, servers, "limit.rate=1", "limit.burst=40", "limit.exempt=")
        ) as forwarder:
            for n in range(60):
                phone.sendto(
                    request("INVITE", source=phone.getsockname(), branch=f"z9hG4bK{n}"),
                    ("127.0.0.1", port),
                )
            for n in range(5):
                bye = request(
                    "BYE", source=phone.getsockname(), branch=f"z9hG4bKbye{n}", to_tag="b"
                )
                phone.sendto(bye, ("127.0.0.1", port))
            answers = [head(phone.recv(65_535)) for _ in range(35)]
            byes = [lines for lines in answers if any(line.endswith("BYE") for line in lines)]
            assert len(byes) == 5 and forwarder.status()["counters"]["dropped.limited"] >= 25


def test_servers_are_never_limited(free_port):
    with fake_servers(free_port, 1) as servers, plain_phone() as phone:
        port = free_port()
        with running(
            config(port, servers, "limit.rate=1", "limit.burst=4", "limit.exempt=")
        ) as forwarder:
            host, own = phone.getsockname()
            for n in range(100):
                message = request(
                    "MESSAGE",
                    f"sip:bob@{host}:{own}",
                    source=servers[0].address,
                    branch=f"z9hG4bK{n}",
                )
                servers[0].send(message, ("127.0.0.1", port))
                assert phone.recv(65_535).startswith(b"MESSAGE")
            assert "dropped.limited" not in forwarder.status()["counters"]


def test_a_reload_changes_the_limit(free_port, eventually):
    with fake_servers(free_port, 1) as servers, plain_phone() as phone:
        port = free_port()
        with running(
            config(port, servers, "limit.rate=1", "limit.burst=4", "limit.exempt=")
        ) as forwarder:
            for n in range(10):
                phone.sendto(
                    request("OPTIONS", source=phone.getsockname(), branch=f"z9hG4bK{n}"),
                    ("127.0.0.1", port),
                )
            eventually(lambda: forwarder.status()["counters"].get("dropped.limited"))
            changed = forwarder.reload(config(port, servers, "limit.rate=0"))
            assert "limit.rate 1 -> 0" in changed
            while True:  # the answers of before, then all of these
                phone.settimeout(0.5)
                try:
                    phone.recv(65_535)
                except TimeoutError:
                    break
            phone.settimeout(2.0)
            assert all(ask(phone, ("127.0.0.1", port), f"z9hG4bKn{n}") for n in range(20))


# -- memory ----------------------------------------------------------------------------------------

REMEMBERING = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
from forwarder_kit import ALICE, make_core, request
from failover.config.settings import PHONES

def peak():  # not ru_maxrss, which begins with that of the process which started this one
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024

core, marks = make_core(), []
for n in range({calls} + 1):
    if n in (12_000, {calls}):
        marks.append(peak())
    host = f"10.{{n >> 16 & 255}}.{{n >> 8 & 255}}.{{n & 255}}"
    extra = (f"X-Header-{{n}}: {{n}}", f"Route: <sip:{{n}}.example;lr>", "X-Long: " + "x" * 1000)
    data = request("INVITE", f"sip:{{n}}@host{{n}}.example", (host, 5060), f"z9hG4bK{{n}}", extra, "", f"call-{{n}}@h")
    core.receive(data, PHONES, (host, 5060), n / 10_000)
print(*marks, len(core.pending), core.counters["inflight.overflow"])
"""


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for its peak memory")
def test_a_hundred_thousand_calls_leave_no_more_in_memory_than_twelve_thousand(request):
    """Each with a Call-ID, source, Request-URI, Route and header name of its own. A hundred
    thousand in the long run, of which a fuzz of half a minute is the sign, a quarter of that in the
    short."""
    calls = 100_000 if request.config.getoption("--fuzz-seconds") >= 30 else 24_000
    code = REMEMBERING.format(root=str(ROOT), tests=str(ROOT / "tests" / "kits"), calls=calls)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    early, late, in_flight, forgotten = map(int, done.stdout.split())
    assert late - early < 10 and late < 150, "megabytes"
    assert in_flight <= 20_000 and forgotten >= calls - 10_001


# -- names -----------------------------------------------------------------------------------------

NO_NAMES = """
import ipaddress, socket, sys
from pathlib import Path

def watch(event, arguments):
    # What resolves a name in Python, and, inside of C, every place that would: an address given to a socket.
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"):
        print("LOOKED UP", event, arguments, file=sys.stderr, flush=True)
    elif event in ("socket.sendto", "socket.connect", "socket.bind") and isinstance(arguments[1], tuple):
        try:
            ipaddress.ip_address(arguments[1][0])
        except ValueError:
            print("NAME GIVEN TO", event, arguments, file=sys.stderr, flush=True)

def fail(*arguments, **options):
    raise AssertionError(f"looked up: {{arguments}}")

sys.path.insert(0, {root!r})
from failover.cli import main
socket.getaddrinfo = socket.gethostbyname = socket.gethostbyaddr = socket.getfqdn = fail
sys.addaudithook(watch)
sys.exit(main([{file!r}], Path({file!r})))
"""
NAMES = (
    "sip:bob@bob.example",
    "sip:bob@localhost",
    "sip:router.example:5060;maddr=other.example",
    "sips:a@b.example",
)


def test_no_name_is_looked_up_whatever_names_are_in_the_messages(tmp_path, free_port):
    file, log, port = tmp_path / "servers.properties", tmp_path / "stderr", free_port()
    with fake_servers(free_port, 1) as servers, plain_phone() as phone:
        (server,) = servers
        file.write_text(
            f"server1=127.0.0.1:{server.address[1]}\nforwarder.listen=127.0.0.1:{port}\nadmin.listen=\n"
            "forwarder.advertise=sip.example:5060\nforwarder.secret.file="
        )
        code = NO_NAMES.format(root=str(ROOT), file=str(file))
        running = RunningProgram([sys.executable, "-c", code], log)
        try:
            for n, uri in enumerate(NAMES):
                via = f"Via: SIP/2.0/UDP phone.example;received=x.example;maddr=y.example;rport;branch=z9hG4bK{n}"
                routed = request(
                    "INVITE", uri, via=via, extra=(f"Route: <{uri};lr>", f"Contact: <{uri}>")
                )
                phone.sendto(routed, ("127.0.0.1", port))
                assert phone.recv(65_535).startswith(b"SIP/2.0 200 OK")
                server.send(
                    request("INVITE", uri, via=via.replace("rport;", "")), ("127.0.0.1", port)
                )
                phone.sendto(answer(routed), ("127.0.0.1", port))
                assert (
                    field(ask(phone, ("127.0.0.1", port), f"z9hG4bKthen{n}"), "X-Server")
                    == "server1"
                )
        finally:
            running.stop()
        written = log.read_text()
        assert (
            "LOOKED UP" not in written
            and "NAME GIVEN" not in written
            and "Traceback" not in written
        ), written
        assert "is no address" in written, "a server that named a name was told"
