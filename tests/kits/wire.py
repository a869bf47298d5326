"""The whole system in memory on one fake clock: phones, the forwarder's core, two servers' cores,
one store.

Only what threads, sockets and files would do is played here: a killed server's port refuses, a
frozen one keeps what comes until it thaws, heartbeats are signals to the forwarder's core every 50
ms. All else is the real thing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from agent_kit import DELAY, Line, Network, Packet
from forwarder_kit import KEY, make_table
from slee_kit import ADDRESSES, FORWARDER, Cluster

from failover.config.settings import FIRST_LIVE, PHONES
from failover.proxy.core import Core
from failover.proxy.events import Outcome
from failover.upstream.health import ANSWER, MISS, REFUSED
from failover.upstream.passive_checks import LOOK_INTERVAL
from plumbing.address import Address, parse_address
from slee_mock.receive_queue import Datagram
from slee_mock.services.bill_record import Bill, BillTotal, total_at
from slee_mock.store.interface import Transaction
from slee_mock.store.records import SIGN_OF_LIFE
from softphone.ua.session_timer import DEFAULT_INTERVAL

HEARTBEAT = 0.05  # seconds
TICK = 1e-5  # seconds; times of day are not told apart much finer
DAY = 1_800_000_000.0  # the wall clock's distance from the network's
SERVERS: dict[str, Address] = {name: parse_address(text) for name, text in ADDRESSES.items()}


class Forwarder:
    """The forwarder's core between its sides."""

    def __init__(self, world: World, policy: str, address: Address = FORWARDER) -> None:
        self._world = world
        self.core = Core(make_table(policy, SERVERS), KEY, lambda host: address)
        self.deadline: float | None = world.network.now + HEARTBEAT
        self._look_due = 0.0
        world.network.join(address, self)

    def receive(self, data: bytes, source: Address, now: float) -> list[Packet]:
        side = next((name for name, address in SERVERS.items() if address == source), PHONES)
        return self._carry_out(self.core.receive(data, side, source, now), now)

    def on_deadline(self, now: float) -> list[Packet]:
        self.deadline = now + HEARTBEAT
        packets: list[Packet] = []
        for name, server in self._world.servers.items():
            signal = REFUSED if server.killed else MISS if server.frozen else ANSWER
            packets += self._carry_out(
                self.core.failover.signal(name, signal, now, f"heartbeat: {signal.value}"), now
            )
        if now >= self._look_due:
            self._look_due = now + LOOK_INTERVAL
            packets += self._carry_out(self.core.failover.on_timer(now), now)
        return packets

    def _carry_out(self, outcome: Outcome, now: float) -> list[Packet]:
        packets: list[Packet] = []
        for send in outcome.sends:
            if send.to == PHONES:
                assert send.target is not None
                packets.append((send.data, send.target))
            elif self._world.servers[send.to].killed:
                packets += self._carry_out(
                    self.core.failover.signal(send.to, REFUSED, now, "its port refused a message"),
                    now,
                )
            else:
                packets.append((send.data, SERVERS[send.to]))
        return packets


class Server:
    """One server's node, and what happens to its process."""

    def __init__(self, world: World, name: str) -> None:
        self._world, self.name = world, name
        self.killed = self.frozen = False
        self.zombie = False  # it answers heartbeats and drops everything else
        self.handled = 0
        self._queue: list[tuple[bytes, Address]] = []
        self.restart(world.network.now)
        world.network.join(SERVERS[name], self)

    def restart(self, now: float) -> None:
        """A new process of this server."""
        self._world.cluster.now = DAY + now
        node = self._world.cluster.restart(self.name)
        node.start(DAY + now)
        self.killed, self.deadline = False, now
        self._queue.clear()

    def receive(self, data: bytes, source: Address, now: float) -> list[Packet]:
        if self.frozen:
            self._queue.append((data, source))
        if self.frozen or self.killed or self.zombie:
            return []
        return self._handle([(data, source)], now)

    def _handle(self, packets: Sequence[tuple[bytes, Address]], now: float) -> list[Packet]:
        self.handled += len(packets)
        self._world.cluster.now = DAY + now
        datagrams = [Datagram(data, source, DAY + now) for data, source in packets]
        turn = self._world.cluster.nodes[self.name].receive(datagrams, DAY + now)
        return [packet for outcomes in turn for packet in _packets(outcomes)]

    def on_deadline(self, now: float) -> list[Packet]:
        if self.killed or self.frozen:
            self.deadline = now + SIGN_OF_LIFE
            return []
        self._world.cluster.now = DAY + now
        node = self._world.cluster.nodes[self.name]
        packets = _packets(node.on_deadline(DAY + now))
        self.deadline = max(node.deadline - DAY, now + TICK)
        return packets

    def thaw(self) -> None:
        """SIGCONT: it handles what has waited, as if nothing had happened."""
        self.frozen = False
        network = self._world.network
        queue, self._queue = self._queue, []
        network.send(self._handle(queue, network.now), SERVERS[self.name])


def _packets(outcomes: Iterable[Any]) -> list[Packet]:
    return [(send.data, send.to or FORWARDER) for each in outcomes for send in each.sends]


class World:
    """Alice and Bob behind the forwarder and two servers. `others`: more forwarders' addresses."""

    others: tuple[Address, ...] = ()

    def __init__(
        self,
        users: dict[str, str] | None = None,
        policy: str = FIRST_LIVE,
        session_expires: int = DEFAULT_INTERVAL,
        **context: Any,
    ) -> None:
        self.network = self.make_network()
        self.cluster = Cluster(users, server_header=True, **context)
        self.servers = {name: Server(self, name) for name in SERVERS}
        self.forwarder = Forwarder(self, policy)
        self._session_expires = session_expires
        self.alice = self.phone("alice", 5062, (users or {}).get("alice", ""))
        self.bob = self.phone("bob", 5064, (users or {}).get("bob", ""))

    def make_network(self) -> Network:
        return Network()

    def phone(self, user: str, port: int, password: str = "") -> Line:
        return Line(
            self.network,
            user,
            port,
            FORWARDER,
            password,
            session_expires=self._session_expires,
            servers=self.others,
        )

    def run(self, seconds: float = 0.1) -> None:
        self.network.run(seconds)

    def register(self, *phones: Line) -> None:
        for phone in phones or (self.alice, self.bob):
            phone.does("register")
        self.run()

    def talk(self) -> None:
        """Both register, Alice calls, Bob answers."""
        self.register()
        self.alice.calls("bob")
        self.run()
        self.bob.answers()
        self.run()

    def kill(self, name: str) -> None:
        self.servers[name].killed = True

    def restart(self, name: str) -> None:
        self.servers[name].restart(self.network.now)

    def freeze(self, name: str) -> None:
        self.servers[name].frozen = True

    def at_datagram(self, number: int, strike: Callable[[], None]) -> None:
        """Do it while the `number`th datagram from now is on its way."""
        at = len(self.network.passed) + number

        def lose(passage: Any) -> bool:
            if len(self.network.passed) == at:
                strike()
            return False

        self.network.lose = lose

    @property
    def bills(self) -> list[BillTotal]:
        """As any server's management page adds them up now, the newest first."""
        return [
            total_at(bill, DAY + self.network.now)
            for bill in Transaction(self.cluster.store).scan(Bill)
        ]

    @property
    def bill(self) -> BillTotal:
        (bill,) = self.bills
        return bill

    @property
    def hot(self) -> str | None:
        hot = self.forwarder.core.table.hot
        return hot.name if hot else None

    @property
    def phones_retransmissions(self) -> int:
        return self.alice.agent.retransmissions + self.bob.agent.retransmissions


__all__ = ["DELAY", "World"]
