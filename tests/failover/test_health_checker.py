"""The forwarder watching real sockets: what is taken for life, and what is not."""

from __future__ import annotations

import contextlib
import time

import pytest
from forwarder_kit import (
    ask,
    config,
    fake_servers,
    field,
    is_state,
    plain_phone,
    request,
    running,
    state_of,
)

BROKEN = "nonsense"  # a heartbeat's answer with this for a status is none


def test_what_a_server_that_is_down_sends_is_no_sign_of_life(free_port, eventually):
    with fake_servers(free_port) as servers, plain_phone() as phone:
        address = ("127.0.0.1", free_port())
        with running(config(address[1], servers)) as forwarder:
            assert field(ask(phone, address, "z9hG4bK1"), "X-Server") == "server1"
            servers[0].heartbeat = BROKEN
            eventually(is_state(forwarder, "server1", "DOWN"))
            host, port = phone.getsockname()
            for n in range(50):
                told = request(
                    "MESSAGE",
                    f"sip:bob@{host}:{port}",
                    source=servers[0].address,
                    branch=f"z9hG4bKm{n}",
                )
                servers[0].send(told, address)
            eventually(lambda: forwarder.status()["counters"].get("dropped.fenced", 0) >= 50)
            assert state_of(forwarder, "server1") == "DOWN"
            servers[0].heartbeat = "200 OK"
            eventually(is_state(forwarder, "server1", "UP"))
            servers[0].send(told, address)
            assert phone.recv(65_535).startswith(b"MESSAGE")


def test_a_server_too_busy_for_its_heartbeats_keeps_its_calls_as_long_as_it_answers_them(
    free_port, eventually
):
    with fake_servers(free_port) as servers, plain_phone() as phone:
        address = ("127.0.0.1", free_port())
        with running(config(address[1], servers)) as forwarder:
            eventually(is_state(forwarder, "server1", "UP"))
            servers[0].heartbeat = BROKEN
            asked, begun = 0, time.monotonic()
            # twice as long as what a hung server repeats is believed
            while time.monotonic() - begun < 2.0:
                asked += 1
                assert field(ask(phone, address, f"z9hG4bK{asked}"), "X-Server") == "server1"
            servers[0].freeze()
            assert field(ask(phone, address, "z9hG4bKlast"), "X-Server") == "server2", (
                "hung, it is left all the same"
            )


@pytest.mark.long
def test_an_overloaded_server_stays_however_late_it_answers(free_port, eventually):
    """Its heartbeats drown, and every answer is to something older than what a hung one would be
    believed."""
    late = 1.5
    with fake_servers(free_port) as servers, plain_phone() as phone:
        address = ("127.0.0.1", free_port())
        with running(config(address[1], servers)) as forwarder:
            eventually(is_state(forwarder, "server1", "UP"))
            servers[0].late = late
            asked, begun, answered = 0, time.monotonic(), []
            phone.settimeout(0.02)
            while time.monotonic() - begun < 4 * late:
                if time.monotonic() - begun > late:
                    servers[0].heartbeat = BROKEN
                asked += 1
                phone.sendto(
                    request("OPTIONS", source=phone.getsockname(), branch=f"z9hG4bK{asked}"),
                    address,
                )
                with contextlib.suppress(TimeoutError):
                    answered.append(field(phone.recv(65_535), "X-Server"))
            server1 = forwarder.status()["servers"][0]
            assert (server1["falls"], server1["state"]) in ((0, "UP"), (0, "FAILING")), server1
            assert (
                answered.count("server1") > 50
                and forwarder.status()["counters"].get("replayed", 0) == 0
            )


def test_a_server_that_is_slow_to_answer_is_asked_early_and_stays_up(free_port, eventually):
    with fake_servers(free_port) as servers, plain_phone() as phone:
        address = ("127.0.0.1", free_port())
        with running(config(address[1], servers, "heartbeat.interval=1")) as forwarder:
            eventually(is_state(forwarder, "server1", "UP"))
            beats = []
            real = servers[0]._sock

            class Counting:
                def sendto(self, data, target):
                    beats.append(data)
                    return real.sendto(data, target)

                def __getattr__(self, name):
                    return getattr(real, name)

            servers[0]._sock = Counting()
            servers[0].replies = False
            phone.sendto(
                request("OPTIONS", source=phone.getsockname(), branch="z9hG4bKslow"), address
            )
            eventually(lambda: beats, 0.9)
            assert state_of(forwarder, "server1") == "UP"
            servers[0]._sock = real


def test_a_reload_keeps_watching_at_the_new_pace(free_port, eventually):
    with fake_servers(free_port) as servers:
        port = free_port()
        with running(config(port, servers, "heartbeat.interval=10")) as forwarder:
            eventually(is_state(forwarder, "server1", "UP"))
            forwarder.reload(config(port, servers, "heartbeat.interval=0.05"))
            servers[0].freeze()
            eventually(is_state(forwarder, "server1", "DOWN"), 3.0)
            servers[0].thaw()
            eventually(is_state(forwarder, "server1", "UP"))


def test_with_sides_of_their_own_ports_a_thawed_server_s_stale_answers_fall_too(
    free_port, eventually, monkeypatch
):
    monkeypatch.setattr("failover.net.sockets.SHARES_PORTS", False)
    with fake_servers(free_port) as servers, plain_phone() as phone:
        address = ("127.0.0.1", free_port())
        with running(config(address[1], servers)) as forwarder:
            assert field(ask(phone, address, "z9hG4bK1"), "X-Server") == "server1"
            servers[0].freeze()
            assert field(ask(phone, address, "z9hG4bK2"), "X-Server") == "server2"
            servers[0].thaw()
            eventually(is_state(forwarder, "server1", "UP"))
            assert field(ask(phone, address, "z9hG4bK3"), "X-Server") == "server1", (
                "and nothing came before it"
            )
