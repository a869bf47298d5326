"""plumbing.event_loop: one thread owns, others post."""

import select
import socket
import threading
import time
from contextlib import suppress

import pytest

from plumbing.event_loop import Loop, LoopStopped


@pytest.fixture(autouse=True, params=["epoll", "selectors"])
def waiting(request, monkeypatch):
    """Sockets are waited for in the way that costs least, or in the one that every system has."""
    if request.param == "selectors":
        monkeypatch.delattr(select, "epoll", raising=False)
    elif not hasattr(select, "epoll"):
        pytest.skip("this system has no epoll")


@pytest.fixture
def loop(waiting):
    loop = Loop("test-loop")
    loop.start()
    yield loop
    loop.stop()


def test_posted_functions_run_in_order_on_the_loops_own_thread(loop):
    seen = []
    for n in range(100):
        loop.post(lambda n=n: seen.append((n, threading.current_thread().name)))
    loop.ask(lambda: None)
    assert seen == [(n, "test-loop") for n in range(100)]


def test_ask_returns_the_answer_and_raises_the_error(loop):
    assert loop.ask(lambda: 42) == 42
    with pytest.raises(ZeroDivisionError):
        loop.ask(lambda: 1 // 0)
    assert loop.ask(lambda: "alive after the error") == "alive after the error"


def test_ask_on_the_loops_own_thread_does_not_wait_for_itself(loop):
    assert loop.ask(lambda: loop.ask(lambda: "inner")) == "inner"


def test_ask_gives_up_when_the_loop_is_busy(loop):
    gate = threading.Event()
    loop.post(gate.wait)
    with pytest.raises(TimeoutError, match="did not answer within"):
        loop.ask(lambda: None, timeout=0.05)
    gate.set()


def test_nobody_answers_before_the_start_or_after_the_end():
    loop = Loop("short")
    with pytest.raises(LoopStopped):
        loop.ask(lambda: None)
    loop.start()
    loop.stop()
    loop.stop()
    with pytest.raises(LoopStopped):
        loop.ask(lambda: None)
    loop.post(lambda: None)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_who_asks_a_loop_that_ends_meanwhile_learns_so_at_once():
    loop = Loop("dies")
    loop.start()

    def die():
        time.sleep(0.1)
        raise SystemExit

    loop.post(die)
    asked_at = time.monotonic()
    with pytest.raises(LoopStopped):
        loop.ask(lambda: None, timeout=10.0)
    assert time.monotonic() - asked_at < 5.0


def test_a_loop_may_be_stopped_before_it_was_started_and_from_its_own_thread(eventually):
    Loop("never").stop()
    loop = Loop("itself")
    loop.start()
    loop.post(loop.stop)
    eventually(lambda: not loop.running)


def test_what_was_posted_before_stop_still_runs():
    loop, seen = Loop("last-words"), []
    loop.start()
    for n in range(50):
        loop.post(lambda n=n: seen.append(n))
    loop.stop()
    assert seen == list(range(50))


def test_a_socket_is_served_and_an_error_in_one_callback_stops_nobody(eventually):
    errors, got = [], []
    loop = Loop("errors", on_error=errors.append)
    here, there = socket.socketpair()

    def ready():
        data = here.recv(100)
        if data == b"bad":
            raise ValueError("bad")
        got.append(data)

    loop.watch(here, ready)
    loop.start()
    there.send(b"bad")
    eventually(lambda: errors)
    there.send(b"good")
    eventually(lambda: got)
    loop.stop()
    here.close()
    there.close()
    assert [str(e) for e in errors] == ["bad"] and got == [b"good"]


def test_timers_fire_in_the_order_of_their_deadlines_and_not_when_cancelled(loop, eventually):
    fired = []

    def plan():
        now = time.monotonic()
        loop.at(now + 0.02, lambda: fired.append("second"))
        loop.at(now + 0.01, lambda: fired.append("first"))
        loop.at(now + 0.015, lambda: fired.append("cancelled")).cancel()
        loop.at(now + 0.03, lambda: fired.append("last"))

    loop.ask(plan)
    eventually(lambda: "last" in fired)
    assert fired == ["first", "second", "last"]


def test_a_socket_that_is_no_longer_watched_is_not_served(loop, eventually):
    got = []
    here, there = socket.socketpair()
    other, another = socket.socketpair()
    with here, there, other, another:
        loop.ask(lambda: loop.watch(here, lambda: got.append(here.recv(10))))
        loop.ask(lambda: loop.watch(other, lambda: got.append(other.recv(10))))
        loop.ask(lambda: loop.unwatch(here))
        there.send(b"unheard")
        another.send(b"heard")
        eventually(lambda: got)
        loop.ask(lambda: None)
        assert got == [b"heard"]


def test_a_callback_may_close_a_socket_that_is_ready_in_the_same_turn(loop, eventually):
    """Whichever of the two is served closes the other one and opens a third in its place."""
    served, third = [], []
    pairs = [socket.socketpair() for _ in range(2)]

    def ready(mine, other):
        served.append(mine.recv(10))
        loop.unwatch(mine)
        loop.unwatch(other)
        other.close()
        third.extend(socket.socketpair())
        third[0].setblocking(False)
        loop.watch(third[0], ready_third)

    def ready_third():
        with suppress(BlockingIOError):  # it may have the number of the one that was closed
            served.append(third[0].recv(10))

    (one, to_one), (two, to_two) = pairs

    def both_at_once():
        loop.watch(one, lambda: ready(one, two))
        loop.watch(two, lambda: ready(two, one))
        to_one.send(b"first")
        to_two.send(b"second")

    loop.ask(both_at_once)
    eventually(lambda: served)
    loop.ask(lambda: None)
    assert len(served) == 1
    third[1].send(b"third")
    eventually(lambda: b"third" in served)
    assert len(served) == 2 and loop.errors == 0
    for sock in (one, to_one, two, to_two, *third):
        sock.close()
