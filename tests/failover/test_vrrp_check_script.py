"""`forwarder.py --probe ADDRESS`: 0 only if a forwarder serves there, on real sockets, and what the
core answers."""

from __future__ import annotations

import socket
import threading

import pytest
from forwarder_kit import ALICE, fake_servers, field, head, make_core, plain_phone, request
from forwarder_program_kit import run

from failover.config.settings import PHONES
from failover.net.vrrp_check_script import DEAD, SERVES, probe
from failover.upstream.health import REFUSED
from plumbing.udp_socket import bind_udp

ASKED = {"method": "OPTIONS", "uri": "sip:192.0.2.1:5060", "hops": "Max-Forwards: 0"}


def test_the_forwarder_answers_itself_and_gives_no_server_work():
    core = make_core()
    outcome = core.receive(request(**ASKED), PHONES, ALICE, 1.0)
    (sent,) = outcome.sends
    assert (sent.to, sent.target, head(sent.data)[0]) == (PHONES, ALICE, "SIP/2.0 200 OK")
    assert outcome.events == () and core.counters == {"answered.200": 1}, (
        "no line in the log, ten times a second"
    )


def test_it_says_503_where_no_server_takes_new_calls():
    core = make_core()
    for name in ("server1", "server2"):
        core.failover.signal(name, REFUSED, 1.0, "refused")
    (sent,) = core.receive(request(**ASKED), PHONES, ALICE, 2.0).sends
    assert head(sent.data)[0] == "SIP/2.0 503 Service Unavailable" and field(
        sent.data, "Retry-After"
    )


@pytest.mark.parametrize("other", [{"uri": "sip:bob@192.0.2.1"}, {"method": "INVITE"}])
def test_anything_else_that_may_go_no_further_is_refused(other):
    (sent,) = make_core().receive(request(**{**ASKED, **other}), PHONES, ALICE, 1.0).sends
    assert head(sent.data)[0] == "SIP/2.0 483 Too Many Hops"


def test_a_forwarder_that_serves_is_told_from_a_port_where_nobody_is(program, free_port):
    with fake_servers(free_port) as servers:
        running, address, _ = program(servers)
        where = f"127.0.0.1:{address[1]}"
        said = run("--probe", where)
        assert (said.returncode, said.stdout, said.stderr) == (0, f"{where} serves\n", "")
        assert all(not server.heard for server in servers)
        for server in servers:
            server.kill()
        said = run("--probe", where)
        assert (said.returncode, said.stdout) == (
            3,
            f"{where} answers, but no server takes new calls\n",
        ), "it lives"
        assert running.stop() == 0
    said = run("--probe", where)
    assert (said.returncode, said.stdout, said.stderr) == (1, "", f"nobody listens at {where}\n")


def test_one_that_hangs_is_told_after_the_patience_and_a_lost_datagram_is_no_death():
    with socket.socket(type=socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        address = deaf.getsockname()
        assert probe(address, 0.3) == (DEAD, f"127.0.0.1:{address[1]} did not answer within 0.3 s")
        assert len({deaf.recv(65_535) for _ in range(2)}) == 2, "asked twice"

        def answer_the_second() -> None:
            deaf.settimeout(5.0)
            deaf.recvfrom(65_535)
            data, source = deaf.recvfrom(65_535)
            core = make_core()
            (sent,) = core.receive(data, PHONES, source, 1.0).sends
            deaf.sendto(sent.data, source)

        answering = threading.Thread(target=answer_the_second)
        answering.start()
        assert probe(address, 5.0)[0] == SERVES
        answering.join()


def test_what_is_no_address_is_a_sentence():
    said = run("--probe", "127.0.0.1:many")
    assert (
        said.returncode == 1
        and said.stderr == "'many' is not a port in '127.0.0.1:many' (0 to 65535)\n"
    )


def test_datagrams_that_are_no_answers_do_not_make_it_ask_more_often():
    with bind_udp(("127.0.0.1", 0)) as echo:
        echo.settimeout(5.0)
        asked = []

        def say_it_back():
            while True:
                data, source = echo.recvfrom(65_535)
                if data == b"end":
                    return
                asked.append(data)
                echo.sendto(data, source)

        thread = threading.Thread(target=say_it_back)
        thread.start()
        assert probe(echo.getsockname(), 0.6)[0] == DEAD
        with plain_phone() as other:
            other.sendto(b"end", echo.getsockname())
        thread.join()
    assert 1 <= len(asked) <= 3
