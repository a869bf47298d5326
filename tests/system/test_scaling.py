"""Several forwarders that share nothing but the secret: every message of a call may take another
one of them."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
from crossroads_kit import (
    FOUR,
    Crossroads,
    CrossroadsStage,
    FourAddresses,
    OneAddress,
    WithoutRoutes,
)
from forwarder_kit import make_table
from parties_kit import Scene, absent
from process_kit import free_port, wait_until
from slee_kit import FORWARDER
from sweep_kit import FLOWS, KILLED, POINTS, Fault, Flow, Play
from wire import SERVERS

from benchmarks.calls import read_bills
from failover.proxy.core import Core

EVERY_FLOW = pytest.mark.parametrize("flow", FLOWS.values(), ids=lambda flow: flow.name)
KINDS = pytest.mark.parametrize(
    "kind", [OneAddress, FourAddresses, WithoutRoutes], ids=lambda kind: kind.__name__
)
SOME = pytest.mark.parametrize(
    "calls", [range(1), pytest.param(range(1, 25), marks=pytest.mark.long)], ids=len
)
TWO = pytest.mark.parametrize(  # a short flow has too few datagrams to reach all four at once
    "calls", [range(2), pytest.param(range(2, 25), marks=pytest.mark.long)], ids=len
)


def play(
    flow: Flow, kind: type[Crossroads], seed: int, fault: Fault | None = None, kill: int = 0
) -> CrossroadsStage:
    """One telling of the flow. It checks that nobody rings twice, and that there is one bill for
    each call, right to the moment."""
    with CrossroadsStage(flow, kind, seed, fault, kill) as stage:
        try:
            flow.tell(Play(stage))
        except AssertionError as error:
            ladder = stage.world.network.ladder()
            raise AssertionError(
                f"seed {seed}, {fault}, a forwarder at {kill}: {error}\n{ladder}"
            ) from error
        return stage


@TWO
@KINDS
@EVERY_FLOW
def test_calls_cross_four_forwarders_at_random(flow, kind, calls):
    carried = set()
    for seed in calls:
        stage = play(flow, kind, seed)
        assert stage.world.phones_retransmissions == 0
        carried |= {
            place for place, each in stage.crossroads.siblings.items() if each.core.counters
        }
    assert carried == set(FOUR)


@SOME
@KINDS
@EVERY_FLOW
def test_a_server_dies_at_a_random_moment_and_each_forwarder_notices_by_itself(flow, kind, calls):
    dice = random.Random(f"{flow.name} {kind.__name__} {calls}")
    steps = len(play(flow, kind, 0).handled())
    for seed in calls:
        play(
            flow,
            kind,
            seed,
            Fault(dice.randint(flow.begins + 1, steps), dice.choice(POINTS), KILLED),
        )


@SOME
@pytest.mark.parametrize("kind", [OneAddress, FourAddresses], ids=lambda kind: kind.__name__)
@EVERY_FLOW
def test_a_forwarder_dies_at_a_random_moment_and_no_call_with_it(flow, kind, calls):
    """The others of the one address have its share 0.3 s later, or its standby has its address."""
    dice = random.Random(f"{flow.name} {kind.__name__} {calls}")
    datagrams = len(play(flow, kind, 0).world.network.passed)
    for seed in calls:
        play(flow, kind, seed, kill=dice.randint(0, datagrams))


@SOME
@pytest.mark.parametrize(
    "flow", ["caller hangs up", "callee hangs up", "hold and resume", "register in mid-call"]
)
def test_a_whole_pair_dies_and_the_calls_that_were_up_go_on_through_the_others(flow, calls):
    """Phones with an outbound proxy that they look up again, which is where they send to whatever
    the Route says."""
    for seed in calls:
        stage = CrossroadsStage(FLOWS[flow], WithoutRoutes, seed)
        wait = stage.wait

        def wait_and_see_one_die(seconds, stage=stage, wait=wait):
            wait(0.5)  # until the ACK is there
            stage.crossroads.kill_forwarder(stage.crossroads.dice.choice(FOUR))
            wait(seconds)

        stage.wait = wait_and_see_one_die
        FLOWS[flow].tell(Play(stage))


@SOME
def test_server_and_forwarder_die_in_one_call(calls):
    flow, dice = FLOWS["hold and resume"], random.Random(len(calls))
    steps = len(play(flow, OneAddress, 0).handled())
    for seed in calls:
        fault = Fault(dice.randint(flow.begins + 1, steps), dice.choice(POINTS), KILLED)
        for kind in (OneAddress, FourAddresses):
            play(flow, kind, seed, fault, kill=dice.randint(0, 60))


def test_what_is_in_flight_is_known_where_the_answers_come_back():
    """With one address they come back anywhere; a request counts as unanswered for 32 s then."""
    for kind, owing in ((FourAddresses, False), (OneAddress, True)):
        stage = play(FLOWS["caller hangs up"], kind, seed=0)
        assert (
            any(each.core.pending.has_requests for each in stage.crossroads.siblings.values())
            is owing
        )


def test_a_forwarder_with_a_secret_of_its_own_shows_in_its_counters_and_makes_phones_repeat_themselves():
    stage = CrossroadsStage(FLOWS["hold and resume"], OneAddress, seed=1)
    odd = stage.crossroads.siblings[FOUR[0]]
    odd.core = Core(make_table(servers=SERVERS), b"another key", lambda host: FORWARDER)
    with suppress(AssertionError):
        FLOWS["hold and resume"].tell(Play(stage))
    assert odd.core.counters["dropped.not-ours"] and stage.world.phones_retransmissions


# -- real processes --------------------------------------------------------------------------------


class Four(Scene):
    """A scene with four forwarders. The servers know one of them each, so most calls cross two."""

    def forwarders(self):
        self.names = [f"forwarder{n}" for n in range(1, 5)]
        for name in self.names:
            self.ports[name], self.ports[f"{name} admin"] = free_port(), free_port()
            self.forwarder_of(name)

    def forwarder_of(self, name):
        """It runs, with the one secret file, and is the scene's own from now on."""
        self.ports["forwarder"], self.ports["admin"] = self.ports[name], self.ports[f"{name} admin"]
        self.forwarder(f"forwarder.secret.file={self.folder / 'secret'}")
        self.processes[name] = self.processes.pop("forwarder")

    def through(self, name):
        self.ports["forwarder"], self.ports["admin"] = self.ports[name], self.ports[f"{name} admin"]
        return self


@pytest.mark.long
@pytest.mark.skipif(bool(absent("sipp")), reason=absent("sipp") or "-")
def test_four_forwarder_processes_lose_no_call_when_a_server_and_one_of_them_are_killed(tmp_path):
    with Four(tmp_path) as scene:
        scene.forwarders()
        for server, name in (("server1", "forwarder1"), ("server2", "forwarder2")):
            scene.through(name).mock(server)
        for name in scene.names:
            scene.through(name).up("server1", "server2")
        # What is said twice, as it may be where a server's way on does not lead through the
        # forwarder that asked it, is no reason to end the call.
        patient = ["-default_behaviors", "all,-abortunexp"]
        callee, port = scene.through("forwarder2").callee("callee", 0, pause=200, more=patient)
        scene.through("forwarder3").register(port).end()
        callers = [
            scene.through(name).sipp("caller", 60, rate=15, pause=1500) for name in scene.names
        ]
        wait_until(lambda: callee["IncomingCall"] >= 80, note=lambda: callee.said)
        scene.processes["server1"].kill()
        wait_until(lambda: callee["IncomingCall"] >= 140, note=lambda: callee.said)
        scene.processes["forwarder4"].kill()
        scene.forwarder_of("forwarder4")  # or its standby
        for caller in callers:
            caller.end()
        talked = sorted(
            bill.ended - bill.answered for bill in read_bills(str(tmp_path / "cluster.db")).values()
        )
        assert len(talked) == 240 and callee["IncomingCall"] == 240
        # A BYE to the killed forwarder is said again, up to twice while the next one starts.
        assert talked[0] > 1.45 and talked[-61] < 2.0 and talked[-1] < 3.5, talked
