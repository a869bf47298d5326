"""Cluster time: a clock that is set, by an hour or a day, makes no bill longer, shorter or
absurd."""

from __future__ import annotations

import json
import time
import urllib.request

import pytest
from slee_kit import Cluster, DictStore, answer, in_dialog, invite, register

from slee_mock.cluster.cluster_clock import (
    LISTEN_SECONDS,
    Clock,
    boot_id,
    choose_offset,
    running_servers_time,
    steady_clock,
)
from slee_mock.server import Server
from slee_mock.settings import Settings
from slee_mock.store.interface import Transaction
from slee_mock.store.records import ClockOffset, Member

DAY = 86_400.0


class Computer:
    """Its two clocks, one of which people set."""

    def __init__(self, boot: str = "boot-1", system: float = 1_800_000_000.0) -> None:
        self.boot, self.system, self.steady = boot, system, 500.0

    def passes(self, seconds: float) -> None:
        self.system += seconds
        self.steady += seconds

    def clock(self, store: DictStore, wait=None) -> Clock:
        clock = Clock(lambda: self.system, lambda: self.steady, self.boot, wait or self.passes)
        clock.join(store)
        return clock


def sign(store: DictStore, clock: Clock, name: str = "server1", stopped: bool = False) -> None:
    Transaction(store).commit(
        [Member(name, "127.0.0.1:5070", last_seen=clock.now(), stopped=stopped)]
    )


@pytest.mark.parametrize("jump", [3600.0, -3600.0, DAY, -DAY])
def test_a_clock_that_is_set_moves_no_bill(jump):
    computer, cluster = Computer(), Cluster()
    first = computer.clock(cluster.store)
    cluster.now = first.now()
    cluster.sign("server1")
    cluster.one(register())
    cluster.one(answer(cluster.one(invite()), 200))
    computer.passes(7)
    computer.system += jump
    second = computer.clock(cluster.store)  # server1 has died, server2 starts after the jump
    cluster.now = second.now()
    cluster.one(in_dialog("INFO"), at="server2")
    computer.passes(5)
    cluster.now = second.now()
    cluster.one(in_dialog("BYE", cseq=3), at="server2")
    assert (cluster.bill().seconds, cluster.bill().total) == (12, "0.20")
    assert second.offset == pytest.approx(-jump)


def test_all_servers_of_a_computer_go_by_one_clock_through_their_crashes():
    computer, store = Computer(), DictStore()
    first = computer.clock(store)
    sign(store, first)
    computer.system += 3600
    assert computer.clock(store).now() == first.now()
    computer.passes(60)  # all are dead
    assert computer.clock(store).now() == first.now()


def test_the_time_of_day_is_believed_again_once_the_cluster_was_stopped_or_long_dead():
    computer, store = Computer(), DictStore()
    sign(store, computer.clock(store), stopped=True)
    computer.system += 3600
    assert computer.clock(store).offset == 0
    sign(store, computer.clock(store))
    computer.system -= DAY
    computer.passes(601)
    assert computer.clock(store).offset == 0


def test_a_computer_whose_clock_is_wrong_goes_by_the_living_servers_of_the_others():
    store, right, wrong = DictStore(), Computer(), Computer("boot-2", system=1_800_003_600.0)
    living = right.clock(store)
    sign(store, living)

    def pass_and_sign(seconds: float) -> None:
        assert seconds == LISTEN_SECONDS
        right.passes(seconds)
        wrong.passes(seconds)
        sign(store, living)

    assert wrong.clock(store, pass_and_sign).now() == pytest.approx(living.now(), abs=0.5)


def test_a_computer_started_anew_goes_by_its_clock_if_the_others_signs_are_old():
    store = DictStore()
    Transaction(store).commit([Member("server1", "127.0.0.1:5070", last_seen=1_700_000_000.0)])
    assert Computer("boot-2").clock(store).offset == 0


def test_servers_that_start_together_agree():
    computer, store = Computer(), DictStore()
    others = []

    def another_is_faster() -> None:
        computer.system += 0.25
        others.append(computer.clock(store))
        sign(store, others[0])

    store.before_save = another_is_faster
    assert computer.clock(store).now() == others[0].now()


@pytest.mark.parametrize(
    ("known", "signs", "offset"),
    [
        (None, (), 900.0),
        (ClockOffset("b", 700.0), (795.0,), 700.0),
        (ClockOffset("b", 700.0), (100.0,), 900.0),  # long dead
        (ClockOffset("b", 700.0), (), 900.0),
        # this computer was started anew and cannot tell
        (
            ClockOffset("b", 700.0),
            (5000.0,),
            900.0,
        ),
    ],
)
def test_what_a_server_that_starts_goes_by(known, signs, offset):
    members = [Member(str(number), "x", last_seen=sign) for number, sign in enumerate(signs)]
    assert choose_offset(known, members, "b", steady=100.0, system=1000.0) == ClockOffset(
        "b", offset
    )


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (50.0, 50.0, None),  # it gives no sign: it is dead
        (50.0, 50.5, 50.5),
        (999.0, 999.5, None),  # we agree
    ],
)
def test_only_who_gives_a_sign_tells_the_time(before, after, told):
    assert (
        running_servers_time(
            [Member("s", "x", last_seen=before)], [Member("s", "x", last_seen=after)], 1000.0
        )
        == told
    )


def test_the_steady_clock_is_the_same_for_all_processes_and_runs():
    before = steady_clock()
    assert 0 <= steady_clock() - before < 5 and boot_id() == boot_id() != ""


def test_a_running_server_tells_that_the_computers_clock_was_set(
    tmp_path, monkeypatch, caplog, eventually, free_port
):
    jump = 0.0
    monkeypatch.setattr("slee_mock.server.Clock", lambda: Clock(system=lambda: time.time() + jump))
    page = free_port()
    server = Server(
        Settings(
            "server1",
            ("127.0.0.1", free_port()),
            ("127.0.0.1", 5060),
            str(tmp_path / "cluster.db"),
            ("127.0.0.1", page),
        )
    )

    def read(path: str):
        with urllib.request.urlopen(f"http://127.0.0.1:{page}{path}", timeout=10) as answer:
            return json.load(answer)

    server.start()
    try:
        assert abs(read("/status")["clock_offset"]) < 0.5
        before = read("/calls")["now"]
        jump = 3600.0
        eventually(lambda: "cluster time is 3600.0 s behind this computer's clock" in caplog.text)
        assert (
            read("/status")["clock_offset"] == pytest.approx(-3600, abs=0.5)
            and read("/calls")["now"] - before < 60
        )
        assert caplog.text.count("cluster time is") == 1
    finally:
        server.stop()
