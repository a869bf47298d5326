"""`kill -HUP` of a real forwarder while phones talk: settings change, what is known of servers and
calls stays."""

from __future__ import annotations

import json
import signal
import threading
from contextlib import contextmanager
from urllib.request import Request, urlopen

import pytest
from forwarder_kit import fake_servers, field, head, plain_phone, request
from process_kit import FORWARDER, RunningProgram

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")


class Reloading(RunningProgram):
    """A forwarder in a process of its own, with its file, pages and log."""

    def __init__(self, folder, free_port, servers, *lines):
        self.file = folder / "servers.properties"
        self.address = ("127.0.0.1", free_port())
        self.base = f"http://127.0.0.1:{free_port()}"
        self.write(servers, *lines)
        super().__init__([*FORWARDER, str(self.file)], folder / "log")

    def write(self, servers, *lines):
        own = [
            f"forwarder.listen=127.0.0.1:{self.address[1]}",
            f"admin.listen={self.base.removeprefix('http://')}",
        ]
        named = [f"{server.name}=127.0.0.1:{server.address[1]}" for server in servers]
        self.file.write_text("\n".join([*own, *named, *lines]))

    def status(self):
        with urlopen(f"{self.base}/status", timeout=2.0) as answer:
            return json.load(answer)

    def server(self, name):
        return next((each for each in self.status()["servers"] if each["name"] == name), None)

    def post(self, path):
        with urlopen(Request(f"{self.base}{path}", data=b"", method="POST"), timeout=2.0) as answer:
            assert answer.status == 200

    def reload(self, eventually, *expected):
        """Sends SIGHUP and returns the line that tells what came of it."""
        before = len(self.reloads())
        self.process.send_signal(signal.SIGHUP)
        eventually(lambda: len(self.reloads()) > before)
        line = self.reloads()[-1]
        assert all(part in line for part in expected), line
        return line

    def reloads(self):
        return [line for line in self.log.read_text().splitlines() if " reload" in line]


@pytest.fixture
def scene(tmp_path, free_port, eventually):
    """(a running forwarder that knows server1 and server2, [server1, server2, server3])."""
    with fake_servers(free_port, 3) as servers:
        running = Reloading(tmp_path, free_port, servers[:2])
        try:
            eventually(lambda: {each["state"] for each in running.status()["servers"]} == {"UP"})
            yield running, servers
            assert "Traceback" not in running.log.read_text()
        finally:
            running.stop()


@contextmanager
def talking(address):
    """A phone that asks and waits, again and again; on leaving, every question must have had its
    answer.

    A question may be answered twice where the server that was asked first is taken out of the list:
    what it has said already and what its successor says are both true, and a phone knows a second
    copy by its branch (RFC 3261 17.1.3).
    """
    stop, answers, asked_before = threading.Event(), [], set()

    def talk():
        with plain_phone() as phone:
            while not stop.is_set():
                branch = f"z9hG4bKt{len(answers)}"
                asked = request(
                    "OPTIONS", source=phone.getsockname(), branch=branch, call_id=branch
                )
                phone.sendto(asked, address)
                try:
                    answer = phone.recv(65_535)
                    while field(answer, "Via").partition("branch=")[2] in asked_before:
                        answer = phone.recv(65_535)
                except TimeoutError:
                    answer = b""
                answers.append((branch, answer))
                asked_before.add(branch)

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        yield answers
    finally:
        stop.set()
        thread.join()
    assert len(answers) > 5
    for branch, answer in answers:
        assert head(answer)[0] == "SIP/2.0 200 OK", f"{branch}: {answer[:40]!r}"
        assert f"branch={branch}" in field(answer, "Via"), "each answer to its own question"


def more_than(answers, count):
    """A condition: so many have come since now."""
    enough = len(answers) + count
    return lambda: len(answers) > enough


def test_no_question_is_lost_while_servers_come_and_go_and_bad_files_are_refused(scene, eventually):
    running, servers = scene
    with talking(running.address) as answers:
        for _ in range(3):
            running.write(servers, "heartbeat.interval=0.04")
            running.reload(eventually, "+ server3")
            eventually(lambda: running.server("server3")["state"] == "UP")
            running.file.write_text(running.file.read_text() + "\nhartbeat.fall=1\nserver4=nowhere")
            running.reload(
                eventually,
                "reload refused, nothing changed: ",
                "servers.properties:7: unknown key",
                "; ",
            )
            running.write(servers[1:])
            running.reload(eventually, "- server1", "heartbeat.interval 0.04 -> 0.05")
            eventually(lambda: running.status()["hot"] == "server2")
            running.write(servers[:2])
            running.reload(eventually, "- server3", "+ server1")
            eventually(lambda: running.status()["hot"] == "server1")
            eventually(more_than(answers, 20))
    assert {field(answer, "X-Server") for _, answer in answers} >= {"server1", "server2"}


def test_a_reload_keeps_health_counts_and_the_operator_s_wishes(scene, eventually):
    running, servers = scene
    with talking(running.address) as answers:
        eventually(lambda: len(answers) > 10)
    running.post("/servers/server1/drain")
    servers[1].kill()
    eventually(lambda: running.server("server2")["state"] == "DOWN")
    before = [running.server(name) for name in ("server1", "server2")]
    running.write(
        [servers[2], servers[1], servers[0]], "heartbeat.rise=3", "forwarder.policy=call-id"
    )
    running.reload(
        eventually, "+ server3", "heartbeat.rise 2 -> 3", "forwarder.policy first-live -> call-id"
    )
    for was in before:
        now = running.server(was["name"])
        assert (now["state"], now["wish"], now["falls"]) == (
            was["state"],
            was["wish"],
            was["falls"],
        )
        assert now["for"] >= was["for"] and now["requests"] == was["requests"]
    assert before[0]["wish"] == "DRAINING"
    assert [each["name"] for each in running.status()["servers"]] == [
        "server3",
        "server2",
        "server1",
    ]


def test_a_reload_that_only_renames_servers_refuses_nobody(scene, eventually):
    running, servers = scene
    with talking(running.address) as answers:
        for first, second in (("a", "b"), ("server2", "server1"), ("server1", "server2")):
            servers[0].name, servers[1].name = first, second
            running.write(servers[:2])
            running.reload(eventually, f"+ {first}")
            assert {each["state"] for each in running.status()["servers"]} == {"UP"}
            eventually(more_than(answers, 20))


def test_a_wish_is_for_a_name_and_goes_with_it_to_another_address(scene, eventually):
    running, servers = scene
    running.post("/servers/server2/disable")
    servers[2].name = "server2"
    running.write([servers[0], servers[2]])
    running.reload(eventually, "- server2", "+ server2")
    eventually(lambda: running.server("server2")["state"] == "UP")
    assert running.server("server2")["wish"] == "DISABLED"


def test_a_dialog_stays_with_its_server_when_the_file_puts_another_first(scene, eventually):
    running, servers = scene
    with plain_phone() as phone:

        def asked(method, **options):
            data = request(method, source=phone.getsockname(), branch=f"z9hG4bK{method}", **options)
            phone.sendto(data, running.address)
            return phone.recv(65_535)

        answer = asked("INVITE")
        assert field(answer, "X-Server") == "server1"
        running.write([servers[1], servers[0]])
        running.reload(eventually, "order server2, server1")
        route = f"Route: {field(answer, 'Record-Route')}"
        assert field(asked("BYE", to_tag="b", extra=(route,)), "X-Server") == "server1"
        assert field(asked("OPTIONS", call_id="new"), "X-Server") == "server2"


@pytest.mark.parametrize("fault", ["gone", "folder", "huge", "binary"])
def test_a_file_that_is_not_one_any_more_changes_nothing(scene, eventually, fault):
    running, _ = scene
    good = running.file.read_text()
    running.file.unlink()
    if fault == "folder":
        running.file.mkdir()
    elif fault != "gone":
        running.file.write_bytes(b"#" * (1 << 21) if fault == "huge" else bytes(range(256)) * 40)
    running.reload(eventually, "reload refused, nothing changed")
    with talking(running.address) as answers:
        eventually(lambda: len(answers) > 10)
    if fault == "folder":
        running.file.rmdir()
    running.file.write_text(good)
    running.reload(eventually, "reload: nothing changed")


def test_what_only_a_start_can_change_is_said_so(scene, eventually):
    running, servers = scene
    running.write(servers[:2], "forwarder.secret.file=other.secret")
    running.reload(
        eventually, "forwarder.secret.file forwarder.secret -> other.secret (at the next start)"
    )
    assert not (running.file.parent / "other.secret").exists()


def test_twenty_reloads_at_once_are_as_good_as_one(scene, eventually):
    running, servers = scene
    with talking(running.address):
        for n in range(20):
            running.write(servers[: 2 + n % 2])
            running.process.send_signal(signal.SIGHUP)
        running.write(servers)
        running.process.send_signal(signal.SIGHUP)
        eventually(lambda: running.server("server3") and running.server("server3")["state"] == "UP")
