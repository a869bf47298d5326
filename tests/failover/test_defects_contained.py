"""A defect of the forwarder's own, met once or again and again, costs only the server or datagram
it befell: the checks go on, the others of the same turn are served, the address is let go, and
monitoring sees it."""

from __future__ import annotations

import errno
import time

import pytest
from forwarder_kit import (
    ALICE,
    ask,
    config,
    fake_servers,
    field,
    make_core,
    plain_phone,
    request,
    running,
    state_of,
)
from heartbeat_kit import beat, body

from failover import cli
from failover.config.settings import PHONES
from failover.forwarder import Forwarder
from failover.net.health_checker import HealthChecker
from failover.proxy.core import Core
from failover.proxy.events import NOTHING
from failover.upstream.failover import Failover
from failover.upstream.health import REFUSED
from plumbing.address import format_address
from plumbing.event_loop import Loop


def serving(*arguments):
    """A forwarder with these servers and lines; see `config`."""
    return running(config(*arguments))


def fails(times, only=lambda *_: True, of=lambda *_, **__: None):
    """A method that raises the first so many times that it is called so, and else does what it
    did."""
    left = [times]

    def method(*arguments, **named):
        if left[0] and only(*arguments):
            left[0] -= 1
            raise ValueError("a defect")
        return of(*arguments, **named)

    return method


# -- the checks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["_count_miss", "_catch_up", "_send_ping"])
@pytest.mark.parametrize("times", [1, 1_000_000])
def test_one_server_s_defect_keeps_no_other_from_being_asked(
    free_port, eventually, monkeypatch, where, times
):
    with fake_servers(free_port) as servers, serving(free_port(), servers) as forwarder:
        eventually(lambda: [state_of(forwarder, each.name) for each in servers] == ["UP", "UP"])
        first = fails(
            times,
            lambda self, link, late: link.server.name == "server1",
            getattr(HealthChecker, where),
        )
        monkeypatch.setattr(HealthChecker, where, first)
        eventually(lambda: forwarder.status()["errors"])
        servers[1].freeze()
        eventually(lambda: state_of(forwarder, "server2") == "DOWN", 2.0)
        servers[1].thaw()
        eventually(lambda: state_of(forwarder, "server2") == "UP", 2.0)
        assert state_of(forwarder, "server1") == "UP" or where == "_send_ping"


def test_an_exception_out_of_the_core_in_a_heartbeat_turn_is_counted_and_the_turns_go_on(
    free_port, eventually, monkeypatch, caplog
):
    with fake_servers(free_port) as servers, serving(free_port(), servers) as forwarder:
        eventually(lambda: [state_of(forwarder, each.name) for each in servers] == ["UP", "UP"])
        monkeypatch.setattr(Failover, "signal", fails(1, of=Failover.signal))
        servers[0].freeze()
        eventually(lambda: state_of(forwarder, "server1") == "DOWN", 2.0)
        servers[0].thaw()
        eventually(lambda: state_of(forwarder, "server1") == "UP", 2.0)
        assert forwarder.status()["errors"] == 1
        assert "\nforwarder_errors_total 1\n" in forwarder.metrics()
        assert any("error 1, going on" in line for line in caplog.messages)


def test_a_persistent_defect_in_the_checks_does_not_keep_the_processor_busy(
    free_port, eventually, monkeypatch
):
    with fake_servers(free_port) as servers, serving(free_port(), servers) as forwarder:
        eventually(lambda: [state_of(forwarder, each.name) for each in servers] == ["UP", "UP"])
        monkeypatch.setattr(HealthChecker, "_count_miss", fails(1_000_000))
        eventually(lambda: forwarder.status()["errors"])
        before, began = forwarder.status()["errors"], time.monotonic()
        eventually(lambda: time.monotonic() > began + 0.5)
        turns = (forwarder.status()["errors"] - before) / len(servers)
        assert turns < 0.5 / 0.05 * 4, "about one an interval"


# -- one turn of many datagrams --------------------------------------------------------------------


def test_of_the_datagrams_of_one_turn_a_defect_costs_one(free_port, eventually, monkeypatch):
    def poisonous(data, *_):
        return b"poison" in data

    port = free_port()
    with (
        fake_servers(free_port) as servers,
        serving(port, servers) as forwarder,
        plain_phone() as phone,
    ):
        eventually(lambda: state_of(forwarder, "server1") == "UP")
        core = forwarder._core
        monkeypatch.setattr(core, "quick", fails(1_000_000, poisonous, core.quick))
        monkeypatch.setattr(core, "receive", fails(1_000_000, poisonous, core.receive))

        def twenty():  # on the forwarder's own thread, so that it finds them all in one turn
            for n in range(20):
                call = "poison" if n == 3 else f"call-{n}"
                data = request(
                    "OPTIONS", source=phone.getsockname(), branch=f"z9hG4bK{n}", call_id=call
                )
                phone.sendto(data, ("127.0.0.1", port))
            channel = forwarder._relay.phones
            channel._backlog = True
            forwarder._relay.receive(channel, PHONES)

        forwarder._loop.ask(twenty)
        eventually(lambda: len(servers[0].heard) == 19)
        assert forwarder.status()["errors"] == 1


@pytest.mark.parametrize("way", ["the system would not send", "the phone's computer refused"])
def test_of_what_cannot_be_delivered_at_one_time_a_defect_costs_one(
    free_port, eventually, monkeypatch, way
):
    port, gone = free_port(), ("127.0.0.1", free_port())
    with fake_servers(free_port) as servers, serving(port, servers) as forwarder:
        eventually(lambda: state_of(forwarder, "server1") == "UP")
        told = []
        monkeypatch.setattr(
            Core, "undelivered", fails(1, of=lambda core, data, *_: told.append(data) or NOTHING)
        )
        lot = [(b"first", gone), (b"second", gone), (b"third", gone)]

        def fail():
            relay = forwarder._relay
            if way == "the system would not send":
                relay._handle_failures(
                    PHONES, lot, [(n, OSError(errno.ENETUNREACH, "no way")) for n in range(3)]
                )
                return
            monkeypatch.setattr("failover.net.relay.icmp_errors", lambda sock: list(lot))
            relay._sent.append(lot)
            relay._handle_icmp_errors(relay.phones)

        forwarder._loop.ask(fail)
        assert told == [b"second", b"third"] and forwarder.status()["errors"] == 1


def test_of_what_a_dead_server_owed_a_defect_costs_one(monkeypatch):
    poison = fails(
        1_000, lambda core, row, now: b"call-5x" in row.data and row.replayed, Core._handle
    )
    monkeypatch.setattr(Core, "_handle", poison)
    core = make_core()
    for n in range(40):
        core.receive(
            request("OPTIONS", branch=f"z9hG4bK{n}", call_id=f"call-{n}x"), PHONES, ALICE, 100.0
        )
    sent = len(core.failover.signal("server1", REFUSED, 101.0, "refused").sends)
    while core.pending.moved:
        sent += len(core.failover.replay(101.0).sends)
    assert sent == 39 and core.counters["replayed"] == 39
    assert [str(error) for error in core.failover.replay_errors] == ["a defect"], (
        "for the shell, which counts and tells it"
    )


def test_a_defect_amid_a_failover_is_counted_and_the_rest_is_replayed(
    free_port, eventually, monkeypatch
):
    poison = fails(
        1_000, lambda core, row, now: b"call-7x" in row.data and row.replayed, Core._handle
    )
    monkeypatch.setattr(Core, "_handle", poison)
    port = free_port()
    with (
        fake_servers(free_port) as servers,
        serving(port, servers) as forwarder,
        plain_phone() as phone,
    ):
        eventually(lambda: [state_of(forwarder, each.name) for each in servers] == ["UP", "UP"])
        servers[0].replies = False
        for n in range(60):
            data = request(
                "OPTIONS", source=phone.getsockname(), branch=f"z9hG4bK{n}", call_id=f"call-{n}x"
            )
            phone.sendto(data, ("127.0.0.1", port))
        eventually(lambda: len(servers[0].heard) == 60)
        servers[0].kill()
        eventually(lambda: len(servers[1].heard) == 59)
        assert forwarder.status()["errors"] == 1


def test_telling_that_fails_keeps_nothing_from_being_sent(free_port, eventually, monkeypatch):
    port = free_port()
    with (
        fake_servers(free_port) as servers,
        serving(port, servers) as forwarder,
        plain_phone() as phone,
    ):
        eventually(lambda: state_of(forwarder, "server1") == "UP")
        monkeypatch.setattr("failover.admin.event_log.EventLog.record", fails(1_000_000))
        monkeypatch.setattr(forwarder._core, "quick", lambda *_: None)
        assert field(ask(phone, ("127.0.0.1", port), "z9hG4bK1"), "X-Server") == "server1"
        servers[0].kill()
        assert field(ask(phone, ("127.0.0.1", port), "z9hG4bK2"), "X-Server") == "server2"
        assert forwarder.status()["errors"]


def test_what_is_for_a_side_that_is_not_open_is_counted_and_the_side_is_opened_again(
    free_port, eventually
):
    port = free_port()
    with (
        fake_servers(free_port) as servers,
        serving(port, servers) as forwarder,
        plain_phone() as phone,
    ):
        eventually(lambda: state_of(forwarder, "server1") == "UP")
        data = request("OPTIONS", source=phone.getsockname(), branch="z9hG4bK1")

        def closed_and_wanted():  # on the forwarder's own thread, so that nothing comes in between
            forwarder._links.close_side(forwarder._links.by_name["server1"])
            phone.sendto(data, ("127.0.0.1", port))
            forwarder._relay.receive(forwarder._relay.phones, PHONES)

        forwarder._loop.ask(closed_and_wanted)
        numbers = iter(range(2, 1_000))
        phone.settimeout(0.1)

        def answered():
            try:
                return (
                    field(ask(phone, ("127.0.0.1", port), f"z9hG4bK{next(numbers)}"), "X-Server")
                    == "server1"
                )
            except TimeoutError:
                return False

        eventually(answered)
        counters = forwarder.status()["counters"]
        assert counters["dropped.closed"] >= 1


# -- the address -----------------------------------------------------------------------------------


def test_a_standby_that_fails_in_taking_the_address_does_not_hold_it_from_itself(
    free_port, eventually, monkeypatch
):
    port = free_port()
    with (
        fake_servers(free_port) as servers,
        serving(port, servers) as first,
        serving(port, servers) as second,
    ):
        assert second.status()["role"] == "standby"
        monkeypatch.setattr(Failover, "become_active", fails(1, of=Failover.become_active))
        first.stop()
        eventually(lambda: second.status()["role"] == "active", 2.0)
        assert second.status()["errors"] == 1
        with plain_phone() as phone:
            assert field(ask(phone, ("127.0.0.1", port), "z9hG4bK1"), "X-Server") == "server1"


def test_a_registered_server_whose_leave_could_not_be_carried_out_leaves_at_the_next_look(
    free_port, eventually, monkeypatch
):
    desk = ("127.0.0.1", free_port())
    lines = [f"registration.listen={format_address(desk)}", "registration.timeout=0.5"]
    with fake_servers(free_port) as servers, serving(free_port(), servers[:1], *lines) as forwarder:
        with plain_phone() as phone:
            phone.sendto(beat(body(*servers[1].address)), desk)
        eventually(lambda: len(forwarder.status()["servers"]) == 2)
        monkeypatch.setattr(Forwarder, "use_registered", fails(1, of=Forwarder.use_registered))
        servers[1].kill()
        eventually(lambda: len(forwarder.status()["servers"]) == 1)
        assert forwarder.status()["errors"] == 1


def test_one_that_fails_in_letting_go_has_closed_every_socket_all_the_same(
    free_port, eventually, monkeypatch
):
    port = free_port()
    with (
        fake_servers(free_port) as servers,
        serving(port, servers) as first,
        serving(port, servers) as second,
    ):
        monkeypatch.setattr(first._loop, "unwatch", fails(1_000_000))
        first._loop.ask(first.release_address)
        eventually(lambda: second.status()["role"] == "active", 2.0)
        monkeypatch.undo()


# -- the loop --------------------------------------------------------------------------------------


def test_a_loop_outlives_sockets_that_cannot_be_waited_for_and_an_on_error_that_fails(caplog):
    loop = Loop("unlucky", on_error=fails(1_000))
    loop._poll, poll = fails(2, of=loop._poll), loop._poll
    loop.start()
    try:
        assert loop.ask(lambda: "lives") == "lives"
        assert loop.errors == 2
    finally:
        loop._poll = poll
        loop.stop()


# -- errors told as what they are ------------------------------------------------------------------


@pytest.fixture
def file(tmp_path, free_port):
    path = tmp_path / "servers.properties"
    path.write_text(
        f"server1=127.0.0.1:{free_port()}\nforwarder.listen=127.0.0.1:{free_port()}\nadmin.listen=\n"
    )
    return path


class Busy:
    """A forwarder whose reload ends as it is told to."""

    def __init__(self, error):
        self._error = error

    def reload(self, settings):
        raise self._error


@pytest.mark.parametrize(
    "error, told",
    [
        (
            TimeoutError("loop sip did not answer within 5 s, and is still at it"),
            "and is still at it; look at /status",
        ),
        (
            OSError(errno.ENETUNREACH, "Network is unreachable"),
            "reload failed, though the file is good",
        ),
        (ValueError("a defect"), "reload failed, though the file is good"),
    ],
)
def test_what_goes_wrong_in_a_reload_is_not_told_as_the_file_s_fault(file, caplog, error, told):
    cli._reload(file, Busy(error))
    (line,) = caplog.messages
    assert told in line and "name another file" not in line and "nothing changed" not in line


def test_who_waits_for_a_busy_thread_in_vain_is_told_whether_it_will_still_be_done():
    loop = Loop("busy")
    loop.start()
    try:
        with pytest.raises(TimeoutError, match=r"within 0\.05 s, and is still at it"):
            loop.ask(lambda: time.sleep(0.3), timeout=0.05)
        done = []
        with pytest.raises(TimeoutError, match=r"within 0\.05 s, and it will not be done"):
            loop.ask(lambda: done.append(1), timeout=0.05)
        assert loop.ask(lambda: done) == []
    finally:
        loop.stop()


def test_whatever_fails_at_the_end_all_are_stopped_and_the_sentence_is_about_the_end(
    file, free_port, monkeypatch, capsys
):
    file.write_text(
        file.read_text().replace("admin.listen=", f"admin.listen=127.0.0.1:{free_port()}")
    )
    closed, stop = [], Forwarder.stop

    def late(self):
        stop(self)
        raise TimeoutError("thread sip is still busy after 2 s")

    monkeypatch.setattr(Forwarder, "stop", late)
    monkeypatch.setattr(cli.Notifier, "close", lambda self: closed.append(self))
    monkeypatch.setattr(cli, "_next_signal", lambda signals: "SIGTERM")
    monkeypatch.setattr(cli, "_handle_signals", lambda: None)
    monkeypatch.setattr(cli.logging_setup, "set_up", lambda verbose: None)
    monkeypatch.setattr("gc.freeze", lambda: None)
    assert cli.main([str(file)], file) == 1
    said = capsys.readouterr().err
    assert (
        "it has not ended as it should: thread sip is still busy after 2 s" in said
        and "look at" not in said
    )
    assert closed, "the notifier"  # that the pages have ended, no_thread_stays checks


def test_a_computer_without_ipv6_is_not_told_that_its_file_is_at_fault(file, monkeypatch):
    def no_ipv6(family, kind):
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr("failover.net.own_address.socket.socket", no_ipv6)
    file.write_text("server1=[2001:db8::1]:5060\nforwarder.listen=[::]:5060\n")
    assert cli.load(file).servers[0].name == "server1"


@pytest.mark.parametrize(
    "error, told",
    [
        (OSError(errno.EMFILE, "Too many open files"), "raise the limit"),
        (OSError(errno.EPIPE, "Broken pipe"), "the system refuses: Broken pipe"),
        (
            OSError(errno.EAFNOSUPPORT, "Address family not supported ([::]:5060)"),
            "does not speak IPv6",
        ),
    ],
)
def test_what_is_not_the_addresses_fault_is_not_told_as_theirs(
    file, monkeypatch, capsys, error, told
):
    def fail(*_):
        raise error

    monkeypatch.setattr(cli, "_run", fail)
    monkeypatch.setattr(cli.logging_setup, "set_up", lambda verbose: None)
    assert cli.main([str(file)], file) == 1
    said = capsys.readouterr().err
    assert told in said and "look at the addresses" not in said


class Supervised:
    """What systemd hears."""

    def __init__(self):
        self.beats = []

    def beat(self, status):
        self.beats.append(status)


def test_a_defect_in_the_status_line_is_no_silence_for_the_watchdog(
    free_port, monkeypatch, eventually
):
    supervised = Supervised()
    with fake_servers(free_port) as servers, serving(free_port(), servers) as forwarder:
        monkeypatch.setattr("failover.admin.status.summary", fails(1_000_000))
        forwarder.every(0.05, lambda: cli._beat(supervised, forwarder))
        eventually(lambda: len(supervised.beats) > 3)
        assert set(supervised.beats) == {None} and forwarder.status()["errors"]
