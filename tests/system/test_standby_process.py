"""Two forwarders as processes: whatever the active one dies of, the other has its address, calls
and servers."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
import urllib.request

import pytest
from browser_kit import Browser
from load_kit import servers_started
from phone_kit import Owner
from process_kit import free_port, is_taken, wait_until
from standby_kit import Supervisor, Twins

from benchmarks.load import Load, gap, lost
from softphone.ua.events import CallState

# requests a second, for so many seconds; the death, so many after the first
RATE, SECONDS, STRIKE = 400, 2.0, 1.0
# seconds without an answer that pass on a busy computer; the aim is 0.05, what is measured is
# printed
MOST = 0.25
WATCHDOG = 1.0

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's signals and sockets"),
]


@pytest.fixture
def twins(tmp_path):
    with Twins(tmp_path) as made:
        yield made


@pytest.fixture
def answering(twins):
    """Two servers that answer everything at once."""

    def port():
        return twins.ports[f"server{next(numbers)}"]

    numbers = iter((1, 2))
    with servers_started(port) as servers:
        yield servers


def told(page, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{page}{path}", timeout=5) as answer:
        return json.load(answer)


def address(twins):
    return "127.0.0.1", twins.ports["forwarder"]


# -- the outage of new requests --------------------------------------------------------------------


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV], ids=["kill -9", "SIGTERM", "crash"]
)
def test_requests_are_answered_again_within_a_moment_of_the_death_and_none_is_lost(
    twins, answering, how
):
    twins.pair()
    load, died = Load(address(twins), RATE), []

    def strike():
        died.append(time.monotonic())
        twins.active.signal(how)

    asked = load.run(SECONDS, [(STRIKE, strike)], patience=2.0)
    outage = gap(asked, load.began + 0.2, load.began + SECONDS)
    print(
        f"{how.name}: {outage * 1000:.1f} ms without an answer, "
        f"{sum(one.transmissions > 1 for one in asked)} of {len(asked)} requests were sent again"
    )
    assert outage < MOST, twins.standby.said
    assert lost(asked) == 0
    assert twins.standby.role == "active" and twins.active.wait(5) in (0, -how)
    (told,) = twins.standby.read("/failovers")
    assert told["kind"] == "takeover" and told["monotonic"] - died[0] < MOST


def test_no_request_goes_to_a_server_that_died_while_the_other_one_was_active(twins, answering):
    twins.pair()
    answering[0].kill()
    wait_until(lambda: twins.live(twins.standby) == 1)
    twins.end_active()
    asked = Load(address(twins), 200).run(0.5)
    assert all(one.transmissions == 1 and one.answers[0][2] == "server2" for one in asked)
    servers = {server["name"]: server for server in twins.active.read("/status")["servers"]}
    assert servers["server1"]["requests"] == 0 and servers["server2"]["requests"] == len(asked)


def test_the_roles_swap_again_and_again_and_the_one_that_comes_back_stands_by(twins, answering):
    twins.pair()
    for _ in range(3):
        twins.end_active()
        twins.come_back()
        assert (twins.active.role, twins.standby.role) == ("active", "standby")
        assert f"standby: {twins.address} is held by another program" in twins.standby.said
        assert lost(Load(address(twins), 200).run(0.2)) == 0


def test_a_frozen_one_is_ended_by_its_watchdog_and_its_successor_stands_by(twins, answering):
    twins.write()
    guards = [Supervisor(twins, name, WATCHDOG) for name in ("first", "second")]
    try:
        frozen, other = guards[0].twin, guards[1].twin
        assert (frozen.role, other.role) == ("active", "standby")
        # one on standby is ready, too
        wait_until(lambda: any("READY=1" in lines for lines in guards[1].heard))
        load = Load(address(twins), RATE)
        asked = load.run(
            WATCHDOG + 2.0, [(STRIKE, lambda: frozen.signal(signal.SIGSTOP))], patience=3.0
        )
        outage = gap(asked, load.began + 0.2, load.began + WATCHDOG + 2.0)
        print(f"frozen, watchdog {WATCHDOG:g} s: {outage * 1000:.0f} ms without an answer")
        assert outage < WATCHDOG + MOST + 0.5, frozen.said
        assert lost(asked) == 0 and other.role == "active"
        assert guards[1].aborted == [], "the one on standby fed its own watchdog all the time"
        assert frozen.wait(5) == -signal.SIGABRT and "Fatal Python error: Aborted" in frozen.said
        wait_until(lambda: guards[0].twin is not frozen)
        assert guards[0].twin.role == "standby"
    finally:
        for guard in guards:
            guard.stop()


# -- calls -----------------------------------------------------------------------------------------


class Phones:
    """Softphones that are registered with the cluster."""

    def __init__(self, twins, *users):
        self._users, self._proxy = users, address(twins)

    def __enter__(self):
        self._owners = {user: Owner(user, self._proxy, register=True) for user in self._users}
        for owner in self._owners.values():
            wait_until(lambda owner=owner: owner.registered)
        return self

    def __exit__(self, *_):
        for owner in self._owners.values():
            owner.stop()

    def __getitem__(self, user):
        return self._owners[user].phone

    def state(self, user):
        return self._owners[user].state

    def until(self, user, state):
        wait_until(lambda: self.state(user) is state, note=lambda: f"{user} is {self.state(user)}")

    def talk(self, caller, called):
        self.ring(caller, called)
        self.pick_up(caller, called)

    def ring(self, caller, called):
        self[caller].call(called)
        self.until(caller, CallState.RINGING)
        self.until(called, CallState.INCOMING)

    def pick_up(self, caller, called):
        self[called].answer()
        self.until(caller, CallState.TALKING)
        self.until(called, CallState.TALKING)

    def hang_up(self, user, other):
        self[user].hang_up()
        self.until(user, CallState.ENDED)
        self.until(other, CallState.ENDED)


@pytest.fixture
def cluster(twins):
    """Our servers behind the pair; their calls are on server2's page."""
    page = free_port()
    twins.mock("server1")
    twins.mock("server2", management=f"127.0.0.1:{page}")
    for name in ("server1", "server2"):
        wait_until(lambda name=name: "ready: " in twins.processes[name].said)
    twins.pair()

    return lambda: told(page, "/calls")["calls"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["kill -9", "SIGTERM"])
def test_calls_that_go_on_and_calls_that_ring_do_not_notice_and_are_billed_right(
    twins, cluster, how
):
    with Phones(twins, "alice", "bob", "carol", "dave") as phones:
        phones.talk("alice", "bob")
        answered = time.monotonic()
        phones.ring("carol", "dave")
        twins.end_active(how)
        picked_up = time.monotonic()
        phones.pick_up("carol", "dave")  # Dave's answer is to what the dead one had forwarded
        assert phones.state("alice") is phones.state("bob") is CallState.TALKING
        phones.hang_up("dave", "carol")
        short = time.monotonic() - picked_up
        twins.come_back()
        twins.end_active(how)  # and back again, in the same call
        talked = time.monotonic() - answered
        phones.hang_up("alice", "bob")
        wait_until(lambda: [bill["final"] for bill in cluster()] == [True, True], note=cluster)
        bills = {bill["caller"]: bill for bill in cluster()}
    billed = {user: bill["ended"] - bill["answered"] for user, bill in bills.items()}
    assert billed == {
        "Alice": pytest.approx(talked, abs=0.5),
        "Carol": pytest.approx(short, abs=0.5),
    }
    assert [bills[user]["why"] for user in ("Alice", "Carol")] == ["Alice hung up", "Dave hung up"]


# -- servers that register themselves --------------------------------------------------------------


def test_registered_servers_are_known_to_both_and_take_leave_of_both(twins):
    desk = next(port for port in iter(free_port, 0) if not is_taken(port + 1))
    twins.write(f"registration.listen=127.0.0.1:{desk}", servers=())
    twins.active, twins.standby = twins.twin(), twins.twin()
    register = f"127.0.0.1:{desk},127.0.0.1:{desk + 1}"
    page = free_port()
    for name, more in (("server1", {}), ("server2", {"management": f"127.0.0.1:{page}"})):
        twins.mock(name, "--register", register, "--beat", "0.2", **more)
        wait_until(
            lambda: all(
                twins.live(twin) == len(twins.processes) for twin in (twins.active, twins.standby)
            )
        )
    wait_until(lambda: told(page, "/members")["hot"] == "server1")
    with Phones(twins, "alice", "bob") as phones:
        phones.talk("alice", "bob")
        twins.end_active()
        phones.hang_up("alice", "bob")
        twins.come_back()
        wait_until(lambda: told(page, "/members")["hot"] == "server1")
        twins.processes["server1"].stop()
        for twin in (twins.active, twins.standby):
            wait_until(lambda twin=twin: "is no longer registered: it took leave" in twin.said)
            assert not any(each["kind"] == "failover" for each in twin.read("/failovers"))
        wait_until(lambda: told(page, "/members")["hot"] == "server2")
        phones.talk("bob", "alice")
        phones.hang_up("alice", "bob")


# -- the page --------------------------------------------------------------------------------------


def test_the_page_of_each_says_which_of_the_two_it_is_and_since_when_and_why(twins, answering):
    twins.pair()
    browser = Browser(free_port(), twins.folder)
    try:
        browser.open(twins.standby.page)
        wait_until(lambda: browser.text("#summary") == "On standby")
        assert f": {twins.address} is held by another program" in browser.text("#role")
        twins.end_active()
        wait_until(lambda: browser.text("#summary") == "server1 is hot")
        why = f"{twins.address} is free, the program that held it is gone"
        assert re.fullmatch(
            rf"Active since \d\d:\d\d:\d\d: {re.escape(why)}", browser.text("#role")
        )
        takeover = browser.text("#failovers")
        assert "This forwarder: standby \u2192 active" in takeover and why in takeover
        assert browser.complaints() == []
    finally:
        browser.close()
