"""The servers, in the order of the file, and the choice of one for a message that no rule binds to
a server already (failover.py applies those rules first).

A server's fitness for messages follows from four things, each with a source of its own:

    health       the checks (health.py)                            UP, FAILING, DOWN, RECOVERING
    admin_state  the operator                                      ENABLED, DRAINING, DISABLED
    ejected      the passive check (passive_checks.py)             the reason, or ""
    draining     the server itself: 503 to a check, or GRACEFUL_SHUTDOWN in its registration

`up`, `accepts_dialogs` and `accepts_new` are kept up to date whenever one of these is set, because
every message asks for them.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from hashlib import blake2b
from typing import Generic, TypeVar

from failover.config.settings import CALL_ID, ServerLine
from failover.upstream.affinity_key import affinity_key
from failover.upstream.health import Health
from plumbing.address import Address
from sip.branch import keyed_hash
from sip.message import Message

T = TypeVar("T")
EJECTED = "EJECTED"  # shown as the state of a server that answers heartbeats and nothing else


class AdminState(str, Enum):
    """The operator's wish for a server, whatever its health."""

    ENABLED = "ENABLED"
    DRAINING = "DRAINING"  # keeps its calls, gets no new ones
    DISABLED = "DISABLED"  # gets nothing


ADMIN_WHY = {
    AdminState.DRAINING: "drained by the operator: keeps its calls, gets no new ones",
    AdminState.DISABLED: "disabled by the operator: gets nothing",
}


class Condition(Generic[T]):
    """A Server's attribute that decides what it is fit for: setting it updates `up`,
    `accepts_dialogs` and `accepts_new`."""

    def __set_name__(self, owner: type[Server], name: str) -> None:
        self._name = f"_{name}"

    def __get__(self, server: Server, owner: type[Server]) -> T:
        return getattr(server, self._name)  # type: ignore[no-any-return]

    def __set__(self, server: Server, value: T) -> None:
        setattr(server, self._name, value)
        server.update()


class Server:
    """One server: its conditions and its counters.

    `up`: its messages count; `accepts_dialogs`: it may be sent messages of calls it has;
    `accepts_new`: it may be given new calls. `hint` names it in a Record-Route, as a cookie names
    one in HTTP; it is a keyed hash, so that nobody can make one up.
    """

    health = Condition[Health]()
    admin_state = Condition[AdminState]()
    ejected = Condition[str]()  # why the passive check took it out of use; "" if it did not
    answers_503 = Condition[bool]()  # to heartbeats: it is up and wants no new calls
    shutting_down = Condition[bool]()  # it has registered itself, and said GRACEFUL_SHUTDOWN

    def __init__(self, line: ServerLine, health: Health, key: bytes) -> None:
        self.name, self.address = line.name, line.address
        self._health, self._admin_state, self._ejected = health, AdminState.ENABLED, ""
        self._answers_503 = self._shutting_down = False
        self.update()
        self.hint = keyed_hash(key, "hint", line.name)
        self.ever_answered = False  # a heartbeat
        self.requests = 0  # passed on to it
        self.responses = 0  # received from it
        self.relayed = 0  # responses passed on to it that it is to pass on in its turn
        self.last_heard_at: float | None = None  # heartbeats count too
        self.handled = 0  # datagrams sent to it that it has answered or passed on
        self.handled_for_others = 0  # of these, the ones that another server had before
        self.ejections = 0
        self.check_duration: float | None = None  # seconds its last answered heartbeat took
        self.missed_checks = 0
        self.times_down = 0
        self.down_since: float | None = None
        self._earlier_downtime = 0.0  # seconds

    def update(self) -> None:
        """Recomputes what it is fit for."""
        self.up = self._health.alive
        self.accepts_dialogs = (
            self.up and self._admin_state is not AdminState.DISABLED and not self._ejected
        )
        self.accepts_new = (
            self.accepts_dialogs
            and self._admin_state is AdminState.ENABLED
            and not self.draining_itself
        )

    def set_health(self, health: Health) -> None:
        """Sets its health and counts down times."""
        if self.up and not health.alive:
            self.times_down += 1
            self.down_since = health.since
        elif self.down_since is not None and health.alive:
            self._earlier_downtime += health.since - self.down_since
            self.down_since = None
        self.health = health

    def inherit_health(self, former: Server) -> None:
        """Goes on with the health of the server that had this address under another name."""
        self.health, self.answers_503 = former.health, former.answers_503
        self.ever_answered, self.last_heard_at = former.ever_answered, former.last_heard_at

    def downtime(self, now: float) -> float:
        """Seconds that it has been down in all."""
        current = now - self.down_since if self.down_since is not None else 0.0
        return self._earlier_downtime + current

    @property
    def draining_itself(self) -> bool:
        """It has asked for no new calls."""
        return self._answers_503 or self._shutting_down

    @property
    def state(self) -> str:
        """Its health state's name, or EJECTED."""
        return EJECTED if self._ejected and self.up else self._health.state.value

    @property
    def why(self) -> str:
        """The sentence behind its state."""
        if self._admin_state is not AdminState.ENABLED:
            why = ADMIN_WHY[self._admin_state]
            return f"{why}; {self._health.why}" if self._health.why else why
        if not self.up:
            return self._health.why
        if self._ejected:
            return self._ejected
        if self._answers_503:
            return "answers heartbeats with 503: keeps its calls, wants no new ones"
        if self._shutting_down:
            return "said GRACEFUL_SHUTDOWN: keeps its calls, wants no new ones"
        return self._health.why


MAX_FORMER = 256


class ServerTable:
    """The list of servers. A reload makes another table and swaps it in; once it is in use
    (`succeed`) it never changes."""

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
        # Addresses of servers that were in the list, the latest last. Dialogs still name them.
        self.former: dict[Address, None] = {}
        self._seeds = [
            (server, blake2b(_octets(f"{server.name}\0"), digest_size=8)) for server in self.servers
        ]

    def succeed(self, earlier: ServerTable) -> None:
        """Takes the place of the earlier table."""
        known = (*earlier.former, *earlier.by_address)
        former = [address for address in known if address not in self.by_address]
        self.former = dict.fromkeys(former[-MAX_FORMER:])

    @property
    def hot(self) -> Server | None:
        """The first server that takes new calls."""
        for server in self.servers:
            if server.accepts_new:
                return server
        return None

    @property
    def usable(self) -> bool:
        """Does a server take messages of the calls it has?"""
        return any(server.accepts_dialogs for server in self.servers)

    @property
    def draining(self) -> Server | None:
        """The first server that keeps its calls, and is able to take others: one that answers
        heartbeats with 503 may not be, because it has just been started or its store is down."""
        for server in self.servers:
            if server.accepts_dialogs and not server.answers_503:
                return server
        return None

    def is_last(self, server: Server) -> bool:
        """Is no other server up and working?"""
        return not any(
            other.up and not other.ejected for other in self.servers if other is not server
        )

    def role(self, server: Server) -> str:
        """The role that a heartbeat tells a server: "hot" gets the new calls, "live" shares them
        with others, "replica" waits, or only keeps the calls it has."""
        if self.policy == CALL_ID:
            return "live" if server.accepts_new else "replica"
        return "hot" if server is self.hot else "replica"

    def end_damping(self, now: float, rise: int) -> list[Server]:
        """Panic mode: when no server takes new calls, those that are held back only because they
        flapped are used. Returns them."""
        if self.hot:
            return []
        ended = []
        for server in self.servers:
            health = server.health.undamped(now, rise)
            if health is not server.health:
                server.set_health(health)
                ended.append(server)
        return ended

    def choose_for(self, message: Message, new: bool) -> Server | None:
        """`choose`, for this message."""
        return self.choose(self.affinity_key(message), new)

    def affinity_key(self, message: Message) -> str:
        """The key by which `choose` sends equal messages to one server."""
        return affinity_key(message, self.convergence)

    def choose(self, key: str, new: bool) -> Server | None:
        """Chooses by the policy. If no server takes new calls, a message of a call that exists
        (`new` is False) may go to one that only keeps the calls it has."""
        chosen = self._highest(key) if self.policy == CALL_ID else self.hot
        if chosen or new:
            return chosen
        return next((server for server in self.servers if server.accepts_dialogs), None)

    def _highest(self, key: str) -> Server | None:
        """Rendezvous hashing: every server gets a number for the key, and the highest of those that
        take new calls wins. So when a server goes down, only its own calls move."""
        highest, best = b"", None
        octets = _octets(key)
        for server, seed in self._seeds:
            hashed = seed.copy()
            hashed.update(octets)
            number = hashed.digest()
            if number > highest and server.accepts_new:
                highest, best = number, server
        return best


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
