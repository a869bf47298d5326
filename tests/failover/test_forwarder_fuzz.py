"""INVARIANT: whatever bytes come, from whomever, in whatever order and state of the servers, the
forwarder goes on; a phone's datagram leads to servers or back to that phone and nowhere else; what
it remembers stays bounded.

`pytest tests/failover/test_forwarder_fuzz.py --fuzz-seconds 60` runs each test for so long;
`--fuzz-seed` chooses other dice.
"""

from __future__ import annotations

import random
import socket
import time

import pytest
from forwarder_kit import (
    ALICE,
    BOB,
    KEY,
    SERVERS,
    answer,
    answerable,
    make_core,
    make_table,
    plain_phone,
    request,
)
from fuzz_kit import broken
from message_kit import messages
from process_kit import PYTHON, ROOT, RunningProgram

from failover.config.settings import CALL_ID, FIRST_LIVE, PHONES, ServerLine
from failover.proxy import pending_messages
from failover.proxy.events import Outcome, Send
from failover.upstream.health import ANSWER, MISS, REFUSED
from failover.upstream.server_table import AdminState, Server, ServerTable
from plumbing.event_loop import Loop
from plumbing.udp_socket import bind_udp
from sip.errors import RemoteProtocolError
from sip.message import Request, parse, reply

S1 = SERVERS["server1"]
STRANGER = ("198.51.100.77", 1)
SIDES = [(PHONES, ALICE), (PHONES, BOB), (PHONES, STRANGER), *SERVERS.items(), ("nobody", STRANGER)]
ROUND = 500  # datagrams between two looks at the clock


@pytest.fixture
def fuzz(request):
    """(seconds, seed) of this run."""
    return request.config.getoption("--fuzz-seconds"), request.config.getoption("--fuzz-seed")


def samples(hint):
    """Good messages, for bending: the odd ones, a call's, and those that name what only the
    forwarder writes."""
    route = f"Route: <sip:192.0.2.1:5060;lr;hint={hint}>"
    contact = f"sip:bob@{BOB[0]}:{BOB[1]}"
    return [
        *messages().values(),
        request(),
        request("REGISTER"),
        request("CANCEL"),
        request("ACK", to_tag="b"),
        request("BYE", to_tag="b", extra=(route,)),
        request("BYE", uri=f"sip:192.0.2.1;lr;hint={hint}", extra=(route,)),
        request("INVITE", contact, source=S1),
        request("INVITE", "sip:192.0.2.1", source=S1),
        answer(request()),
        request("OPTIONS", f"sip:x@{S1[0]}:{S1[1]}", extra=(f"Route: <sip:{S1[0]}:{S1[1]}>",)),
    ]


def check(outcome, side, source, data):
    assert isinstance(outcome, Outcome)
    is_response = data.lstrip(b"\r\n")[:8].upper() == b"SIP/2.0 "
    for send in outcome.sends:
        assert isinstance(send, Send) and (send.to in SERVERS or send.target is not None)
        if side == PHONES and send.to == PHONES and not is_response:
            assert send.target[0] == source[0], "it would have gone to a third party"
        if send.target:
            socket.inet_pton(
                socket.AF_INET6 if ":" in send.target[0] else socket.AF_INET, send.target[0]
            )
            assert 0 < send.target[1] < 65536


def shake(core, dice, now):
    """Something happens to a server, or to the list of them."""
    name = dice.choice([*SERVERS, "nobody"])
    kind = dice.randrange(12)
    if kind < 8:
        core.failover.signal(
            name,
            dice.choice([ANSWER, ANSWER, MISS, REFUSED]),
            now,
            "dice",
            dice.choice([None, True, False]),
        )
    elif kind < 10 and name in core.table.by_name:
        core.failover.set_admin_state(name, dice.choice(list(AdminState)), now)
    elif kind == 10:
        core.replace_table(make_table(dice.choice([CALL_ID, FIRST_LIVE])), 3, 2, now)
    else:
        kept = [server for server in core.table.servers if dice.random() < 0.7]
        health = make_table().servers[0].health
        kept += [
            Server(ServerLine(n, a), health, KEY)
            for n, a in SERVERS.items()
            if n not in {s.name for s in kept}
        ]
        core.replace_table(ServerTable(kept[: dice.randrange(3)], FIRST_LIVE), 3, 2, now)


def test_the_core_with_all_its_sides(fuzz):
    seconds, seed = fuzz
    dice, core, now = random.Random(seed), make_core(), 100.0
    good = samples(core.table.servers[0].hint)
    heard, until, rounds = list(good), time.monotonic() + seconds, 0
    while time.monotonic() < until or not rounds:
        rounds += 1
        for data in broken([*good, *heard[-150:]], ROUND, seed=dice.randrange(2**32)):
            side, source = dice.choice(SIDES)
            data = dice.choice([data, data, data, dice.choice(heard)])
            now += dice.choice([0.0, 0.001, 0.3, 5.0]) * (dice.random() < 0.1)
            outcome = core.receive(data, side, source, now)
            check(outcome, side, source, data)
            heard += [
                answer(send.data) if dice.random() < 0.3 and answerable(send.data) else send.data
                for send in outcome.sends
            ]
            if dice.random() < 0.02:
                shake(core, dice, now)
        heard = [*good, *heard[-300:]]
        assert (
            len(core.pending) <= 2 * pending_messages.MAX_DATAGRAMS
            and len(core.counters) < 60
            and len(core.lines.own) < 5
        )
    assert core.counters["passed.requests"] > 20 and core.counters["dropped.malformed"] > 50, (
        core.counters
    )


class Answering:
    """A server that answers whatever it can read, and sends bent messages of its own."""

    def __init__(self, address):
        self.address, self.heard = address, []
        self._loop = Loop("server")
        self.sock = bind_udp(address)
        self._loop.watch(self.sock, self._ready)
        self._loop.start()

    def _ready(self):
        data, source = self.sock.recvfrom(65_535)
        try:
            message = parse(data)
            if isinstance(message, Request) and message.method != "ACK":
                name = [("X-Server", str(self.address[1]))]
                self.sock.sendto(reply(message, 200, to_tag="b", fields=name).to_bytes(), source)
        except RemoteProtocolError:
            return
        self.heard = [*self.heard[-50:], data]

    def close(self):
        self._loop.stop()
        self.sock.close()


@pytest.fixture
def process(tmp_path, free_port):
    """A real forwarder under -W error before two servers: (popen, its address, servers, file with
    its stderr)."""
    servers = [Answering(("127.0.0.1", free_port())) for _ in range(2)]
    port, file, log = free_port(), tmp_path / "servers.properties", tmp_path / "stderr"
    lines = [f"127.0.0.1:{server.address[1]}" for server in servers]
    lines += [f"forwarder.listen=127.0.0.1:{port}", "admin.listen=", "forwarder.secret.file="]
    file.write_text("\n".join(lines))
    argv = [*PYTHON, "-W", "error", str(ROOT / "forwarder.py"), str(file)]
    running = RunningProgram(argv, log)
    try:
        yield running.process, ("127.0.0.1", port), servers, log
    finally:
        running.stop()
        for server in servers:
            server.close()


def alive(phone, address, number):
    """It still forwards. Answers to what was sent before are passed over, and on a busy computer a
    server may be down for a moment."""
    phone.settimeout(5.0)
    for attempt in range(100):
        branch = f"z9hG4bKalive{number}.{attempt}"
        phone.sendto(request("OPTIONS", source=phone.getsockname(), branch=branch), address)
        response = phone.recv(65_535)
        while f"branch={branch}".encode() not in response:
            response = phone.recv(65_535)
        if response.startswith(b"SIP/2.0 200 OK"):
            return
        time.sleep(0.02)
    pytest.fail(f"no server answers any more: {response}")


def bombard(process, phone, count, seed, batch=100):
    """Sends so many broken datagrams from a phone and from a server, as fast as the forwarder takes
    them."""
    popen, address, servers, _ = process
    dice = random.Random(seed)
    good = samples("a" * 26)
    for number, data in enumerate(
        broken([*good, *servers[0].heard, *servers[1].heard], count, seed=seed)
    ):
        if dice.random() < 0.2:
            dice.choice(servers).sock.sendto(data, address)
        else:
            phone.sendto(data, address)
        if number % batch == batch - 1:
            alive(phone, address, f"{seed}.{number}")
    assert popen.poll() is None


def test_a_real_forwarder_through_its_sockets(process, fuzz):
    seconds, seed = fuzz
    log, began, rounds = process[3], time.monotonic(), 0
    with plain_phone() as phone:
        while time.monotonic() < began + seconds or not rounds:
            rounds += 1
            bombard(process, phone, ROUND, seed * 1_000_003 + rounds)
    written = log.read_text()
    assert "Traceback" not in written and "error" not in written.lower(), written
    assert len(written.splitlines()) < 30 + 15 * (time.monotonic() - began), (
        "a line a second and reason"
    )


@pytest.mark.slow
@pytest.mark.long
def test_twenty_thousand_broken_datagrams_leave_a_few_lines(process):
    log, began = process[3], time.monotonic()
    with plain_phone() as phone:
        bombard(process, phone, 20_000, 42, batch=200)
    written = log.read_text()
    assert "Traceback" not in written and "Warning" not in written, written
    assert (
        len(written.splitlines()) < 12 * (time.monotonic() - began + 2) and len(written) < 100_000
    ), written
