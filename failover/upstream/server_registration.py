"""The registration table: servers that register themselves, by the SIP heartbeat of Mobicents.

A heartbeat is OPTIONS or INFO with `Mobicents-Heartbeat: 1` (or `Restcomm-Heartbeat: 1`) whose body
is a Java properties text: hostname, ip, udpPort, tcpPort and whatever else the server likes. It is
answered 200, and comes every few seconds. GRACEFUL_SHUTDOWN=true in it asks for no new calls. These
facts are those of the Mobicents, later Restcomm, SIP load balancer
(github.com/RestComm/load-balancer, its issue 78 for GRACEFUL_SHUTDOWN) and of the servers which
beat every five seconds (github.com/RestComm/jain-sip.ha); everything below is this project's own.

The table is bounded. While there is room, a host may register as many servers as it likes. In a
full table a server that does not answer heartbeats gives way to a new one; if all answer, one of
the host that has most gives way to a host that has fewer. So nobody can fill the table and keep
others out.

Trap: the protocol has neither password nor clock, so a heartbeat proves little; `_is_newer` says
which replayed datagrams can be told. No datagram can give calls to a server that does not answer
the forwarder's own heartbeats at the address it names, because it comes in as DOWN.
"""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import NamedTuple

from failover.config.networks import Networks
from failover.config.properties import decode
from failover.config.properties import parse as parse_properties
from failover.config.settings import PHONES, ServerLine
from failover.proxy.header_rewrite import response_address
from failover.proxy.rate_limit import source_of
from failover.upstream.health import Health
from plumbing.address import Address, format_address, literal
from plumbing.shorten_text import shortened
from sip.branch import keyed_hash
from sip.errors import RemoteProtocolError
from sip.message import Request, parse, reply

MAX_SERVERS = 64
GRACE_SECONDS = 2.0  # seconds in which a new server has to answer a heartbeat, or it may give way
MAX_OCTETS = 8_192  # of a heartbeat; real ones have a tenth
MAX_CALL_ID = 256
MAX_NOTE = 200  # characters
# 64 Call-IDs for each of 256 addresses: what a replay is known by
MAX_REPLAY_SERVERS, MAX_REPLAY_CALL_IDS = 256, 64
MAX_REFUSALS = 20
METHODS = ("OPTIONS", "INFO")
MARKER_FIELDS = ("Mobicents-Heartbeat", "Restcomm-Heartbeat")
RETRY_AFTER = "5"  # seconds, where the table is full

# Why a heartbeat is refused -> the status that answers it. None: no answer, because the address may
# be forged.
REFUSALS = {
    "outside": None,  # the sender's address is in none of the networks that may register
    "malformed": 400,
    "foreign": 403,  # ip= is not the sender's own address
    "own": 403,  # it names the forwarder itself
    "unreachable": None,  # it is of the other address family; it may have another address soon
    "replayed": 403,  # it was heard before, and others after it
    "full": 503,
    "unlisted": 200,  # it shuts down and was not in the table
}
ARRIVED = "arrived"  # it is in the table now
BEAT = "beat"
LEAVING = "leaving"  # it has said GRACEFUL_SHUTDOWN
BACK = "back"  # it has taken that back
STATIC = "static"  # a server of the file
REPEATED = "repeated"  # a retransmission of its last heartbeat
_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass
class Registered:
    """A registered server. Times are monotonic seconds. `sender`: the IP address that registered
    it; `beats`: its heartbeats."""

    line: ServerLine
    registered_at: float
    last_beat_at: float
    sender: str
    beats: int = 1
    leaving: bool = False


class Result(NamedTuple):
    """The result of one datagram. `kind`: one of the words above, or a reason of REFUSALS."""

    kind: str
    note: str = ""
    name: str = ""
    answer: bytes = b""
    target: Address | None = None


class Refusal(NamedTuple):
    """Heartbeats of one computer that were refused for one reason: `times` of them, the last one
    `at`, monotonic seconds."""

    at: float
    source: Address
    reason: str
    note: str
    times: int


class _Refused(Exception):
    def __init__(self, reason: str, note: str) -> None:
        super().__init__(note)
        self.reason = reason


class _Heartbeat(NamedTuple):
    address: Address
    hostname: str
    leaving: bool
    call_id: str
    number: int


class Registration:
    """Owned by one thread. `is_own(address)`: would a datagram to it come back to the forwarder?
    `is_reachable(address)`: is it of the family (IPv4 or IPv6) that the forwarder listens on?"""

    def __init__(
        self,
        key: bytes,
        allow: Networks,
        foreign: bool,
        static: Iterable[ServerLine],
        counters: Counter[str],
        is_own: Callable[[Address], bool] = lambda address: False,
        is_reachable: Callable[[Address], bool] = lambda address: True,
    ) -> None:
        self.refusals: OrderedDict[tuple[str, str], Refusal] = OrderedDict()  # the latest last
        self._key, self._counters = key, counters
        self._is_own, self._is_reachable = is_own, is_reachable
        self._allow, self._foreign = allow, foreign
        self._static = tuple(static)
        self._table: dict[Address, Registered] = {}  # in order of arrival
        self._alive: frozenset[str] = frozenset()  # names of those that answer heartbeats
        # By the name of the server that each gave way to; until the next sweep tells of them.
        self._displaced: dict[str, Registered] = {}
        # Call-ID -> its highest CSeq
        self._heard: OrderedDict[Address, OrderedDict[str, int]] = OrderedDict()

    @property
    def servers(self) -> list[Registered]:
        return list(self._table.values())

    # -- a datagram --------------------------------------------------------------------------------

    def receive(self, data: bytes, source: Address, now: float) -> Result:
        """One datagram that came in at the registration address."""
        request: Request | None = None
        try:
            if source[0] not in self._allow:
                raise _Refused(
                    "outside", f"{source[0]} is not in registration.allow ({self._allow})"
                )
            request = _request(data)
            result = self._register(_heartbeat(request), source[0], now)
        except _Refused as refused:
            result = self._refused(refused.reason, str(refused), source, now)
        except RemoteProtocolError as error:
            result = self._refused("malformed", str(error), source, now)
        self._counters[f"registration.{result.kind}"] += 1
        status = REFUSALS.get(result.kind, 200)
        return self._with_answer(result, request, source, status) if request and status else result

    def _register(self, beat: _Heartbeat, sender: str, now: float) -> Result:
        host, address = beat.address[0], beat.address
        if host != str(ip_address(sender)) and not (self._foreign and host in self._allow):
            raise _Refused("foreign", f"ip={host} is not its own address")
        if self._is_own(address):
            raise _Refused("own", f"{format_address(address)} is the forwarder's own address")
        if not self._is_reachable(address):
            text = f"{format_address(address)} is not of the family of forwarder.listen"
            raise _Refused("unreachable", text)
        static = next((line for line in self._static if line.address == address), None)
        if static:
            return Result(STATIC, name=static.name)
        known, new = self._table.get(address), self._is_newer(beat)
        if not known and not new:
            raise _Refused("replayed", f"CSeq {beat.number} again, after its server left")
        if not known:
            return self._add(beat, sender, now)
        if not new:
            return Result(REPEATED, name=known.line.name)
        self._remember(beat)
        kind = BEAT if beat.leaving == known.leaving else LEAVING if beat.leaving else BACK
        known.last_beat_at, known.beats, known.leaving = now, known.beats + 1, beat.leaving
        return Result(kind, name=known.line.name)

    def _add(self, beat: _Heartbeat, sender: str, now: float) -> Result:
        if beat.leaving:
            raise _Refused(
                "unlisted", f"{format_address(beat.address)} takes leave and was not in the table"
            )
        full = len(self._table) >= MAX_SERVERS
        displaced = self._displaceable(sender, now) if full else None
        if full and not displaced:
            raise _Refused(
                "full", f"there are {MAX_SERVERS} registered servers, and no more may be"
            )
        taken = [
            line.name for line in (*self._static, *(each.line for each in self._table.values()))
        ]
        name = _name(beat.hostname, beat.address, taken)
        if displaced:
            del self._table[displaced.line.address]
            self._displaced[name] = displaced
        self._table[beat.address] = Registered(ServerLine(name, beat.address), now, now, sender)
        self._remember(beat)
        return Result(ARRIVED, name=name)

    def _displaceable(self, sender: str, now: float) -> Registered | None:
        """Which server of a full table gives way to a new one of this sender: the one that has not
        answered for longest; else the newest of the network (IPv6) or host that has two more than
        the sender's."""
        everybody = list(self._table.values())
        silent = [
            each
            for each in everybody
            if now - each.registered_at > GRACE_SECONDS and not self._is_alive(each)
        ]
        if silent:
            return min(silent, key=lambda each: each.last_beat_at)
        network = [each for each in everybody if source_of(each.sender) == source_of(sender)]
        for servers, group_of in ((everybody, source_of), (network, str)):
            groups = Counter(group_of(each.sender) for each in servers)
            for greediest, most in groups.most_common(1):
                if most > groups[group_of(sender)] + 1:
                    greedy = [each for each in servers if group_of(each.sender) == greediest]
                    return max(
                        greedy, key=lambda each: (not self._is_alive(each), each.registered_at)
                    )
        return None

    def _is_alive(self, server: Registered) -> bool:
        """It was at the last sweep."""
        return server.line.name in self._alive

    def _is_newer(self, beat: _Heartbeat) -> bool:
        """False for a retransmission of the last heartbeat. Refuses an older one.

        Within a Call-ID the CSeq grows (RFC 3261 8.1.1.5, 12.2.1.1), and a server that takes a new
        Call-ID, as after a restart, does not go back to an old one. So an old datagram that comes
        again (a GRACEFUL_SHUTDOWN from before the restart, say) is known by its Call-ID, also when
        the server has left; for as long as the Call-ID is remembered here.
        """
        heard = self._heard.get(beat.address)
        if not heard or beat.call_id not in heard:
            return True
        last = heard[beat.call_id]
        if next(reversed(heard)) != beat.call_id:
            raise _Refused("replayed", f"Call-ID {beat.call_id} was followed by another")
        if beat.number < last:
            raise _Refused("replayed", f"CSeq {beat.number} after {last}")
        return beat.number > last

    def _remember(self, beat: _Heartbeat) -> None:
        heard = self._heard.setdefault(beat.address, OrderedDict())
        self._heard.move_to_end(beat.address)
        heard[beat.call_id] = beat.number
        heard.move_to_end(beat.call_id)
        if len(heard) > MAX_REPLAY_CALL_IDS:
            heard.popitem(last=False)
        if len(self._heard) > MAX_REPLAY_SERVERS:
            del self._heard[next(address for address in self._heard if address not in self._table)]

    def _refused(self, reason: str, note: str, source: Address, now: float) -> Result:
        earlier = self.refusals.pop((source[0], reason), None)
        times = earlier.times + 1 if earlier else 1
        note = shortened(note, MAX_NOTE)
        self.refusals[source[0], reason] = Refusal(now, source, reason, note, times)
        if len(self.refusals) > MAX_REFUSALS:
            self.refusals.popitem(last=False)
        return Result(reason, note)

    def _with_answer(
        self, result: Result, request: Request, source: Address, status: int
    ) -> Result:
        """The result with the answer, which goes to the host that the datagram came from, and the
        port that RFC 3581 asks for."""
        request.complete_via(*source)
        tag = keyed_hash(self._key, "registration", request.call_id)
        fields = [("Retry-After", RETRY_AFTER)] if status == 503 else []
        target = source[0], response_address(request.via)[1]
        return result._replace(
            answer=reply(request, status, "", tag, fields).to_bytes(), target=target
        )

    # -- the table ---------------------------------------------------------------------------------

    def sweep(
        self, now: float, timeout: float, health: Mapping[str, Health]
    ) -> list[tuple[Registered, str]]:
        """Takes out the servers that shut down and have gone, and those that have neither beaten
        nor answered the forwarder's heartbeats for `timeout` seconds. Returns them with the reason,
        and those that gave way since the last sweep. `health` is by name."""
        self._alive = frozenset(name for name, known in health.items() if known.alive)
        gone: list[tuple[Registered, str]] = []
        for each in self._table.values():
            known = health.get(each.line.name)
            alive = known is not None and known.alive
            lived = now if alive else max(each.last_beat_at, known.since if known else 0.0)
            if each.leaving and not alive:
                gone.append((each, "took leave and has gone"))
                self._counters["registration.left"] += 1
            elif now - lived > timeout:
                gone.append((each, f"neither beat nor answered heartbeats for {timeout:g} s"))
                self._counters["registration.expired"] += 1
        for each, _ in gone:
            del self._table[each.line.address]
        displaced, self._displaced = self._displaced, {}
        if displaced:
            self._counters["registration.displaced"] += len(displaced)
        full = f"there are {MAX_SERVERS} registered servers at most"
        return gone + [(each, f"gave way to {name}: {full}") for name, each in displaced.items()]

    def lines(self) -> tuple[ServerLine, ...]:
        """In order of arrival."""
        return tuple(each.line for each in self._table.values())

    def reconfigure(self, static: Iterable[ServerLine], allow: Networks, foreign: bool) -> None:
        """After a reload: a server that is in the file now, or may not register any more, is taken
        out; one whose name the file gives to another server gets a new name."""
        self._static, self._foreign, self._allow = tuple(static), foreign, allow
        named = {line.name for line in self._static}
        addressed = {line.address for line in self._static}
        for address, each in list(self._table.items()):
            if address in addressed or address[0] not in allow:
                del self._table[address]
            elif each.line.name in named:
                each.line = ServerLine(format_address(address), address)


# -- one heartbeat, read ---------------------------------------------------------------------------


def _request(data: bytes) -> Request:
    """The request in a datagram, if it may be answered. Raises RemoteProtocolError."""
    if len(data) > MAX_OCTETS:
        raise RemoteProtocolError(f"{len(data)} octets are no heartbeat")
    message = parse(data)
    if not isinstance(message, Request) or message.method == "ACK":
        raise RemoteProtocolError("only requests are heartbeats")
    message.check()
    if len(message.call_id) > MAX_CALL_ID:
        raise RemoteProtocolError(f"a Call-ID of more than {MAX_CALL_ID} characters")
    return message


def _heartbeat(request: Request) -> _Heartbeat:
    if request.method not in METHODS:
        method = shortened(request.method, 20)
        raise RemoteProtocolError(f"{method} is no heartbeat; OPTIONS or INFO is")
    if not any((request.get(mark) or "").strip() == "1" for mark in MARKER_FIELDS):
        raise RemoteProtocolError(f"no {MARKER_FIELDS[0]}: 1")
    entries, faults = parse_properties(decode(request.body))
    if faults:
        raise RemoteProtocolError(faults[0].located("body"))
    said = {entry.key: entry.value.strip() for entry in entries}
    leaving = said.get("GRACEFUL_SHUTDOWN", "").lower() == "true"
    return _Heartbeat(
        _address(said), said.get("hostname", ""), leaving, request.call_id, request.cseq.number
    )


def _address(said: Mapping[str, str]) -> Address:
    ip, port = said.get("ip", ""), said.get("udpPort", "")
    try:
        host = str(ip_address(ip))
    except ValueError:
        raise RemoteProtocolError(f"ip={shortened(ip, 60)} is not an IP address") from None
    if not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65_536:
        named = f"udpPort={shortened(port, 20)}"
        raise RemoteProtocolError(f"{named} is not a UDP port, which a server here must have")
    if "%" in host or not literal((host, int(port))):
        raise RemoteProtocolError(f"ip={shortened(ip, 60)} is not one computer's address")
    return host, int(port)


def _name(hostname: str, address: Address, taken: Iterable[str]) -> str:
    """The host's name, in characters that suit logs, labels and paths, if it is free; else the
    address."""
    name = _UNFIT.sub("-", hostname)[:40].strip("-._")
    return name if name and name != PHONES and name not in taken else format_address(address)
