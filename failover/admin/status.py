"""The JSON objects of /status, /failovers and /events, made from the core's data.

Times of the core are monotonic seconds. Those for people ("at", "wall", "since") are seconds since
the epoch: monotonic time plus `offset`, which is the difference of the two clocks now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from failover.net.active_standby import ACTIVE, STANDBY, HaState
from failover.proxy.core import Core
from failover.proxy.events import (
    Event,
    FailoverRecord,
    Passed,
    Queued,
    Released,
    Resumed,
    StateChanged,
)
from failover.upstream.server_table import Server
from plumbing.address import Address, format_address
from sip import VERSION


def status(
    core: Core,
    listen: Address,
    state: HaState,
    started: float,
    now: float,
    wall: float,
    errors: int = 0,
    links: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, object]:
    """The /status object.

    `started` and `now` are monotonic seconds, `wall` is the time of day at `now`; `errors` is the
    number of exceptions caught since the start; `links` has the URLs of servers' own pages.
    """
    hot = core.table.hot
    return {
        "version": VERSION,
        "role": state.role.value,
        "role_since": round(wall - now + state.since, 3),
        "role_why": state.why,
        "listen": format_address(listen),
        "policy": core.table.policy,
        "convergence": core.table.convergence,
        "hot": hot.name if hot else None,
        "uptime": round(now - started, 3),
        "servers": [
            {**_server(server, server is hot, now), "page": links.get(server.name)}
            for server in core.table.servers
        ],
        "counters": dict(sorted(core.counters.items())),
        "in_flight": len(core.pending),
        "kept": len(core.outage_queue),
        "errors": errors,
        "failovers": [failover(each, wall - now) for each in core.failover.records],
    }


def summary(core: Core, state: HaState) -> str:
    """One line about the forwarder: its role, the hot server, how many are up."""
    live = sum(server.up for server in core.table.servers)
    hot = core.table.hot
    parts = [
        f"{hot.name} is hot" if hot else "NO SERVER TAKES NEW CALLS",
        f"{live} of {len(core.table.servers)} live",
    ]
    if core.failover.records:
        parts.append(f"failovers: {core.counters['failovers']}")
    return "; ".join([f"standby: {state.why}", *parts] if state.role is STANDBY else parts)


def event(event: Event, offset: float) -> tuple[str, dict[str, object]] | None:
    """The name and the object of an event in /events; None for one that is counted only."""
    if isinstance(event, Passed):
        return "message", {
            "at": event.at,
            "wall": event.at + offset,
            "from": event.from_side,
            "to": event.to_side,
            "source": format_address(event.source),
            "target": format_address(event.target),
            "method": event.method,
            "status": event.status,
            "call_id": event.call_id,
            "session": event.affinity_key or event.call_id,
            "replayed": event.replayed,
        }
    if isinstance(event, StateChanged):
        return "state", event._asdict()
    if isinstance(event, Queued):
        return "kept", {
            "at": event.at,
            "wall": event.at + offset,
            "from": event.side,
            "source": format_address(event.source),
            "method": event.method,
            "status": event.status,
            "call_id": event.call_id,
        }
    if isinstance(event, Released):
        return "released", {**event._asdict(), "wall": event.at + offset}
    if isinstance(event, FailoverRecord):
        return "failover", failover(event, offset)
    if isinstance(event, Resumed):
        return "resumed", failover(event.failover, offset)
    return None


def message_text(event: Passed) -> dict[str, object]:
    """The text of the message, added to a "message" event where the reader of /events asked for it.
    SIP is UTF-8 (RFC 3261 section 7); other octets become U+FFFD."""
    return {"text": event.data.decode("utf-8", "replace")}


def _server(server: Server, hot: bool, now: float) -> dict[str, object]:
    return {
        "name": server.name,
        "address": format_address(server.address),
        "state": server.state,
        "wish": server.admin_state.value,
        "hot": hot,
        "for": round(now - server.health.since, 3),
        "why": server.why,
        "requests": server.requests,
        "responses": server.responses,
        "misses": server.missed_checks,
        "falls": server.times_down,
        "ejections": server.ejections,
        "down": round(server.downtime(now), 3),
        "heartbeat_ms": _milliseconds(server.check_duration),
    }


def recorded(core: Core, takeovers: Iterable[HaState], offset: float) -> list[dict[str, object]]:
    """The /failovers list: failovers and takeovers, the oldest first."""
    entries = [(each.at, failover(each, offset)) for each in core.failover.records]
    entries += [(each.since, takeover(each, offset)) for each in takeovers]
    return [each for _, each in sorted(entries, key=lambda pair: pair[0])]


def takeover(state: HaState, offset: float) -> dict[str, object]:
    """The beginning of a role, as a takeover of the forwarders' address. Its fields are named as
    those of a failover."""
    return {
        "kind": "takeover",
        "from": (STANDBY if state.role is ACTIVE else ACTIVE).value,
        "to": state.role.value,
        "noticed": state.why,
        "at": round(state.since + offset, 3),
        "monotonic": state.since,
        "address": state.address,
        "waited": round(state.waited, 3),
    }


def failover(failover: FailoverRecord, offset: float) -> dict[str, object]:
    """A failover from one server to another."""
    return {
        "kind": "failover",
        "from": failover.lost,
        "to": failover.successor,
        "noticed": failover.noticed,
        "at": _wall(failover.at, offset),
        "monotonic": failover.at,
        "in_flight": failover.in_flight,
        "replayed": failover.replayed,
        "kept": failover.kept,
        "lost": failover.in_flight - failover.replayed - failover.kept,
        "last_answer": _wall(failover.last_answer, offset),
        "first_answer": _wall(failover.first_answer, offset),
        "gap_ms": _milliseconds(failover.gap),
        "silence_ms": _milliseconds(failover.silence),
    }


def _wall(monotonic: float | None, offset: float) -> float | None:
    return None if monotonic is None else round(monotonic + offset, 6)


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
