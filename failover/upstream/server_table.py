"""The server table: who there is, hot one first, and who gets the next call."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from hashlib import blake2b

from failover.config.settings import CALL_ID, ServerLine
from failover.proxy.pending_messages import Kept, Key
from failover.upstream.affinity_key import session
from failover.upstream.health import Health
from plumbing.address import Address
from sip.branch import keyed_hash
from sip.message import Message


class Wish(str, Enum):
    """What the operator wants of a server, whatever its health."""

    ENABLED = "ENABLED"
    DRAINING = "DRAINING"  # keeps its calls, gets no new ones
    DISABLED = "DISABLED"  # gets nothing


WISHED = {
    Wish.DRAINING: "drained by the operator: keeps its calls, gets no new ones",
    Wish.DISABLED: "disabled by the operator: gets nothing",
}


# stands where a health state's name does, for a server that only answers heartbeats
EJECTED = "EJECTED"


class Server:
    """One server. `seen`: it has answered a heartbeat. `leaving`: it answers them with 503, so it
    lives and wants no new calls; `farewell`: it has registered itself and said GRACEFUL_SHUTDOWN,
    which means the same. `hint` is the word that names it in a Record-Route: keyed, so that nobody
    can make one up."""

    # `alive`: what it says counts; `usable`: it may be sent messages of the calls it has; `open`:
    # it may be given new calls. Kept up whenever one of what they follow from is set, for every
    # message asks.
    __slots__ = (
        "_ejected",
        "_farewell",
        "_health",
        "_leaving",
        "_wish",
        "address",
        "alive",
        "answered",
        "downtime",
        "echoes",
        "ejections",
        "falls",
        "fell",
        "handled",
        "hint",
        "misses",
        "name",
        "open",
        "requests",
        "rescued",
        "responses",
        "seen",
        "took",
        "unhandled",
        "usable",
    )

    def __init__(self, line: ServerLine, health: Health, key: bytes) -> None:
        self.name, self.address = line.name, line.address
        self._health, self._wish = health, Wish.ENABLED
        self._leaving = self._farewell = False
        self._ejected = ""
        self._stand()
        self.seen = False
        self.hint = keyed_hash(key, "hint", line.name)
        self.requests = 0  # passed on to it
        self.responses = 0  # heard from it
        self.echoes = 0  # responses passed on to it that it is to pass on in its turn
        self.answered: float | None = None  # when it was heard last, heartbeats too
        self.handled = 0  # datagrams sent to it that it has answered or passed on
        self.rescued = 0  # of these, the ones that another server had before
        # Keys of the requests that it was sent and has not handled, while passive_checks.py wants
        # to know.
        self.unhandled: set[Key] | None = None
        self.ejections = 0  # times that the passive check took it out of use
        self.took: float | None = None  # seconds its last answer to a heartbeat took
        self.misses = 0  # intervals without an answer to a heartbeat
        self.falls = 0  # times it went down
        self.fell: float | None = None  # since when it is not alive
        self.downtime = 0.0  # seconds before that

    def has_handled(self, row: Kept | None) -> None:
        """A datagram that was in flight to it has come back from it, answered or passed on."""
        if row and row[0] == self.name:
            self.handled += 1
            self.rescued += row[5] > 0

    def is_late(self, key: Key, hedged: dict[Key, str]) -> None:
        """It has handled a request that was sent to another server too meanwhile, if this is one of
        `hedged`."""
        if hedged.get(key) == self.name:
            del hedged[key]
            self.handled += 1

    def has_begun(self, key: Key, row: Kept | None) -> None:
        """It works on a request of `unhandled`: has passed it on, or answered it provisionally."""
        if self.unhandled and key in self.unhandled:
            self.unhandled.discard(key)
            self.has_handled(row)

    def turn(self, health: Health) -> None:
        """Its health is another now."""
        if self.health.alive and not health.alive:
            self.falls += 1
            self.fell = health.since
        elif self.fell is not None and health.alive:
            self.downtime += health.since - self.fell
            self.fell = None
        self.health = health

    def down_for(self, now: float) -> float:
        """Seconds that it has been down in all."""
        return self.downtime + (now - self.fell if self.fell is not None else 0.0)

    def _stand(self) -> None:
        self.alive = self._health.alive
        self.usable = self.alive and self._wish is not Wish.DISABLED and not self._ejected
        self.open = (
            self.usable and self._wish is Wish.ENABLED and not (self._leaving or self._farewell)
        )

    @property
    def health(self) -> Health:
        return self._health

    @health.setter
    def health(self, health: Health) -> None:
        self._health = health
        self._stand()

    @property
    def wish(self) -> Wish:
        return self._wish

    @wish.setter
    def wish(self, wish: Wish) -> None:
        self._wish = wish
        self._stand()

    @property
    def leaving(self) -> bool:
        return self._leaving

    @leaving.setter
    def leaving(self, leaving: bool) -> None:
        self._leaving = leaving
        self._stand()

    @property
    def farewell(self) -> bool:
        return self._farewell

    @farewell.setter
    def farewell(self, farewell: bool) -> None:
        self._farewell = farewell
        self._stand()

    @property
    def ejected(self) -> str:
        """Why the passive check has taken it out of use; "" if it has not."""
        return self._ejected

    @ejected.setter
    def ejected(self, why: str) -> None:
        self._ejected = why
        self._stand()

    @property
    def state(self) -> str:
        """Its health state's name, or EJECTED."""
        return EJECTED if self._ejected and self.alive else self._health.state.value

    @property
    def why(self) -> str:
        """The sentence behind its state."""
        if self.wish is not Wish.ENABLED:
            return WISHED[self.wish] + (f"; {self.health.why}" if self.health.why else "")
        if self.ejected and self.health.alive:
            return self.ejected
        if self.leaving and self.health.alive:
            return "answers heartbeats with 503: keeps its calls, wants no new ones"
        if self.farewell and self.health.alive:
            return "said GRACEFUL_SHUTDOWN: keeps its calls, wants no new ones"
        return self.health.why


class ServerTable:
    """Built whole and never changed in its members: a reload makes another one and swaps it in."""

    def __init__(
        self,
        servers: Iterable[Server],
        policy: str,
        convergence: str = "Call-ID",
        path: bool = False,
    ) -> None:
        self.servers = tuple(servers)
        self.policy, self.convergence, self.path = policy, convergence, path
        self.by_name = {server.name: server for server in self.servers}
        self.by_address: dict[Address, Server] = {server.address: server for server in self.servers}
        self.by_hint = {server.hint: server for server in self.servers}
        self._seeds = [
            (server, blake2b(_octets(f"{server.name}\0"), digest_size=8)) for server in self.servers
        ]

    @property
    def hot(self) -> Server | None:
        """The first one that takes new calls."""
        for server in self.servers:
            if server.open:
                return server
        return None

    @property
    def usable(self) -> bool:
        """Is there a server that takes messages of the calls it has?"""
        return any(server.usable for server in self.servers)

    def role(self, server: Server) -> str:
        """What a server is told of itself: "hot" is the one that new calls go to, "live" one of
        several that they are shared among, "replica" one that waits, or only keeps the calls it
        has."""
        if self.policy == CALL_ID:
            return "live" if server.open else "replica"
        return "hot" if server is self.hot else "replica"

    def welcome(self, now: float, rise: int) -> list[Server]:
        """Where nobody takes new calls any more, those that were held back for their flapping do;
        returns them."""
        welcome = (
            []
            if self.hot
            else [s for s in self.servers if s.health.welcome(now, rise) is not s.health]
        )
        for server in welcome:
            server.turn(server.health.welcome(now, rise))
        return welcome

    def choose_for(self, message: Message, new: bool) -> Server | None:
        """`choose` for the session that the message belongs to."""
        return self.choose(self.session(message), new)

    def session(self, message: Message) -> str:
        """What names it."""
        return session(message, self.convergence)

    def choose(self, session: str, new: bool) -> Server | None:
        """Who gets a message that no hint sends anywhere. A call that is not `new` may also go to
        one that only keeps the calls it has, before it goes nowhere."""
        if self.policy != CALL_ID:
            chosen = self.hot
        else:
            chosen = self._highest(session)
        if chosen or new:
            return chosen
        return next((server for server in self.servers if server.usable), None)

    def _highest(self, session: str) -> Server | None:
        """Rendezvous hashing: every server draws a number for the session and the highest of those
        that take new calls has it, so that when one dies only its own calls move."""
        highest, best = b"", None
        octets = _octets(session)
        for server, seed in self._seeds:
            draw = seed.copy()
            draw.update(octets)
            number = draw.digest()
            if number > highest and server.open:
                highest, best = number, server
        return best


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
