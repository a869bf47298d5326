"""Whether a forwarder sees a server, and what it tells keepalived of that: literals first, then a
real file."""

from __future__ import annotations

import os
import time

import pytest
from forwarder_kit import ALICE, fake_servers, field, head, make_core, plain_phone, request

from failover.config.settings import PHONES, SettingsError, read
from failover.config.shared_secret import ephemeral
from failover.forwarder import Forwarder
from failover.net.relay import Relay
from failover.upstream.health import ANSWER, MISS, REFUSED
from failover.upstream.upstream_reachability import (
    GRACE_SECONDS,
    MAX_HOLD_SECONDS,
    RENEWAL_SECONDS,
    STEADY_SECONDS,
    GracePeriod,
    ServerVisibility,
    any_answers,
)
from plumbing.address import format_address


def test_a_server_that_is_new_or_silent_for_fall_intervals_is_not_heard_though_it_may_be_in_use():
    core = make_core()
    servers = core.table.servers
    assert any_answers(servers, core.failover.fall)
    core.failover.signal("server1", REFUSED, 1.0, "refused")
    assert any_answers(servers, core.failover.fall), "the other one is"
    for n in range(core.failover.fall):
        assert any_answers(servers, core.failover.fall)
        core.failover.signal("server2", MISS, 1.0 + n, "no answer")
    assert not any_answers(servers, core.failover.fall)
    assert servers[1].accepts_dialogs, (
        "the last one is given up later, for nobody else would answer sooner"
    )
    core.failover.signal("server2", ANSWER, 9.0, "answers")
    assert any_answers(servers, core.failover.fall)
    for server in servers:
        server.ever_answered = False
    assert not any_answers(servers, core.failover.fall), "none has answered this forwarder yet"


def test_what_is_lost_is_told_at_once_and_what_is_back_after_a_moment_without_a_break():
    sight = ServerVisibility()
    assert [sight.update(True, at) for at in (0.0, STEADY_SECONDS - 0.01, STEADY_SECONDS)] == [
        False,
        False,
        True,
    ]
    assert not sight.update(False, 5.0)
    assert [sight.update(True, at) for at in (5.1, 5.2)] == [False, False]
    assert not sight.update(False, 5.21), "and again from the beginning"
    assert [
        sight.update(True, at) for at in (5.3, 5.3 + STEADY_SECONDS - 0.01, 5.31 + STEADY_SECONDS)
    ] == [
        False,
        False,
        True,
    ]


def test_a_way_that_breaks_off_again_and_again_is_trusted_ever_later_until_it_has_held_for_a_minute():
    sight, now, waited = ServerVisibility(), 0.0, []
    for _ in range(9):
        began = now
        while not sight.update(True, now):
            now += 0.05
        waited.append(round(now - began, 2))
        now += 0.5
        sight.update(False, now)
    assert waited[:3] == pytest.approx([STEADY_SECONDS] * 3, abs=0.06)
    assert waited[3:] == pytest.approx(
        [1.0, 2.0, 4.0, MAX_HOLD_SECONDS, MAX_HOLD_SECONDS, MAX_HOLD_SECONDS], abs=0.06
    )
    now += 0.1
    while not sight.update(True, now):
        now += 0.05
    now += 61.0
    sight.update(False, now)
    assert not sight.update(True, now) and sight.update(True, now + STEADY_SECONDS + 0.01)


def test_grace_is_for_the_first_second_of_requests_without_a_server_and_comes_back_after_a_while_without_any():
    grace = GracePeriod()
    assert [grace.covers(at) for at in (10.0, 10.5, 10.99, 11.0, 14.0, 18.9)] == [True] * 3 + [
        False
    ] * 3
    assert GRACE_SECONDS == 1.0 and RENEWAL_SECONDS == 5.0
    assert grace.covers(24.0)


def test_a_request_that_finds_no_server_has_no_answer_while_the_address_may_move_and_503_after_that():
    core = make_core()
    core.grace = GracePeriod()
    for name in ("server1", "server2"):
        core.failover.signal(name, REFUSED, 1.0, "refused")
    assert core.receive(request(), PHONES, ALICE, 2.0).sends == ()
    assert core.receive(request(), PHONES, ALICE, 2.5).sends == (), "said again"
    assert core.counters["dropped.grace"] == 2
    (refusal,) = core.receive(request(), PHONES, ALICE, 3.5).sends
    assert head(refusal.data)[0] == "SIP/2.0 503 Service Unavailable"


@pytest.fixture
def follow(free_port, tmp_path):
    """follow(file) -> (a forwarder with that track file, its servers, a phone, its address)."""
    started = []
    with fake_servers(free_port) as servers, plain_phone() as phone:

        def start(file):
            address = ("127.0.0.1", free_port())
            lines = [
                f"forwarder.listen={format_address(address)}",
                "admin.listen=",
                f"forwarder.track.file={file}",
            ]
            lines += [f"{server.name}={format_address(server.address)}" for server in servers]
            started.append(Forwarder(read("\n".join(lines), "test"), ephemeral("a test")))
            started[-1].start()
            return started[-1], servers, phone, address

        yield start
        for forwarder in started:
            forwarder.stop()


def test_the_file_is_1_while_a_server_is_seen_and_never_empty(follow, tmp_path, eventually):
    file = tmp_path / "sees"
    forwarder, servers, _, _ = follow(file)
    eventually(lambda: file.exists() and file.read_text() == "1\n")
    assert forwarder.status()["sees_server"] is True
    servers[0].freeze()
    eventually(lambda: forwarder.status()["hot"] == "server2")
    assert file.read_text() == "1\n"
    servers[1].freeze()
    said = set()
    eventually(lambda: said.add(file.read_text()) or "0\n" in said)
    assert said == {"1\n", "0\n"}
    assert forwarder.status()["sees_server"] is False
    assert forwarder.status()["hot"] == "server2", "still in use"
    servers[1].thaw()
    eventually(lambda: file.read_text() == "1\n")
    forwarder.stop()
    assert file.read_text() == "0\n", "one that has ended sees nothing"


def test_so_it_says_too_if_much_was_received_before_the_end(
    follow, tmp_path, eventually, monkeypatch
):
    file = tmp_path / "sees"
    forwarder, *_ = follow(file)
    eventually(lambda: file.exists() and file.read_text() == "1\n")
    monkeypatch.setattr(Relay, "finish", lambda _relay, _seconds: time.sleep(0.2))
    forwarder.stop()
    assert file.read_text() == "0\n"


def test_the_file_is_touched_while_the_thread_lives_and_may_be_read_by_the_check(
    follow, tmp_path, eventually
):
    file = tmp_path / "sees"
    forwarder, *_ = follow(file)
    eventually(lambda: file.exists() and file.read_text() == "1\n")
    assert file.stat().st_mode & 0o777 == 0o644
    os.utime(file, (0, 0))
    eventually(lambda: file.stat().st_mtime > time.time() - 2.0, 2.0)
    file.unlink()
    eventually(lambda: file.exists() and file.read_text() == "1\n", 2.0)
    assert forwarder.status()["counters"]["trouble.track"] == 1


def test_a_file_that_cannot_be_written_is_counted_and_tried_again_and_calls_go_on(
    follow, tmp_path, eventually
):
    file = tmp_path / "folder" / "sees"
    forwarder, _, phone, address = follow(file)
    eventually(lambda: forwarder.status()["counters"].get("trouble.track"))
    phone.sendto(request("OPTIONS", source=phone.getsockname(), branch="z9hG4bK1"), address)
    assert field(phone.recv(65_535), "X-Server") == "server1"
    file.parent.mkdir()
    eventually(lambda: file.exists() and file.read_text() == "1\n")


def test_without_a_file_a_request_that_finds_no_server_is_refused_at_once(follow, eventually):
    forwarder, servers, phone, address = follow("")
    for server in servers:
        server.kill()
    eventually(lambda: forwarder.status()["hot"] is None)
    phone.sendto(request("OPTIONS", source=phone.getsockname(), branch="z9hG4bK1"), address)
    assert phone.recv(65_535).startswith(b"SIP/2.0 503")


def test_the_file_is_named_absolutely():
    with pytest.raises(SettingsError, match="'sees' is not absolute"):
        read("server1=127.0.0.1:5070\nforwarder.track.file=sees", "test")
