"""Servers that register themselves, on real sockets of loopback and as real processes with real
phones."""

from __future__ import annotations

import json
import signal
import socket
import time
import urllib.request
from contextlib import contextmanager

import pytest
from forwarder_kit import FakeServer, ask, fake_servers, field, head, plain_phone
from heartbeat_kit import beat, body
from phone_kit import Owner
from process_kit import FORWARDER, RunningProgram, server_argv

from failover.config.settings import read
from failover.forwarder import Forwarder
from failover.net import options_ping
from failover.net.relay import Relay
from softphone.ua.events import CallState

HOST = "127.0.0.1"


class Scene:
    """A forwarder whose servers register themselves, and what an operator and a phone see of it."""

    def __init__(self, free_port, *lines, host=HOST):
        self.address, self.desk, self.host = (host, free_port()), (host, free_port()), host
        self.lines = lines
        self.forwarder = Forwarder(self.settings(*lines))
        self.forwarder.start()

    def settings(self, *lines):
        here = f"[{self.host}]" if ":" in self.host else self.host
        listen = [
            f"forwarder.listen={here}:{self.address[1]}",
            f"registration.listen={here}:{self.desk[1]}",
        ]
        return read("\n".join([*listen, "admin.listen=", *lines]), "test")

    def beat(self, server, number=1, *more, call_id="life-1", hostname=None):
        """As `server` does; returns the status of the answer."""
        text = body(self.host, server.address[1], hostname or server.name, *more)
        with plain_phone(self.host) as sock:
            sock.sendto(
                beat(text, number, f"{server.name}-{call_id}", via="a.example;rport"), self.desk
            )
            return int(head(sock.recv(65_535))[0].split()[1])

    @property
    def servers(self):
        return {server["name"]: server["state"] for server in self.forwarder.status()["servers"]}

    @property
    def registration(self):
        return self.forwarder.status()["registration"]

    def is_up(self, *names):
        return lambda: [self.servers.get(name) for name in names] == ["UP"] * len(names)


@pytest.fixture
def scene(free_port):
    """scene(*lines) -> a Scene, ended with the test."""
    made = []

    def make(*lines, **options):
        made.append(Scene(free_port, *lines, **options))
        return made[-1]

    yield make
    for each in made:
        each.forwarder.stop()


def test_two_servers_that_nobody_configured_register_and_get_calls(scene, free_port, eventually):
    desk = scene()
    with fake_servers(free_port) as servers, plain_phone() as phone:
        assert head(ask(phone, desk.address, "z9hG4bK0"))[0] == "SIP/2.0 503 Service Unavailable"
        assert [desk.beat(server) for server in reversed(servers)] == [200, 200]
        eventually(desk.is_up("server1", "server2"))
        assert list(desk.servers) == ["server2", "server1"], "in the order of their arrival"
        assert field(ask(phone, desk.address, "z9hG4bK1"), "X-Server") == "server2"
        servers[1].kill()
        assert field(ask(phone, desk.address, "z9hG4bK2"), "X-Server") == "server1"
        shown = desk.registration["servers"]
        assert [(each["name"], each["beats"], each["leaving"]) for each in shown] == [
            ("server2", 1, False),
            ("server1", 1, False),
        ]


def test_the_file_s_servers_come_first_and_one_that_also_registers_is_not_there_twice(
    scene, free_port, eventually
):
    with fake_servers(free_port, 3) as servers, plain_phone() as phone:
        desk = scene(
            f"server2={HOST}:{servers[1].address[1]}", f"server1={HOST}:{servers[0].address[1]}"
        )
        assert [desk.beat(server) for server in (servers[2], servers[0])] == [200, 200]
        eventually(desk.is_up("server1", "server2", "server3"))
        assert list(desk.servers) == ["server2", "server1", "server3"]
        assert field(ask(phone, desk.address, "z9hG4bK1"), "X-Server") == "server2"
        assert [each["name"] for each in desk.registration["servers"]] == ["server3"]


def test_a_call_that_began_on_a_registered_server_stays_there_while_that_is_drained(
    scene, free_port, eventually
):
    desk = scene()
    with fake_servers(free_port) as servers, plain_phone() as phone:
        desk.beat(servers[0])
        eventually(desk.is_up("server1"))
        desk.beat(servers[1])
        eventually(desk.is_up("server1", "server2"))
        route = field(ask(phone, desk.address, "z9hG4bK1", "INVITE"), "Record-Route")
        assert desk.beat(servers[0], 2, "GRACEFUL_SHUTDOWN=true") == 200
        status = desk.forwarder.status()
        assert (status["hot"], status["servers"][0]["state"]) == ("server2", "UP")
        assert status["servers"][0]["why"].startswith("said GRACEFUL_SHUTDOWN")
        assert (
            field(ask(phone, desk.address, "z9hG4bK2", "INVITE", call_id="call-2"), "X-Server")
            == "server2"
        )
        in_dialog = ask(
            phone, desk.address, "z9hG4bK3", to_tag="b", cseq=2, extra=[f"Route: {route}"]
        )
        assert field(in_dialog, "X-Server") == "server1"
        servers[0].kill()
        eventually(lambda: list(desk.servers) == ["server2"])
        assert desk.forwarder.status()["failovers"] == []
        in_dialog = ask(
            phone, desk.address, "z9hG4bK4", to_tag="b", cseq=3, extra=[f"Route: {route}"]
        )
        assert field(in_dialog, "X-Server") == "server2"


def test_a_registered_server_that_dies_is_down_first_and_then_forgotten_and_comes_again_by_itself(
    scene, free_port, eventually
):
    desk = scene("registration.timeout=0.7")
    with fake_servers(free_port) as servers:
        for server in servers:
            desk.beat(server)
        eventually(desk.is_up("server1", "server2"))
        servers[0].kill()
        eventually(lambda: desk.servers.get("server1") == "DOWN")
        eventually(lambda: list(desk.servers) == ["server2"])
        assert desk.servers["server2"] == "UP", "answers to heartbeats are life enough"
        again = FakeServer("server1", servers[0].address)
        try:
            assert desk.beat(again, 2) == 200
            eventually(desk.is_up("server2", "server1"))
            assert list(desk.servers) == ["server2", "server1"]
        finally:
            again.kill()
        assert desk.forwarder.status()["counters"]["registration.expired"] == 1


def test_an_address_that_does_not_answer_never_gets_a_call(scene, free_port, eventually):
    desk = scene("registration.timeout=0.5")
    with fake_servers(free_port, 1) as servers, plain_phone() as phone, plain_phone() as silent:
        # somebody who may register names an address where nobody speaks SIP
        servers[0].address = silent.getsockname()
        assert desk.beat(servers[0]) == 200
        assert desk.servers == {"server1": "DOWN"}
        assert head(ask(phone, desk.address, "z9hG4bK1"))[0] == "SIP/2.0 503 Service Unavailable"
        eventually(lambda: desk.servers == {})


def test_refusals_change_nothing_and_are_shown_with_their_reasons(scene, free_port):
    desk = scene()
    with fake_servers(free_port, 1) as servers, plain_phone() as phone:
        desk.beat(servers[0], 5)
        assert desk.beat(servers[0], 4, "GRACEFUL_SHUTDOWN=true") == 403
        for text in (
            body("192.0.2.7"),
            body(port=desk.address[1]),
            body(port=desk.desk[1]),
            "nonsense",
        ):
            phone.sendto(beat(text), desk.desk)
        phone.sendto(b"noise", desk.desk)
        assert desk.beat(servers[0], 6) == 200, "whoever asked first was answered first"
        shown = {each["reason"]: each for each in desk.registration["refused"]}
        assert {reason: each["times"] for reason, each in shown.items()} == {
            "replayed": 1,
            "foreign": 1,
            "own": 2,
            "malformed": 2,
        }
        assert shown["foreign"]["note"] == "ip=192.0.2.7 is not its own address"
        assert abs(shown["own"]["at"] - time.time()) < 5 and shown["own"]["source"].startswith(HOST)
        assert list(desk.servers) == ["server1"]
        assert 'what="registration.foreign"} 1' in desk.forwarder.metrics()


def test_who_may_not_register_hears_nothing(scene, free_port, eventually):
    desk = scene("registration.allow=10.0.0.0/8")
    with fake_servers(free_port, 1) as servers, plain_phone() as sock:
        sock.sendto(beat(body(HOST, servers[0].address[1])), desk.desk)
        eventually(lambda: desk.registration["refused"])
        assert desk.registration["refused"][0]["reason"] == "outside" and desk.servers == {}
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(65_535)


def test_a_flood_at_the_registration_address_leaves_the_phones_alone(scene, free_port, eventually):
    desk = scene()
    with fake_servers(free_port, 1) as servers, plain_phone() as phone, plain_phone() as stranger:
        desk.beat(servers[0])
        eventually(desk.is_up("server1"))
        for n in range(3_000):
            stranger.sendto(beat(body(port=n + 1), call_id=f"{n}"), desk.desk)
        assert field(ask(phone, desk.address, "z9hG4bK1"), "X-Server") == "server1"
        assert len(desk.forwarder.status()["servers"]) <= 64


def test_a_reload_keeps_registered_servers_and_their_calls(scene, free_port, eventually):
    desk = scene()
    with fake_servers(free_port, 3) as servers, plain_phone() as phone:
        for server in servers[:2]:
            desk.beat(server)
        eventually(desk.is_up("server1", "server2"))
        where = [f"{HOST}:{server.address[1]}" for server in servers]
        desk.forwarder.reload(desk.settings("heartbeat.fall=4"))
        assert desk.servers == {"server1": "UP", "server2": "UP"}, "nothing happened to them"
        desk.forwarder.reload(desk.settings(f"server2={where[2]}", f"first={where[0]}"))
        assert list(desk.servers) == ["server2", "first", where[1]]
        eventually(desk.is_up("server2", "first", where[1]))
        assert field(ask(phone, desk.address, "z9hG4bK1"), "X-Server") == "server3"
        assert desk.beat(servers[1], 2) == 200
        assert [each["name"] for each in desk.registration["servers"]] == [where[1]]
        changed = desk.forwarder.reload(
            desk.settings("registration.allow=10.0.0.0/8", f"first={where[0]}")
        )
        assert "registration.allow 127.0.0.0/8, ::1/128 -> 10.0.0.0/8" in changed
        assert list(desk.servers) == ["first"], "the others may not register any more"


def test_one_that_ends_keeps_no_socket_to_a_server_that_had_registered(
    scene, free_port, eventually, monkeypatch
):
    """Its last turn may take so long that the next search for servers that have gone is due."""
    opened = []
    connected = options_ping.connect_udp
    monkeypatch.setattr(
        options_ping,
        "connect_udp",
        lambda *args: opened.append(connected(*args)) or opened[-1],
    )
    with fake_servers(free_port, 2) as servers:
        desk = scene(f"server1={HOST}:{servers[0].address[1]}", "registration.timeout=0.5")
        assert desk.beat(servers[1]) == 200
        eventually(desk.is_up("server1", "server2"))
        time.sleep(0.8)  # without another registration
        monkeypatch.setattr(Relay, "finish", lambda _relay, _seconds: time.sleep(0.3))
        desk.forwarder.stop()
    assert opened and all(sock.fileno() == -1 for sock in opened)


def test_another_registration_address_needs_a_restart(scene, free_port):
    desk = scene()
    before, desk.desk = desk.desk, (HOST, free_port())
    assert desk.forwarder.reload(desk.settings()) == [
        f"registration.listen {HOST}:{before[1]} -> {HOST}:{desk.desk[1]} (at the next start)"
    ]
    assert desk.registration["listen"] == f"{HOST}:{before[1]}"


def test_what_cannot_be_reached_is_registered_and_down_until_it_can_be(
    scene, free_port, eventually, monkeypatch
):
    desk = scene()
    with fake_servers(free_port) as servers, plain_phone() as sock:
        desk.beat(servers[0])
        eventually(desk.is_up("server1"))

        def refuse(*_):
            raise OSError(101, "Network is unreachable")

        with monkeypatch.context() as broken:
            broken.setattr("failover.net.server_links.open_side", refuse)
            sock.sendto(beat(body(HOST, servers[1].address[1]), call_id="x"), desk.desk)
            eventually(lambda: list(desk.servers) == ["server1", "server2"])
            assert desk.servers == {"server1": "UP", "server2": "DOWN"}
        eventually(desk.is_up("server1", "server2"))


def test_a_server_of_the_other_address_family_is_refused(scene, free_port, eventually):
    desk = scene("registration.foreign=yes")
    with plain_phone() as sock:
        sock.sendto(beat(body("::1", free_port())), desk.desk)
        eventually(lambda: desk.registration["refused"])
        (refused,) = desk.registration["refused"]
        assert refused["reason"] == "unreachable"
        assert desk.servers == {}


def test_without_a_registration_address_nobody_can_register_and_a_taken_one_is_named(free_port):
    with fake_servers(free_port, 1) as servers, socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind((HOST, 0))
        lines = [
            f"server1={HOST}:{servers[0].address[1]}",
            f"forwarder.listen={HOST}:{free_port()}",
            "admin.listen=",
        ]
        forwarder = Forwarder(read("\n".join(lines), "test"))
        forwarder.start()
        assert forwarder.status()["registration"] == {"listen": None, "servers": [], "refused": []}
        forwarder.stop()
        port = taken.getsockname()[1]
        alone = "forwarder.standby=no"
        forwarder = Forwarder(
            read("\n".join([*lines, f"registration.listen={HOST}:{port}", alone]), "test")
        )
        with pytest.raises(OSError, match=f"{HOST}:{port}"):
            forwarder.start()
        forwarder.stop()


def test_servers_register_over_ipv6_too(scene, free_port, eventually):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this computer has no IPv6")
    desk = scene(host="::1")
    with fake_servers(free_port, host="::1") as servers, plain_phone("::1") as phone:
        assert desk.beat(servers[0]) == 200
        eventually(desk.is_up("server1"))
        assert field(ask(phone, desk.address, "z9hG4bK1"), "X-Server") == "server1"


# -- real processes, real phones -------------------------------------------------------------------


class Cluster:
    """A forwarder that no file tells about servers, and servers that register themselves."""

    def __init__(self, folder, free_port):
        self.folder, self.file = folder, folder / "servers.properties"
        self.sip, self.desk, self.admin = ((HOST, free_port()) for _ in range(3))
        self.ports = {name: (free_port(), free_port()) for name in ("server1", "server2")}
        self.file.write_text(
            f"forwarder.listen={HOST}:{self.sip[1]}\nregistration.listen={HOST}:{self.desk[1]}\n"
            f"admin.listen={HOST}:{self.admin[1]}\nregistration.timeout=2\n"
        )
        self.programs = {}

    def start(self, name):
        argv = [*FORWARDER, str(self.file)]
        if name != "forwarder":
            port, page = self.ports[name]
            argv = server_argv(
                *(name, f"{HOST}:{port}", f"{HOST}:{self.sip[1]}", self.folder / "store.db"),
                *(f"{HOST}:{page}", "--register", f"{HOST}:{self.desk[1]}", "--beat", "0.5"),
            )
        self.programs[name] = RunningProgram(argv, self.folder / f"{name}.log")

    def end(self, name, number=signal.SIGKILL):
        return self.programs.pop(name).stop(number)

    def status(self):
        return read_json(self.admin[1], "/status")

    @property
    def servers(self):
        return {server["name"]: server["state"] for server in self.status()["servers"]}

    def bill(self, server):
        (call,) = read_json(self.ports[server][1], "/calls")["calls"]
        return call


def read_json(port, path):
    with urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=5.0) as answer:
        return json.load(answer)


@contextmanager
def owners(cluster, eventually):
    """Alice and Bob, registered."""
    both = []
    try:
        both += [Owner(user, cluster.sip, register=True) for user in ("alice", "bob")]
        eventually(lambda: all(owner.registered for owner in both), 10.0)
        yield both
    finally:
        for owner in both:
            owner.phone.stop()


def talk(alice, bob, eventually):
    alice.phone.call("bob")
    eventually(lambda: bob.state is CallState.INCOMING)
    bob.phone.answer()
    eventually(lambda: alice.state is bob.state is CallState.TALKING)


def hang_up(alice, bob, eventually):
    alice.phone.hang_up()
    eventually(lambda: alice.state is bob.state is CallState.ENDED)


@pytest.fixture
def cluster(tmp_path, free_port, eventually):
    """Forwarder, server1 and server2, in this order, all up."""
    made = Cluster(tmp_path, free_port)
    try:
        for name in ("forwarder", "server1", "server2"):
            made.start(name)
            if name != "forwarder":
                eventually(lambda name=name: made.servers.get(name) == "UP")
        yield made
    finally:
        for name in list(made.programs):
            made.end(name)


@pytest.mark.long
@pytest.mark.slow
def test_calls_over_servers_that_nobody_configured_survive_kill_9_and_the_table_forgets_the_dead(
    cluster, eventually
):
    assert list(cluster.servers) == ["server1", "server2"] and cluster.status()["hot"] == "server1"
    with owners(cluster, eventually) as (alice, bob):
        talk(alice, bob, eventually)
        eventually(lambda: cluster.bill("server1")["seconds"] >= 2)
        cluster.end("server1")
        eventually(lambda: cluster.servers["server1"] == "DOWN")
        eventually(lambda: list(cluster.servers) == ["server2"])
        hang_up(alice, bob, eventually)
        call = eventually(lambda: cluster.bill("server2")["final"] and cluster.bill("server2"))
        assert [share["server"] for share in call["carried"]] == ["server1", "server2"]
        assert alice.phone.snapshot().retransmissions == bob.phone.snapshot().retransmissions == 0
        cluster.start("server1")
        eventually(lambda: cluster.servers == {"server2": "UP", "server1": "UP"})
        assert list(cluster.servers) == ["server2", "server1"], "it has come again, and last"


@pytest.mark.slow
def test_a_server_that_is_stopped_takes_leave_is_drained_and_nobody_notices(cluster, eventually):
    with owners(cluster, eventually) as (alice, bob):
        alice.phone.call("bob")
        eventually(lambda: bob.state is CallState.INCOMING)
        leaving = cluster.programs["server1"].process
        leaving.send_signal(signal.SIGTERM)
        drained = eventually(
            lambda: [
                s
                for s in cluster.status()["servers"]
                if s["why"].startswith(("said", "answers"))
                and not s["hot"]
                and s["name"] == "server1"
                and s["state"] == "UP"
            ]
        )
        assert drained and cluster.status()["hot"] == "server2"
        assert leaving.poll() is None, "the ringing call is owed an answer"
        bob.phone.answer()
        eventually(lambda: alice.state is bob.state is CallState.TALKING)
        assert leaving.wait(10) == 0, "nothing is owed any more"
        eventually(lambda: list(cluster.servers) == ["server2"])
        assert cluster.status()["counters"]["registration.left"] == 1
        hang_up(alice, bob, eventually)
        assert alice.phone.snapshot().retransmissions == bob.phone.snapshot().retransmissions == 0


@pytest.mark.slow
def test_a_forwarder_that_starts_again_learns_both_servers_within_seconds_and_the_call_goes_on(
    cluster, eventually
):
    with owners(cluster, eventually) as (alice, bob):
        talk(alice, bob, eventually)
        cluster.end("forwarder")
        cluster.start("forwarder")
        eventually(lambda: cluster.servers == {"server1": "UP", "server2": "UP"})
        hang_up(alice, bob, eventually)
        eventually(lambda: cluster.bill("server1")["final"])
