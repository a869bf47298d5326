"""What the forwarder tells about itself: /status, /failovers and /events, made from the core's own
data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from failover.net.active_standby import ACTIVE, STANDBY, HaState, Takeover
from failover.proxy.core import Core
from failover.proxy.events import Event, Failover, Passed, Queued, Released, Resumed, StateChanged
from failover.upstream.server_table import Server
from plumbing.address import Address, format_address
from sip import VERSION


def status(
    core: Core,
    listen: Address,
    standing: HaState,
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
        "role": standing.role.value,
        "role_since": round(wall - now + standing.since, 3),
        "role_why": standing.why,
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
        "in_flight": len(core.inflight),
        "kept": len(core.kept),
        "errors": errors,
        "failovers": failovers(core, wall - now),
    }


def summary(core: Core, standing: HaState) -> str:
    """The state of things in one line."""
    live = sum(server.up for server in core.table.servers)
    hot = core.table.hot
    said = [
        f"{hot.name} is hot" if hot else "NO SERVER TAKES NEW CALLS",
        f"{live} of {len(core.table.servers)} live",
    ]
    if core.failovers:
        said.append(f"failovers: {core.counters['failovers']}")
    return "; ".join([f"standby: {standing.why}", *said] if standing.role is STANDBY else said)


def event(told: Event, offset: float) -> tuple[str, dict[str, object]] | None:
    """An event's name and object for /events; None for those only counted. `offset` is wall minus
    monotonic time."""
    if isinstance(told, Passed):
        return "message", {
            "at": told.at,
            "wall": told.at + offset,
            "from": told.came,
            "to": told.went,
            "source": format_address(told.source),
            "target": format_address(told.target),
            "method": told.method,
            "status": told.status,
            "call_id": told.call_id,
            "session": told.session or told.call_id,
            "replayed": told.replayed,
        }
    if isinstance(told, StateChanged):
        return "state", {
            "at": told.at,
            "server": told.server,
            "state": told.state,
            "why": told.why,
            "hot": told.hot,
        }
    if isinstance(told, Queued):
        return "kept", {
            "at": told.at,
            "wall": told.at + offset,
            "from": told.side,
            "source": format_address(told.source),
            "method": told.method,
            "status": told.status,
            "call_id": told.call_id,
        }
    if isinstance(told, Released):
        return "released", {
            "at": told.at,
            "wall": told.at + offset,
            "messages": told.messages,
            "oldest": told.oldest,
        }
    if isinstance(told, Failover):
        return "failover", failover(told, offset)
    if isinstance(told, Resumed):
        return "resumed", failover(told.failover, offset)
    return None


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


def failovers(core: Core, offset: float) -> list[dict[str, object]]:
    """The flight recorder, oldest first."""
    return [failover(each, offset) for each in core.failovers]


def recorded(core: Core, takeovers: Iterable[Takeover], offset: float) -> list[dict[str, object]]:
    """The same with the takeovers of the address: the /failovers list."""
    told = [(each.at, failover(each, offset)) for each in core.failovers]
    told += [(each.at, takeover(each, offset)) for each in takeovers]
    return [each for _, each in sorted(told, key=lambda pair: pair[0])]


def takeover(takeover: Takeover, offset: float) -> dict[str, object]:
    """Of the forwarders' address; has the fields of a failover that say who, when and why."""
    roles = [role.value for role in (STANDBY, ACTIVE)]
    before, after = roles if takeover.role is ACTIVE else reversed(roles)
    return {
        "kind": "takeover",
        "from": before,
        "to": after,
        "noticed": takeover.why,
        "at": round(takeover.at + offset, 3),
        "monotonic": takeover.at,
        "address": takeover.address,
        "waited": round(takeover.waited, 3),
    }


def failover(failover: Failover, offset: float) -> dict[str, object]:
    """`offset` is wall minus monotonic time."""
    return {
        "kind": "failover",
        "from": failover.lost,
        "to": failover.taken_by,
        "noticed": failover.noticed,
        "at": round(failover.at + offset, 3),
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
    return None if monotonic is None else round(monotonic + offset, 3)


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
