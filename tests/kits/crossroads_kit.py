"""Several forwarders with one secret, between phones and servers that send each datagram through
any of them.

In memory, on one fake clock, as in wire.py. Two stories: all forwarders have one address (ECMP,
anycast), and each has its own (DNS SRV). What a forwarder that has died gets is lost until the
others have its share.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from agent_kit import Network
from slee_kit import FORWARDER
from sweep_kit import Fault, Flow, MemoryStage
from wire import SERVERS, Forwarder, World

from failover.config.settings import FIRST_LIVE, PHONES
from failover.proxy.events import Outcome
from plumbing.address import Address
from sip.message import Request, parse

FOUR: list[Address] = [(f"127.0.0.{10 + n}", 5060) for n in range(1, 5)]
# seconds until nobody sends to a dead forwarder any more, or its standby has its address
NOTICED = 0.3


class Sibling(Forwarder):
    """One of the four, in its place on the network; `known_as` is the address that it writes and
    sends from."""

    def __init__(self, world: Crossroads, place: Address, known_as: Address) -> None:
        super().__init__(world, FIRST_LIVE, known_as)
        self._known_as = known_as
        world.network.join(place, self)

    def receive(self, data: bytes, source: Address, now: float) -> list[Any]:
        side = next((name for name, address in SERVERS.items() if address == source), PHONES)
        ordinary = self.core.quick(data, side, source, now)
        if not ordinary:
            return self._from_here(super().receive(data, source, now))
        return self._from_here(self._carry_out(Outcome((ordinary,)), now))

    def on_deadline(self, now: float) -> list[Any]:
        return self._from_here(super().on_deadline(now))

    def _from_here(self, packets: list[Any]) -> list[Any]:
        return [(data, to, self._known_as) for data, to in packets]


class Roads(Network):
    """What is sent to the forwarder goes where `choose(data)` says; so do requests to one of the
    four, where phones look at no Route."""

    choose: Callable[[bytes], Address]
    by_route = True

    def send(self, packets: list[Any], source: Address) -> None:
        super().send([self._routed(packet) for packet in packets], source)

    def _routed(self, packet: Any) -> Any:
        data, to, *rest = packet
        chosen = to == FORWARDER or (
            to in FOUR and not self.by_route and not data.startswith(b"SIP/")
        )
        return (data, self.choose(data) if chosen else to, *rest)


class Crossroads(World):
    """Four forwarders; `dice` decides which of them gets a datagram."""

    others = tuple(FOUR)  # a call may come by another one than the phone has registered with

    def __init__(self, users: dict[str, str] | None, dice: random.Random) -> None:
        super().__init__(users)
        self.network.leave(FORWARDER)  # which World has put there
        self.dice, self.chosen = dice, list(FOUR)
        self.siblings = {place: self._sibling(place) for place in FOUR}
        assert isinstance(self.network, Roads)
        self.network.choose = self.choose

    def make_network(self) -> Network:
        return Roads()

    def _sibling(self, place: Address) -> Sibling:
        raise NotImplementedError

    def choose(self, data: bytes) -> Address:
        """The place of the forwarder that gets it."""
        return self.dice.choice(self.chosen)

    def kill_forwarder(self, place: Address) -> None:
        """What it had been sent is lost, and what it gets from now on, for a while."""
        self.network.leave(place)
        self.network.join(
            ("a watch", 0), _Alarm(self.network.now + NOTICED, lambda: self.noticed(place))
        )

    def noticed(self, place: Address) -> None:
        raise NotImplementedError


class _Alarm:
    """On the network, so that the clock stops for it."""

    def __init__(self, due: float, action: Callable[[], None]) -> None:
        self.deadline: float | None = due
        self._action = action

    def receive(self, data: bytes, source: Address, now: float) -> list[Any]:
        raise AssertionError("nobody sends to it")

    def on_deadline(self, now: float) -> list[Any]:
        self.deadline = None
        self._action()
        return []


class OneAddress(Crossroads):
    """ECMP in its worst form, datagram by datagram. One that is dead is left out once that was
    noticed."""

    def _sibling(self, place: Address) -> Sibling:
        made = Sibling(self, place, FORWARDER)
        self.network.leave(FORWARDER)
        return made

    def noticed(self, place: Address) -> None:
        self.chosen.remove(place)


class FourAddresses(Crossroads):
    """SRV: who begins a transaction draws a forwarder for it. What belongs to a transaction or a
    dialog goes where its Via or Route says. A dead one's standby takes its address over."""

    def __init__(self, users: dict[str, str] | None, dice: random.Random) -> None:
        super().__init__(users, dice)
        # by branch: RFC 3263 4, a CANCEL goes where its INVITE went
        self._drawn: dict[str, Address] = {}

    def _sibling(self, place: Address) -> Sibling:
        return Sibling(self, place, place)

    def choose(self, data: bytes) -> Address:
        message = parse(data)
        via = message.via
        if not isinstance(message, Request):
            return via.host, via.port or 5060
        if message.routes and message.routes[0].uri.address() in FOUR:
            return message.routes[0].uri.address()
        return self._drawn.setdefault(via.branch, super().choose(data))

    def noticed(self, place: Address) -> None:
        self.siblings[place] = self._sibling(place)


class WithoutRoutes(FourAddresses):
    """As before, but phones and servers look at no Route, and whole pairs die: nobody takes a dead
    one's address over, those who send draw another."""

    def make_network(self) -> Network:
        network = Roads()
        network.by_route = False
        return network

    def choose(self, data: bytes) -> Address:
        message = parse(data)
        branch, way = message.via.branch, (message.via.host, message.via.port or 5060)
        if not isinstance(message, Request) and way in self.chosen:
            return way
        if self._drawn.get(branch) not in self.chosen:
            self._drawn[branch] = self.dice.choice(self.chosen)
        return self._drawn[branch]

    def noticed(self, place: Address) -> None:
        self.chosen.remove(place)


class CrossroadsStage(MemoryStage):
    """`kill`: at which datagram one of the forwarders dies; 0: never."""

    def __init__(
        self,
        flow: Flow,
        kind: type[Crossroads],
        seed: int,
        fault: Fault | None = None,
        kill: int = 0,
    ) -> None:
        self._kind, self._dice = kind, random.Random(seed)
        super().__init__(flow, fault)
        if kill:
            self.crossroads.at_datagram(
                kill, lambda: self.crossroads.kill_forwarder(self._dice.choice(FOUR))
            )

    def make_world(self, users: dict[str, str] | None) -> Crossroads:
        self.crossroads = self._kind(users, self._dice)
        return self.crossroads
