"""Registrations and passwords across real servers that share a store: kill -9, SIGSTOP and ten
thousand users."""

from __future__ import annotations

import os
import signal
import urllib.request

import pytest
from program_kit import HELLO, Program
from slee_kit import invite, register

from sip.digest import Challenge
from sip.digest import answer as solve
from sip.message import parse
from slee_mock.management.snapshot import MOST_USERS

UNANSWERED = 50  # requests at once on their way to a server


@pytest.fixture
def pair(free_port, tmp_path, forwarder):
    """pair(*options) -> server1 and server2, running."""
    made = []

    def start(*options):
        for name in ("server1", "server2"):
            store = tmp_path / "cluster.db"
            made.append(
                Program(name, store, forwarder.address, free_port(), free_port(), *options).start()
            )
        return made

    yield start
    for each in made:
        each.close()


def kill(server):
    server.process.kill()
    server.process.wait(HELLO)


def bound(server, user="bob"):
    return [
        each["contact"]
        for each in server.read("/bindings")["bindings"]
        if each["aor"].startswith(f"sip:{user}@")
    ]


def test_registered_with_one_server_called_and_refreshed_through_the_other_and_gone_for_both(
    forwarder, pair
):
    server1, server2 = pair()
    assert forwarder.ask(register(expires="300"), server1).status == 200
    kill(server1)
    assert forwarder.ask(invite(), server2).uri == "sip:bob@127.0.0.1:4100"
    refreshed = forwarder.ask(register(cseq=2, expires="600"), server2)
    assert refreshed.all("Contact") == ["<sip:bob@127.0.0.1:4100>;expires=600;q=1"]
    server1.close()
    server1.start()
    assert bound(server1) == bound(server2) == ["sip:bob@127.0.0.1:4100"]
    assert forwarder.ask(register(cseq=3, expires="0"), server1).all("Contact") == []
    assert forwarder.ask(register(cseq=2, expires="600"), server2).status == 500, "stale"
    assert bound(server1) == bound(server2) == []


def test_what_a_server_thaws_with_does_not_undo_what_the_other_did(forwarder, pair):
    server1, server2 = pair()
    assert forwarder.ask(register(), server1).status == 200
    server1.process.send_signal(signal.SIGSTOP)
    os.waitpid(server1.process.pid, os.WUNTRACED)  # until it has stopped
    goodbye = register(cseq=2, expires="0")
    forwarder.send(goodbye, server1)
    # as the forwarder does with what was not answered
    assert forwarder.ask(goodbye, server2).status == 200
    assert forwarder.ask(register(call_id="started-anew"), server2).status == 200
    server1.process.send_signal(signal.SIGCONT)
    late = parse(forwarder.sock.recv(65_535))
    assert (late.call_id, late.status, len(late.all("Contact"))) == ("r-bob", 200, 1)
    assert bound(server1) == bound(server2) == ["sip:bob@127.0.0.1:4100"]


@pytest.mark.long
def test_an_expired_binding_is_over_for_the_survivor_too(forwarder, pair, eventually):
    server1, server2 = pair()
    assert forwarder.ask(register(expires="10"), server1).status == 200
    kill(server1)
    assert bound(server2) == ["sip:bob@127.0.0.1:4100"]
    eventually(lambda: bound(server2) == [], timeout=20)
    assert forwarder.ask(invite(), server2).status == 480
    assert forwarder.ask(register(expires="10"), server2).all("Contact") == [], "its retransmission"
    assert forwarder.ask(invite(call_id="c2"), server2).status == 480


class FailedLogin:
    """A phone of bob at some address, which answers one challenge of `server` with one password
    after another."""

    def __init__(self, forwarder, server, address="127.0.0.1"):
        self._forwarder, self._address, self._cseq = forwarder, address, 1
        self._challenge = Challenge.parse(self._ask(register(), server).get("WWW-Authenticate"))

    def says(self, password, server):
        self._cseq += 1
        request = register(cseq=self._cseq)
        credentials = solve(
            self._challenge, "REGISTER", request.uri, "bob", password, "cn", nc=self._cseq
        )
        request.add("Authorization", str(credentials))
        return self._ask(request, server).status

    def _ask(self, request, server):
        data = request.to_bytes().replace(
            b"received=127.0.0.1", f"received={self._address}".encode()
        )
        return self._forwarder.ask(parse(data), server)


def test_a_server_killed_between_its_challenge_and_the_answer_and_guesses_stay_counted(
    forwarder, pair, tmp_path
):
    (tmp_path / "users").write_text("bob:builder\n")
    server1, server2 = pair("--users", str(tmp_path / "users"))
    guesser = FailedLogin(forwarder, server1)
    assert [guesser.says(f"guess{number}", server1) for number in range(6)] == [401] * 6
    kill(server1)
    assert [guesser.says(f"another{number}", server2) for number in range(5)] == [401] * 4 + [500]
    assert FailedLogin(forwarder, server2, "192.0.2.7").says("builder", server2) == 200
    dropped = server2.read("/status")["dropped"]
    assert (dropped["guessing_slowed"], dropped["wrong_password"]) == (1, 4)


def everybody(forwarder, server, count, cseq):
    """All users register, some at a time."""
    requests = [
        register(
            user=f"user{n}",
            contact=f"<sip:user{n}@127.0.0.1:4100>",
            call_id=f"r{n}",
            cseq=cseq,
            expires="3600",
        )
        for n in range(count)
    ]
    for request in requests[:UNANSWERED]:
        forwarder.send(request, server)
    for number in range(count):
        assert forwarder.sock.recv(65_535).startswith(b"SIP/2.0 200 ")
        if number + UNANSWERED < count:
            forwarder.send(requests[number + UNANSWERED], server)


@pytest.mark.parametrize("count", [MOST_USERS + 100, pytest.param(10_000, marks=pytest.mark.long)])
def test_so_many_users_are_bound_called_and_counted_after_a_kill_and_refreshed_in_the_same_room(
    count, forwarder, pair, tmp_path
):
    server1, server2 = pair()
    everybody(forwarder, server1, count, 1)
    kill(server1)
    size = (tmp_path / "cluster.db").stat().st_size + (tmp_path / "cluster.db-wal").stat().st_size
    for user in (0, count // 2, count - 1):
        called = forwarder.ask(
            invite(uri=f"sip:user{user}@failover.test", call_id=f"c{user}"), server2
        )
        assert called.uri == f"sip:user{user}@127.0.0.1:4100"
    found = server2.read("/bindings")
    assert (found["users"], found["shown"], len(found["bindings"])) == (
        count,
        MOST_USERS,
        MOST_USERS,
    )
    with urllib.request.urlopen(f"{server2.page}/metrics", timeout=5) as answer:
        assert f"slee_users {count}\n" in answer.read().decode()
    assert server2.read("/snapshot")["bindings"]["users"] == count
    everybody(forwarder, server2, count, 2)
    grown = (tmp_path / "cluster.db").stat().st_size + (tmp_path / "cluster.db-wal").stat().st_size
    assert grown < size * 1.1 + 4_200_000, (
        "a log of a thousand pages at most, and no copy of anything"
    )
    assert server2.read("/bindings")["users"] == count
