"""When a server is asked and what its silence means: literals, and hours on a clock that loses
datagrams."""

from __future__ import annotations

import heapq
import random

import pytest

from failover.upstream.check_schedule import CheckSchedule
from failover.upstream.health import ANSWER, DOWN, FAILING, MISS, UP, Health

INTERVAL, FALL, RISE = 0.05, 3, 2


def quiet():
    """A server whose heartbeat of 100.0 was answered at once."""
    schedule = CheckSchedule(99.0, INTERVAL, FALL)
    schedule.check_sent(100.0)
    schedule.check_answered(100.0, 100.001)
    return schedule


@pytest.mark.parametrize("interval", [0.005, 0.05, 60.0])
def test_the_first_question_is_due_at_once(interval):
    schedule = CheckSchedule(100.0)
    schedule.interval = interval
    assert (
        schedule.check_due(100.0, True)
        and schedule.check_due(100.0, False)
        and schedule.next_due(True) <= 100.0
    )


def test_a_server_that_answers_is_asked_once_an_interval():
    schedule = quiet()
    assert not schedule.check_due(100.049, True) and schedule.check_due(100.0501, True)
    assert schedule.next_due(True) == pytest.approx(100.05) and not schedule.miss_due(200.0)


def test_a_message_that_stays_unanswered_for_a_moment_is_followed_by_a_question():
    schedule = quiet()
    assert schedule.message_sent(100.01), "somebody has to look a moment from now"
    assert not schedule.message_sent(100.012), "which has been said"
    assert not schedule.check_due(100.014, True) and schedule.check_due(100.0151, True)
    assert schedule.next_due(True) == pytest.approx(100.015)


def test_an_answer_ends_the_wait_if_nothing_else_is_owed():
    schedule = quiet()
    schedule.message_sent(100.01)
    assert schedule.message_received(100.012, pending=False)
    assert schedule.next_due(True) == pytest.approx(100.05)
    schedule.message_sent(100.02)
    schedule.message_received(100.022, pending=True)
    assert schedule.next_due(True) == pytest.approx(100.027), (
        "what else waits may lie unread before a dead server"
    )


def test_an_answered_heartbeat_proves_nothing_for_what_was_sent_after_it():
    schedule = quiet()
    schedule.check_sent(100.05)
    schedule.message_sent(100.0505)
    schedule.check_answered(100.05, 100.051)
    assert schedule.check_due(100.0561, True)
    schedule.check_sent(100.0561)
    schedule.check_answered(100.0561, 100.057)
    assert schedule.next_due(True) == pytest.approx(100.1061)


def test_a_silent_server_is_asked_every_moment_until_it_is_given_up_then_once_an_interval():
    schedule, asked = quiet(), []
    for tick in range(1000):
        now = 100.05 + tick * 0.001
        if schedule.check_due(now, True):
            schedule.check_sent(now)
            asked.append(now)
    assert len([at for at in asked if at < 100.2]) == 30
    assert len([at for at in asked if at >= 100.2]) == 17


def test_a_server_without_hope_is_asked_once_an_interval():
    schedule = quiet()
    schedule.check_sent(100.05)
    assert not schedule.check_due(100.09, fast=False) and schedule.check_due(100.1001, fast=False)


def test_each_interval_of_silence_is_a_miss_and_leaves_a_tenth_for_what_is_to_be_done():
    schedule = quiet()
    schedule.message_sent(100.01)
    told = []
    for tick in range(200):
        now = 100.01 + tick * 0.001
        if schedule.miss_due(now):
            schedule.count_miss()
            told.append(round(now - 100.01, 3))
    assert told == [0.045, 0.095, 0.145, 0.195]


def test_what_a_server_says_counts_as_life_but_not_for_ever():
    schedule = quiet()
    for n in range(100):
        schedule.message_sent(100.1 + n * 0.01)
        assert schedule.message_received(100.101 + n * 0.01, pending=False) == (n <= 90), (
            "heartbeats unanswered for a second"
        )


def test_a_server_too_busy_for_its_heartbeats_lives_as_long_as_it_answers_what_it_was_sent():
    schedule = CheckSchedule(0.0, INTERVAL, FALL)
    for n in range(200):
        now = n * INTERVAL
        schedule.check_sent(now)
        schedule.message_sent(now)
        assert schedule.message_received(now + 0.02, pending=True, works=True), (
            "no heartbeat was ever answered"
        )
        assert not schedule.miss_due(now + INTERVAL)
    last, repeats = now, [now + n * INTERVAL for n in range(1, 40)]
    trusted = [at for at in repeats if schedule.message_received(at, pending=True)]
    assert max(trusted) <= last + 1.0001, "from then on it merely repeats itself"


def test_what_the_last_living_server_says_is_life_whatever_it_says():
    schedule = quiet()
    schedule.message_sent(200.0)
    assert not schedule.message_received(200.01, pending=True) and schedule.message_received(
        200.01, pending=True, last=True
    )
    assert not schedule.miss_due(200.05)


def test_on_a_long_way_a_moment_is_twice_the_way_there_and_back():
    schedule = quiet()
    assert schedule.fast_interval == pytest.approx(0.005)
    for n in range(8):
        schedule.check_answered(200.0 + n, 200.012 + n)
    assert schedule.fast_interval == pytest.approx(0.024)
    schedule.check_answered(210.0, 210.001)
    assert schedule.fast_interval == pytest.approx(0.005), "one pause of the server is no long way"
    for n in range(8):
        schedule.check_answered(220.0 + n, 220.2 + n)
    assert schedule.fast_interval == INTERVAL


def test_who_slept_holds_no_silence_against_anybody():
    schedule = quiet()
    schedule.message_sent(100.01)
    schedule.restart_silence(105.0)
    assert not schedule.miss_due(105.04) and schedule.miss_due(105.046)


# -- a network that loses datagrams ----------------------------------------------------------------


class Lossy:
    """A server behind a network that loses datagrams, its schedule and its health, on a clock of their
    own."""

    def __init__(self, loss, seed, interval=INTERVAL, fall=FALL, way=0.0005):
        self.loss, self.dice, self.way = loss, random.Random(seed), way
        self.now, self.hung = 0.0, False
        self.schedule = CheckSchedule(0.0, interval, fall)
        self.fall = fall
        self.health = Health(UP, 0.0, "")
        self.coming = []  # (arrival, asked)
        self.states, self.questions = [], 0

    def run(self, until):
        while self.now < until:
            fast = self.health.alive or self.health.steady_since is not None
            due = max(self.now, self.schedule.next_due(fast))
            if self.coming and self.coming[0][0] <= due:
                self.now, asked = heapq.heappop(self.coming)
                self.schedule.check_answered(asked, self.now)
                self.signal(ANSWER)
                continue
            self.now = due
            if self.schedule.miss_due(self.now):
                self.schedule.count_miss()
                self.signal(MISS)
            if self.schedule.check_due(self.now, fast):
                self.ask()

    def ask(self):
        self.schedule.check_sent(self.now)
        self.questions += 1
        both_ways = self.dice.random() >= self.loss and self.dice.random() >= self.loss
        if both_ways and not self.hung:
            heapq.heappush(self.coming, (self.now + self.way, self.now))

    def signal(self, signal):
        before, self.health = self.health, self.health.after(signal, self.now, "", self.fall, RISE)
        if self.health.state is not before.state:
            self.states.append((self.now, self.health.state))


@pytest.mark.parametrize("seed", range(3))
def test_thirty_percent_loss_each_way_for_an_hour_takes_no_server_down(seed):
    world = Lossy(0.3, seed)
    world.run(3600.0)
    assert DOWN not in [state for _, state in world.states]
    assert world.questions < 3600 * 20 * 3, "and costs two more questions a heartbeat at most"


def test_the_same_loss_without_early_questions_would(monkeypatch):
    monkeypatch.setattr(CheckSchedule, "fast_interval", INTERVAL)
    world = Lossy(0.3, 1)
    world.run(60.0)
    assert DOWN in [state for _, state in world.states]


@pytest.mark.parametrize("loss", [0.0, 0.3])
def test_a_server_that_hangs_at_any_moment_is_down_within_what_is_promised(loss):
    delays = []
    for seed in range(200):
        world = Lossy(loss, seed)
        world.run(1.0 + seed * 0.00037)
        world.hung, hung = True, world.now
        world.coming.clear()
        world.run(hung + 0.3)
        assert world.health.state is DOWN
        delays.append(world.health.since - hung)
    assert max(delays) <= INTERVAL * (FALL + 1) and min(delays) >= INTERVAL * (FALL - 1)


def test_without_loss_there_are_no_more_questions_than_heartbeats():
    world = Lossy(0.0, 1)
    world.run(100.0)
    assert abs(world.questions - 2000) <= 2 and world.states == []


def test_one_that_hung_and_is_back_under_loss_is_used_again_soon():
    world = Lossy(0.3, 1)
    world.run(10.0)
    world.hung = True
    world.run(12.0)
    assert world.health.state is DOWN
    world.hung = False
    world.run(14.0)
    assert world.health.state in (UP, FAILING)


def test_the_formula_of_the_docs():
    per_heartbeat = (1 - 0.7**2) ** 29
    assert per_heartbeat == pytest.approx(3.3e-9, rel=0.05)
    assert 1 / (per_heartbeat * 20) / 86400 == pytest.approx(175, rel=0.05), (
        "days between two false alarms"
    )
