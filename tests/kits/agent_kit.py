"""Agents joined in memory: a network with a fake clock, delay, loss and a record of all that
passed."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from sip.message import Request, Response, parse, reply
from softphone.ua.account import Account
from softphone.ua.events import (
    CallChanged,
    CallState,
    CallView,
    MessagePassed,
    ProbeAnswered,
    RegistrationChanged,
)
from softphone.ua.session_timer import DEFAULT_INTERVAL
from softphone.ua.user_agent import UserAgent

Address = tuple[str, int]
Packet = tuple[bytes, Address]
DELAY = 0.001
SDP = b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 7000 RTP/AVP 0\r\n"


def accepted(
    invite: Request,
    tag: str = "b",
    body: bytes = SDP,
    contact: str = "<sip:bob@127.0.0.1:5064>",
) -> Response:
    """The 200 of Bob, or of whatever stands at the other end."""
    fields = [("Contact", contact)] + ([("Content-Type", "application/sdp")] if body else [])
    return reply(invite, 200, to_tag=tag, fields=fields, body=body)


class Party(Protocol):
    """Whoever has an address on the network. Both calls answer with what is to be sent: (data, to)
    or (data, to, from)."""

    @property
    def deadline(self) -> float | None: ...
    def receive(self, data: bytes, source: Address, now: float) -> list[Any]: ...
    def on_deadline(self, now: float) -> list[Any]: ...


class Passage:
    """One datagram that was sent."""

    def __init__(self, at: float, source: Address, to: Address, data: bytes, lost: bool) -> None:
        self.at, self.source, self.to, self.data, self.lost = at, source, to, data, lost
        self.is_empty = not data.strip()  # it keeps a NAT's binding open, and says nothing
        if not self.is_empty:
            self.message: Request | Response = parse(data)

    @property
    def name(self) -> str:
        if self.is_empty:
            return "empty"
        message = self.message
        return (
            message.method
            if isinstance(message, Request)
            else f"{message.status} {message.cseq.method}"
        )

    def __repr__(self) -> str:
        lost = " LOST" if self.lost else ""
        return f"{self.at:8.3f} {self.source[1]} -> {self.to[1]} {self.name}{lost}"


class Network:
    """Delivers datagrams in order of time. `lose` decides which vanish, `edit` what becomes of the
    others, `delays` after how many seconds each arrives, more than once if it says so; `run` hops
    the clock from event to event."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.parties: dict[Address, Party] = {}
        self.passed: list[Passage] = []
        self.lose: Callable[[Passage], bool] = lambda passage: False
        self.edit: Callable[[bytes], bytes] = lambda data: data
        self.delays: Callable[[Passage], Iterable[float]] = lambda passage: (DELAY,)
        self._order = itertools.count()
        self._under_way: list[tuple[float, int, Address, Address, bytes]] = []

    def join(self, address: Address, party: Party) -> None:
        self.parties[address] = party

    def leave(self, address: Address) -> None:
        """The party dies; what is under way to it is lost."""
        del self.parties[address]

    def send(self, packets: list[Any], source: Address) -> None:
        for packet in packets:
            data, to = packet[0], packet[1]
            sender = packet[2] if len(packet) > 2 else source
            data = self.edit(data)
            passage = Passage(self.now, sender, to, data, False)
            passage.lost = self.lose(passage)
            self.passed.append(passage)
            for delay in () if passage.lost else self.delays(passage):
                heapq.heappush(
                    self._under_way, (self.now + delay, next(self._order), sender, to, data)
                )

    def run(self, seconds: float = 1.0) -> None:
        end = self.now + seconds
        while (due := self._next()) is not None and due <= end:
            self.now = max(self.now, due)
            self._step()
        self.now = end

    def run_until(self, condition: Callable[[], object], within: float = 60.0) -> None:
        end = self.now + within
        while not condition():
            due = self._next()
            assert due is not None and due <= end, (
                f"it did not come about within {within} s\n{self.ladder()}"
            )
            self.now = max(self.now, due)
            self._step()

    def _next(self) -> float | None:
        dues = [party.deadline for party in self.parties.values()]
        dues += [self._under_way[0][0]] if self._under_way else []
        return min((due for due in dues if due is not None), default=None)

    def _step(self) -> None:
        while self._under_way and self._under_way[0][0] <= self.now:
            _, _, source, to, data = heapq.heappop(self._under_way)
            if to in self.parties:
                self.send(self.parties[to].receive(data, source, self.now), to)
        for address, party in list(self.parties.items()):
            if party.deadline is not None and party.deadline <= self.now:
                self.send(party.on_deadline(self.now), address)

    def names(self, source: Address | None = None) -> list[str]:
        """What was sent (by `source`), by name, in order."""
        return [p.name for p in self.passed if source in (None, p.source)]

    def ladder(self) -> str:
        return "\n".join(map(repr, self.passed))


class Line:
    """One agent on the network, and the person using it."""

    def __init__(
        self,
        network: Network,
        user: str,
        port: int,
        proxy: Address | None = None,
        password: str = "",
        domain: str = "failover.test",
        host: str = "127.0.0.1",
        seed: int | None = None,
        display_name: str = "",
        session_expires: int = DEFAULT_INTERVAL,
        realms: tuple[str, ...] = (),
        direct: bool = False,
        keep_alive: float = 0.0,
        servers: tuple[Address, ...] = (),
    ) -> None:
        self.network, self.user = network, user
        self.address = (host, port)
        self.events: list[Any] = []
        account = Account(
            user, domain, password, display_name or user.capitalize(), realms, servers
        )
        dice = random.Random(seed if seed is not None else port)
        self.agent = UserAgent(
            account,
            self.address,
            proxy,
            dice,
            lambda call_id: port + 1000,
            session_expires=session_expires,
            direct=direct,
            keep_alive=keep_alive,
        )
        self.deadline = self.agent.deadline  # kept, since the network asks for it at every step
        network.join(self.address, self)

    # a Party
    def receive(self, data: bytes, source: Address, now: float) -> list[Packet]:
        return self._done(self.agent.receive(data, source, now))

    def on_deadline(self, now: float) -> list[Packet]:
        return self._done(self.agent.on_deadline(now))

    def _done(self, outcome: Any) -> list[Packet]:
        self.events += outcome.events
        self.deadline = self.agent.deadline
        return [(send.data, send.to) for send in outcome.sends]

    # the person
    def does(self, wish: str, *args: Any) -> None:
        outcome = getattr(self.agent, wish)(*args, now=self.network.now)
        self.network.send(self._done(outcome), self.address)

    def calls(self, target: str) -> None:
        self.does("call", target)

    def answers(self) -> None:
        self.does("answer")

    @property
    def call(self) -> CallView:
        return self.agent.calls[-1]

    @property
    def state(self) -> CallState | None:
        return self.agent.calls[-1].state if self.agent.calls else None

    @property
    def sentence(self) -> str:
        return self.call.sentence

    @property
    def sentences(self) -> list[str]:
        """What the person was told about calls, each once where it stayed the same."""
        told = [event.call.sentence for event in self.events if isinstance(event, CallChanged)]
        return [text for text, _ in itertools.groupby(told)]

    @property
    def registration_sentences(self) -> list[str]:
        return [event.sentence for event in self.events if isinstance(event, RegistrationChanged)]

    @property
    def probes(self) -> list[ProbeAnswered]:
        return [event for event in self.events if isinstance(event, ProbeAnswered)]

    @property
    def messages(self) -> list[MessagePassed]:
        return [event for event in self.events if isinstance(event, MessagePassed)]


class Scripted:
    """A party that answers each request as a test says; nothing on its own."""

    def __init__(
        self, network: Network, address: Address, react: Callable[[Request], list[Any]]
    ) -> None:
        self.network, self.address, self._react = network, address, react
        self.seen: list[Request | Response] = []
        network.join(address, self)

    deadline = None

    def receive(self, data: bytes, source: Address, now: float) -> list[Packet]:
        if not data.strip():
            return []
        message = parse(data)
        self.seen.append(message)
        if not isinstance(message, Request):
            return []
        message.replace_top("Via", str(message.via.with_source(*source)))
        return [(answer.to_bytes(), source) for answer in self._react(message)]

    def on_deadline(self, now: float) -> list[Packet]:
        return []

    def requests(self, method: str) -> list[Request]:
        return [m for m in self.seen if isinstance(m, Request) and m.method == method]


def pair() -> tuple[Network, Line, Line]:
    """Alice and Bob, who reach each other directly."""
    network = Network()
    return network, Line(network, "alice", 5062), Line(network, "bob", 5064)


BOB = "sip:bob@127.0.0.1:5064"
ALICE = "sip:alice@127.0.0.1:5062"


def talking(edit: Callable[[bytes], bytes] = lambda data: data) -> tuple[Network, Line, Line]:
    network, alice, bob = pair()
    network.edit = edit
    alice.calls(BOB)
    network.run(0.1)
    bob.answers()
    network.run(0.1)
    assert (alice.state, bob.state) == (CallState.TALKING, CallState.TALKING), network.ladder()
    return network, alice, bob
