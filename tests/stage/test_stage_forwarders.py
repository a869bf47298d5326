"""One forwarder or two, as the stage hears of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from stage.observation.forwarder_roles import ForwarderRoles
from stage.processes.cluster import Cluster, Ports

Make = Callable[..., ForwarderRoles]


@pytest.fixture
def make() -> Iterator[Make]:
    """make(pair=...) -> the forwarders as after the start, without the programs."""
    clusters = []

    def begin(pair: bool) -> ForwarderRoles:
        clusters.append(Cluster(Ports.free(), pair=pair))
        made = ForwarderRoles(clusters[-1], lambda *_: None)
        for state in made.pair.values():
            state.alive, state.starting = True, False
        return made

    yield begin
    for cluster in clusters:
        cluster.stop()


def hello(forwarders: ForwarderRoles, name: str, role: str, hot: str = "server1") -> bool:
    servers = [{"name": "server1", "state": "UP"}, {"name": "server2", "state": "DOWN"}]
    return forwarders.hello({"forwarder": name, "role": role, "hot": hot, "servers": servers})


def test_one_forwarder_is_always_the_one(make: Make) -> None:
    alone = make(pair=False)
    assert not hello(alone, "forwarder", "active")
    assert alone.active == "forwarder"
    assert alone.view.hot == "server1" and alone.view.states == {"server1": "UP", "server2": "DOWN"}


def test_only_the_word_of_the_active_one_of_two_counts(make: Make) -> None:
    two = make(pair=True)
    assert not hello(two, "forwarder2", "standby", hot="server2") and two.view.hot is None
    assert hello(two, "forwarder1", "active") and two.view.hot == "server1"
    two.state({"forwarder": "forwarder2", "server": "server2", "state": "UP", "hot": "server2"})
    assert two.view.hot == "server1" and two.view.states["server2"] == "DOWN"


def test_with_the_address_goes_the_word(make: Make) -> None:
    two = make(pair=True)
    hello(two, "forwarder1", "active")
    hello(two, "forwarder2", "standby", hot="server2")
    two.gone("forwarder1")
    assert two.active is None and two.view.hot is None
    assert two.takeover({"forwarder": "forwarder2", "to": "active"})
    assert two.active == "forwarder2" and two.view.hot == "server2"
    assert two.pair["forwarder2"].forwarder_state == "active"


def test_the_late_word_of_a_killed_one_is_not_believed(make: Make) -> None:
    two = make(pair=True)
    two.pair["forwarder1"].crashed = True
    assert not hello(two, "forwarder1", "active") and two.active is None


def test_one_that_speaks_before_it_is_known_to_run_is_believed_then(make: Make) -> None:
    two = make(pair=True)
    two.pair["forwarder1"].alive = False
    assert not hello(two, "forwarder1", "active")
    two.pair["forwarder1"].alive = True
    assert two.settle("forwarder1") and two.active == "forwarder1"


def test_one_that_gives_the_address_up_has_it_no_more(make: Make) -> None:
    two = make(pair=True)
    hello(two, "forwarder1", "active")
    assert not two.takeover({"forwarder": "forwarder1", "to": "standby"})
    assert two.active is None and two.pair["forwarder1"].forwarder_state == "standby"
