"""/metrics in Prometheus' text format, with families like those of HAProxy's exporter, so that
dashboards and alerts carry over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from failover.net.active_standby import ACTIVE, HaState
from failover.proxy.core import Core
from failover.upstream.health import State
from failover.upstream.server_table import EJECTED, AdminState, Server
from sip import VERSION

# name without "forwarder_", type, help text; a test holds docs/operations.txt to these
FAMILIES = """\
build_info gauge The version, always 1.
process_start_time_seconds gauge When it started, in seconds since the epoch.
uptime_seconds gauge Seconds since the start.
servers_live gauge Servers that answer heartbeats.
errors_total counter Defects of the forwarder itself; the log has each.
active gauge 1 for the forwarder that has the address, 0 for one on standby.
role_since_seconds gauge Since when, in seconds since the epoch.
takeovers_total counter Times it took the address after it had been on standby.
server_status gauge 1 for the state the server is in.
server_wish gauge 1 for what the operator wants of it.
server_hot gauge 1 for the server that new calls go to first.
server_open gauge 1 for a server that may get new calls.
server_requests_total counter Requests passed on to the server.
server_responses_total counter Responses heard from the server.
server_check_failures_total counter Heartbeat intervals without an answer.
server_check_up_down_total counter Times the server went down.
server_ejections_total counter Times it answered heartbeats only: ejected.
server_check_duration_seconds gauge What the last answered heartbeat took.
server_downtime_seconds_total counter Seconds the server was down.
in_flight gauge Datagrams that would be replayed if their server died now.
kept gauge Messages kept because no server lives.
failovers_total counter Servers that went down and left something to take over.
replayed_total counter Datagrams sent again to the next server.
events_total counter Everything counted, by what it was.
"""
STATES = (*(state.value for state in State), EJECTED)
WISHES = [wish.value for wish in AdminState]
Sample = tuple[dict[str, str], float]  # labels and value


def metrics(
    core: Core, state: HaState, started: float, now: float, wall: float, errors: int = 0
) -> str:
    """The text of /metrics.

    `started` and `now` are monotonic seconds, `wall` is the time of day at `now`; `errors` is the
    number of exceptions caught since the start.
    """
    servers, counters = core.table.servers, core.counters
    values: dict[str, float] = {
        "process_start_time_seconds": round(wall - (now - started), 3),
        "uptime_seconds": round(now - started, 3),
        "servers_live": sum(server.up for server in servers),
        "errors_total": errors,
        "active": state.role is ACTIVE,
        "role_since_seconds": round(wall - now + state.since, 3),
        "takeovers_total": counters["takeovers"],
        "in_flight": len(core.pending),
        "kept": len(core.outage_queue),
        "failovers_total": counters["failovers"],
        "replayed_total": counters["replayed"],
    }
    samples: dict[str, list[Sample]] = {
        "build_info": [({"version": VERSION}, 1)],
        "events_total": [({"what": name}, count) for name, count in sorted(counters.items())],
        **{name: [({}, value)] for name, value in values.items()},
    }
    for server in servers:
        for name, labels, value in _of_server(server, server is core.table.hot, now):
            samples.setdefault(name, []).append(({"server": server.name, **labels}, value))
    lines: list[str] = []
    for name, kind, text in (line.split(None, 2) for line in FAMILIES.splitlines()):
        lines += _family(f"forwarder_{name}", kind, text, samples.get(name, ()))
    return "\n".join([*lines, ""])


def _of_server(
    server: Server, hot: bool, now: float
) -> Iterable[tuple[str, dict[str, str], float]]:
    """(family, labels, value) of each sample about a server."""
    for state in STATES:
        yield "server_status", {"state": state}, server.state == state
    for wish in WISHES:
        yield "server_wish", {"wish": wish}, server.admin_state.value == wish
    yield "server_hot", {}, hot
    yield "server_open", {}, server.accepts_new
    yield "server_requests_total", {}, server.requests
    yield "server_responses_total", {}, server.responses
    yield "server_check_failures_total", {}, server.missed_checks
    yield "server_check_up_down_total", {}, server.times_down
    yield "server_ejections_total", {}, server.ejections
    if server.check_duration is not None:
        yield "server_check_duration_seconds", {}, server.check_duration
    yield "server_downtime_seconds_total", {}, server.downtime(now)


def _family(name: str, kind: str, text: str, samples: Sequence[Sample]) -> list[str]:
    """The lines of a family; none for one without samples, which promtool refuses."""
    lines = [f"{name}{_labels(labels)} {value:.15g}" for labels, value in samples]
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *lines] if lines else []


def _labels(labels: dict[str, str]) -> str:
    inside = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{inside}}}" if inside else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
