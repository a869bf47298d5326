"""Real server processes that share a store; the test plays the forwarder and both phones. kill -9
is real."""

from __future__ import annotations

import contextlib
import signal
import socket
import sqlite3
import subprocess
import time

import pytest
from program_kit import HELLO
from slee_kit import answer, in_dialog, invite, phone_request, register

from sip.message import Response


def talk(forwarder, server):
    assert forwarder.ask(register(), server).status == 200
    offered = forwarder.ask(invite(), server)
    assert forwarder.ask(answer(offered, 200), server).status == 200
    assert forwarder.ask(in_dialog("ACK", cseq=1), server).method == "ACK"


@pytest.mark.long
def test_a_call_survives_kill_9_and_the_survivor_bills_it(forwarder, program, eventually):
    server1, server2 = program("server1").start(), program("server2").start()
    talk(forwarder, server1)
    eventually(lambda: server1.read("/calls")["calls"][0]["seconds"] >= 1)
    server1.process.kill()
    server1.process.wait(HELLO)

    probe = forwarder.ask(in_dialog("OPTIONS"), server2)
    assert probe.uri == "sip:bob@127.0.0.1:4100"
    assert forwarder.ask(answer(probe, 200), server2).status == 200
    eventually(lambda: server2.read("/calls")["calls"][0]["seconds"] >= 3)
    assert forwarder.ask(in_dialog("BYE", cseq=3), server2).method == "BYE"

    call = server2.read("/calls")["calls"][0]
    assert (call["state"], call["final"], call["why"], call["currency"]) == (
        "ended",
        True,
        "alice hung up",
        "EUR",
    )
    assert [share["server"] for share in call["carried"]] == ["server1", "server2"]
    assert sum(share["seconds"] for share in call["carried"]) == call["seconds"] >= 3
    assert (call["units"], call["total"]) == (1, "0.15")
    members = {each["name"]: each for each in server2.read("/members")["members"]}
    assert members["server2"]["alive"]
    eventually(
        lambda: not {m["name"]: m for m in server2.read("/members")["members"]}["server1"]["alive"]
    )

    server1 = program("server1").start()  # comes back as it was
    assert server1.read("/calls")["calls"] == [call]
    assert [each["contact"] for each in server1.read("/bindings")["bindings"]] == [
        "sip:bob@127.0.0.1:4100"
    ]


def test_sigterm_and_ctrl_c_stop_it_cleanly_and_leave_no_lock(forwarder, program, tmp_path):
    for number in (signal.SIGTERM, signal.SIGINT):
        server = program("server1").start()
        assert forwarder.ask(register(), server).status == 200
        assert server.end(number) == (0, "")
    assert [each.name for each in tmp_path.iterdir()] == ["cluster.db"]
    survivor = program("server2").start()
    members = {each["name"]: each for each in survivor.read("/members")["members"]}
    assert members["server1"]["stopped"]
    assert not members["server1"]["alive"]


def test_a_heartbeat_hears_503_while_the_store_is_locked_and_200_again_after(
    forwarder, program, tmp_path, eventually
):
    server = program("server1").start()
    heartbeat = phone_request("OPTIONS", "sip:127.0.0.1:5070")
    assert forwarder.ask(heartbeat, server).status == 200
    lock = sqlite3.connect(tmp_path / "cluster.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    eventually(lambda: forwarder.ask(heartbeat, server).status == 503)
    assert forwarder.ask(register(), server).status == 503
    assert "locked" in server.read("/status")["store"]
    lock.execute("ROLLBACK")
    lock.close()
    eventually(lambda: forwarder.ask(heartbeat, server).status == 200)
    assert forwarder.ask(register(), server).status == 200


def test_a_caller_whose_invite_grows_too_large_here_is_told_and_its_call_is_over(
    forwarder, program
):
    """With this server's Via no datagram can hold it."""
    server = program("server1").start()
    assert forwarder.ask(register(), server).status == 200
    large = invite()
    large.body = b"x" * (65_500 - len(large.to_bytes()))
    refused = forwarder.ask(large, server)
    assert (refused.status, refused.reason) == (513, "Message Too Large")
    assert len(refused.all("Via")) == len(large.all("Via")), "it goes back to the caller"
    forwarder.send(phone_request("ACK", large.uri, to_tag=refused.to_tag), server)
    assert forwarder.ask(invite(call_id="c2"), server).method == "INVITE", "the ACK ends here"
    calls = {each["call_id"]: each for each in server.read("/calls")["calls"]}
    assert (calls["c1"]["state"], calls["c1"]["total"]) == ("ended", "0.00")
    assert server.read("/status")["dropped"]["unsendable"] == 1


@contextlib.contextmanager
def locked(path):
    """Somebody else's hand on the store: it can be read, and not written to."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as lock:
        lock.execute("BEGIN IMMEDIATE")
        yield
        lock.execute("ROLLBACK")


def test_who_hangs_up_while_the_store_is_locked_is_passed_on_at_once_and_billed_to_that_moment(
    forwarder, program, tmp_path, eventually
):
    server = program("server1").start()
    talk(forwarder, server)
    answered = server.read("/calls")["calls"][0]["answered"]
    with locked(tmp_path / "cluster.db"):
        before = time.time()
        bye = forwarder.ask(in_dialog("BYE", cseq=3), server)
        assert bye.method == "BYE" and forwarder.ask(answer(bye, 200), server).status == 200
        after = time.time()
        assert server.read("/status")["waiting"] == 1
        heartbeat = phone_request("OPTIONS", "sip:127.0.0.1:5070")
        eventually(lambda: forwarder.ask(heartbeat, server).status == 503)
        assert server.read("/calls")["calls"][0]["state"] == "answered"
    call = eventually(
        lambda: next((call for call in server.read("/calls")["calls"] if call["final"]), None)
    )
    assert before <= call["ended"] <= after and call["answered"] == answered
    status = server.read("/status")
    assert (status["waiting"], status["bills_closed"]) == (0, 1)


@pytest.mark.long
def test_a_server_that_is_stopped_while_the_store_is_locked_waits_a_moment_and_says_what_is_lost(
    forwarder, program, tmp_path
):
    server = program("server1").start()
    talk(forwarder, server)
    with locked(tmp_path / "cluster.db"):
        assert forwarder.ask(in_dialog("BYE", cseq=3), server).method == "BYE"
        status, said = server.end(signal.SIGTERM)
    assert (
        status == 0
        and "the store did not come back in time: bills will lack BYE of call c1" in said
    )


def test_passwords_are_asked_when_a_file_of_users_is_given(forwarder, program, tmp_path):
    (tmp_path / "users").write_text("# ours\nbob:builder\n")
    server = program("server1", "--users", str(tmp_path / "users"), "--realm", "ours.test").start()
    challenged = forwarder.ask(register(), server)
    assert isinstance(challenged, Response)
    assert challenged.status == 401
    assert 'realm="ours.test"' in challenged.get("WWW-Authenticate")


def test_noise_is_counted_and_nothing_falls_over(forwarder, program):
    server = program("server1").start()
    unreadable = (b"\r\n\r\n", b"\xff" * 2000, b"", b"GET / HTTP/1.1\r\n\r\n")
    for data in (*unreadable, b"INVITE x SIP/2.0\r\n\r\n", b"SIP/2.0 200 OK\r\n\r\n"):
        forwarder.sock.sendto(data, ("127.0.0.1", server.port))
    assert forwarder.ask(phone_request("OPTIONS", "sip:x"), server).status == 200
    status = server.read("/status")
    assert status["handled"]["heartbeats"] == 1
    assert sum(status["dropped"].values()) == 6
    assert server.end(signal.SIGTERM) == (0, "")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--tariff", "cheap"], "as in 0.10+0.05/10s"),
        (["--listen", "127.0.0.1"], "--listen: '127.0.0.1' has no port"),
        (["--forwarder", "forwarder:5060"], "--forwarder: 'forwarder' is not an IP address"),
        (["--users", "nowhere"], "--users: cannot read nowhere"),
        (["--store", "nowhere/cluster.db"], "there is no folder"),
        (["--name", ""], "--name: it must be"),
    ],
)
def test_what_is_wrong_at_the_start_is_one_sentence_with_the_remedy(program, options, sentence):
    finished = subprocess.run(
        [*program("server1").argv, *options], capture_output=True, text=True, timeout=HELLO
    )
    assert (finished.returncode, finished.stdout) == (1, "")
    assert sentence in finished.stderr
    assert len(finished.stderr.splitlines()) == 1


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_a_taken_port_is_named(program, kind):
    server = program("server1")
    with socket.socket(socket.AF_INET, kind) as taken:
        port = server.port if kind == socket.SOCK_DGRAM else int(server.page.rpartition(":")[2])
        taken.bind(("127.0.0.1", port))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        finished = subprocess.run(server.argv, capture_output=True, text=True, timeout=HELLO)
    assert finished.returncode == 1
    assert f"127.0.0.1:{port}" in finished.stderr
    assert "name another one" in finished.stderr
    assert len(finished.stderr.splitlines()) == 1


@pytest.mark.parametrize("text", ["alice", ":secret", "alice:", "alice:x\nalice:y"])
def test_a_broken_line_of_the_password_file_is_named(program, tmp_path, text):
    users = tmp_path / "users"
    users.write_text(f"# users\n{text}\n")
    argv = [*program("server1").argv, "--users", str(users)]
    finished = subprocess.run(argv, capture_output=True, text=True, timeout=HELLO)
    assert finished.returncode == 1
    assert f"{users}:{1 + len(text.splitlines())}:" in finished.stderr


@pytest.mark.long
def test_a_balance_ends_at_the_survivor_of_kill_9(forwarder, program, eventually, tmp_path):
    (tmp_path / "balances").write_text("alice:0.30\n")
    options = ("--deploy", f"prepaid:{tmp_path / 'balances'}", "--tariff", "0.10+0.10/1s")
    server1, server2 = program("server1", *options).start(), program("server2", *options).start()
    talk(forwarder, server1)
    server1.process.kill()
    bill = eventually(
        lambda: next((call for call in server2.read("/calls")["calls"] if call["unpaid"]), None),
        HELLO,
    )
    assert (bill["total"], bill["units"], bill["state"]) == ("0.30", 2, "answered")
    assert "alice's balance ended before" in bill["why"]
    assert forwarder.ask(in_dialog("BYE"), server2).method == "BYE"
    assert server2.read("/calls")["calls"][0]["total"] == "0.30"
    balance = {"paid_in": "0.30", "used": "0.30", "balance": "0.00", "currency": "EUR"}
    assert server2.read("/status")["services"]["prepaid"]["alice"] == balance
    assert forwarder.ask(invite(call_id="c2", tag="a2"), server2).status == 402
    returned = program("server1", *options).start()
    assert returned.read("/status")["services"]["prepaid"]["alice"] == balance
