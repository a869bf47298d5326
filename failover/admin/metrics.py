"""/metrics: Prometheus' text format, in the shapes of HAProxy's own exporter, so that boards and
alerts carry over."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from failover.net.active_standby import ACTIVE, HaState
from failover.proxy.core import Core
from failover.upstream.health import State
from failover.upstream.server_table import EJECTED, AdminState, Server
from sip import VERSION

Sample = tuple[dict[str, str], float]
Facts = Callable[[Server], object]
STATES = [state.value for state in State]
WISHES = [wish.value for wish in AdminState]


def metrics(
    core: Core, standing: HaState, started: float, now: float, wall: float, errors: int = 0
) -> str:
    """`started` and `now` are monotonic, `wall` is the time of day at `now`; `errors`: defects of
    ours since then."""
    process = [
        *_process(core, started, now, wall),
        *_single(
            "forwarder_errors_total",
            "counter",
            "Defects of the forwarder itself; the log has each.",
            errors,
        ),
    ]
    return "\n".join(
        [
            *process,
            *_standing(core, standing, wall - now),
            *_servers(core, now),
            *_traffic(core),
            "",
        ]
    )


def _process(core: Core, started: float, now: float, wall: float) -> list[str]:
    return [
        *_family(
            "forwarder_build_info", "gauge", "The version, always 1.", [({"version": VERSION}, 1)]
        ),
        *_single(
            "forwarder_process_start_time_seconds",
            "gauge",
            "When it started, in seconds since the epoch.",
            round(wall - (now - started), 3),
        ),
        *_single(
            "forwarder_uptime_seconds", "gauge", "Seconds since the start.", round(now - started, 3)
        ),
        *_single(
            "forwarder_servers_live",
            "gauge",
            "Servers that answer heartbeats.",
            sum(server.up for server in core.table.servers),
        ),
    ]


def _standing(core: Core, standing: HaState, offset: float) -> list[str]:
    return [
        *_single(
            "forwarder_active",
            "gauge",
            "1 for the forwarder that has the address, 0 for one on standby.",
            standing.role is ACTIVE,
        ),
        *_single(
            "forwarder_role_since_seconds",
            "gauge",
            "Since when, in seconds since the epoch.",
            round(offset + standing.since, 3),
        ),
        *_single(
            "forwarder_takeovers_total",
            "counter",
            "Times it took the address after it had been on standby.",
            core.counters["takeovers"],
        ),
    ]


def _servers(core: Core, now: float) -> list[str]:
    """One family a fact, one sample a server; what a server is in is one sample per state, 1 or
    0."""
    servers, hot = core.table.servers, core.table.hot

    def each(name: str, kind: str, text: str, value: Callable[[Server], float | None]) -> list[str]:
        values = [({"server": server.name}, value(server)) for server in servers]
        return _family(
            f"forwarder_server_{name}", kind, text, [(who, n) for who, n in values if n is not None]
        )

    def states(name: str, text: str, label: str, all_of: Iterable[str], of: Facts) -> list[str]:
        samples = [
            ({"server": s.name, label: one}, float(of(s) == one)) for s in servers for one in all_of
        ]
        return _family(f"forwarder_server_{name}", "gauge", text, samples)

    return [
        *states(
            "status",
            "1 for the state the server is in.",
            "state",
            (*STATES, EJECTED),
            lambda s: s.state,
        ),
        *states(
            "wish",
            "1 for what the operator wants of it.",
            "wish",
            WISHES,
            lambda s: s.admin_state.value,
        ),
        *each("hot", "gauge", "1 for the server that new calls go to first.", lambda s: s is hot),
        *each("open", "gauge", "1 for a server that may get new calls.", lambda s: s.accepts_new),
        *each(
            "requests_total", "counter", "Requests passed on to the server.", lambda s: s.requests
        ),
        *each(
            "responses_total", "counter", "Responses heard from the server.", lambda s: s.responses
        ),
        *each(
            "check_failures_total",
            "counter",
            "Heartbeat intervals without an answer.",
            lambda s: s.missed_checks,
        ),
        *each(
            "check_up_down_total", "counter", "Times the server went down.", lambda s: s.times_down
        ),
        *each(
            "ejections_total",
            "counter",
            "Times it answered heartbeats only: ejected.",
            lambda s: s.ejections,
        ),
        *each(
            "check_duration_seconds",
            "gauge",
            "What the last answered heartbeat took.",
            lambda s: s.check_duration,
        ),
        *each(
            "downtime_seconds_total",
            "counter",
            "Seconds the server was down.",
            lambda s: s.downtime(now),
        ),
    ]


def _traffic(core: Core) -> list[str]:
    counters = [({"what": name}, count) for name, count in sorted(core.counters.items())]
    return [
        *_single(
            "forwarder_in_flight",
            "gauge",
            "Datagrams that would be replayed if their server died now.",
            len(core.inflight),
        ),
        *_single(
            "forwarder_kept", "gauge", "Messages kept because no server lives.", len(core.kept)
        ),
        *_single(
            "forwarder_failovers_total",
            "counter",
            "Servers that went down and left something to take over.",
            core.counters["failovers"],
        ),
        *_single(
            "forwarder_replayed_total",
            "counter",
            "Datagrams sent again to the next server.",
            core.counters["replayed"],
        ),
        *_family(
            "forwarder_events_total", "counter", "Everything counted, by what it was.", counters
        ),
    ]


def _single(name: str, kind: str, text: str, value: float) -> list[str]:
    return _family(name, kind, text, [({}, value)])


def _family(name: str, kind: str, text: str, samples: Iterable[Sample]) -> list[str]:
    """Nothing at all for a family without samples: promtool wants none empty."""
    lines = [f"{name}{_labels(labels)} {value:.15g}" for labels, value in samples]
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *lines] if lines else []


def _labels(labels: dict[str, str]) -> str:
    return (
        "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"
        if labels
        else ""
    )


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
