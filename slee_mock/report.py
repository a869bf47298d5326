"""What the management page tells, as plain values: calls with their bills, bindings, members, counters. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sip import VERSION
from slee_mock.billing import summed
from slee_mock.record import Bill, Bindings, Member
from slee_mock.store import View

MOST_CALLS = 200  # on the page; all of them are in the store
MOST_USERS = 500


@dataclass(frozen=True)
class Health:
    """What a server knows of itself. `trouble` is a sentence, empty while the store works."""

    member: Member
    uptime: float
    trouble: str
    forwarder: str
    counts: Mapping[tuple[str, str], int]  # (group, name): handled, dropped, sent
    services: Mapping[str, Any] = field(default_factory=dict)  # what each tells of itself
    clock_offset: float = 0.0  # seconds by which cluster time is ahead of the computer's clock


@dataclass(frozen=True)
class Board:
    """JSON-able values, each as the page of its name shows it."""

    calls: dict[str, Any]
    bindings: dict[str, Any]
    members: dict[str, Any]
    status: dict[str, Any]


def board(view: View, health: Health, wall: float) -> Board:
    bills = sorted(view.scan(Bill, MOST_CALLS), key=lambda bill: -bill.offered)
    users = view.scan(Bindings, MOST_USERS)
    contacts = [each for user in users for each in _bindings(user, wall)]
    members = sorted(view.scan(Member), key=lambda member: member.name)
    head = {"server": health.member.name, "now": wall}
    return Board(
        calls={**head, "calls": [_call(bill, wall) for bill in bills]},
        bindings={**head, "users": view.count(Bindings), "shown": len(users), "bindings": contacts},
        members={**head, "members": [_member(member, wall) for member in members]},
        status=_status(health),
    )


def _call(bill: Bill, wall: float) -> dict[str, Any]:
    total = summed(bill, wall)
    return {
        "call_id": bill.call_id,
        "caller": bill.caller, "caller_uri": bill.caller_uri,
        "callee": bill.callee, "callee_uri": bill.callee_uri,
        "state": total.state,
        "offered": bill.offered, "answered": bill.answered, "ended": total.ended,
        "why": total.why,
        "seconds": total.seconds,
        "carried": [{"server": server, "seconds": seconds} for server, seconds in total.carried],
        "units": total.units, "total": total.total, "currency": bill.currency, "tariff": bill.tariff,
        "final": total.final, "unpaid": total.unpaid,
    }  # fmt: skip


def _bindings(user: Bindings, wall: float) -> list[dict[str, Any]]:
    return [
        {
            "aor": user.aor, "name": user.display, "contact": binding.contact, "q": binding.q,
            "expires": math.ceil(binding.expires_at - wall), "server": binding.server,
        }
        for binding in user.live(wall)
    ]  # fmt: skip


def _member(member: Member, wall: float) -> dict[str, Any]:
    return {
        "name": member.name, "address": member.address, "management": member.management,
        "alive": member.alive(wall), "last_seen": member.last_seen, "stopped": member.stopped,
    }  # fmt: skip


def _status(health: Health) -> dict[str, Any]:
    groups: dict[str, dict[str, int]] = {"handled": {}, "dropped": {}, "sent": {}}
    for (group, name), count in sorted(health.counts.items()):
        groups[group][name] = count
    return {
        "name": health.member.name, "version": VERSION, "address": health.member.address,
        "forwarder": health.forwarder, "uptime": round(health.uptime, 3), "store": health.trouble or "ok",
        "handled": groups["handled"], "dropped": groups["dropped"], "sent": groups["sent"].get("datagrams", 0),
        "services": health.services, "clock_offset": round(health.clock_offset, 3),
    }  # fmt: skip


def metrics(board: Board) -> str:
    """Prometheus text. Label values come from fixed sets and from server names."""
    status = board.status
    lines = [
        "# HELP slee_up Whether the store works for this server.", "# TYPE slee_up gauge",
        f"slee_up {int(status['store'] == 'ok')}",
        "# HELP slee_uptime_seconds Seconds since this server started.", "# TYPE slee_uptime_seconds gauge",
        f"slee_uptime_seconds {status['uptime']}",
        "# HELP slee_handled_total Messages handled, by what they were.", "# TYPE slee_handled_total counter",
        *(f'slee_handled_total{{message="{name}"}} {count}' for name, count in status["handled"].items()),
        "# HELP slee_dropped_total Messages not passed on, by reason.", "# TYPE slee_dropped_total counter",
        *(f'slee_dropped_total{{reason="{name}"}} {count}' for name, count in status["dropped"].items()),
        "# HELP slee_sent_total Datagrams sent.", "# TYPE slee_sent_total counter",
        f"slee_sent_total {status['sent']}",
        "# HELP slee_bindings Contacts that can be reached now, of the newest users.", "# TYPE slee_bindings gauge",
        f"slee_bindings {len(board.bindings['bindings'])}",
        "# HELP slee_users Users who are registered, or lately were.", "# TYPE slee_users gauge",
        f"slee_users {board.bindings['users']}",
        "# HELP slee_running_calls Calls among the newest that have not ended.", "# TYPE slee_running_calls gauge",
        f"slee_running_calls {sum(not call['final'] for call in board.calls['calls'])}",
        "# HELP slee_member_alive Whether a member of the cluster shows signs of life.",
        "# TYPE slee_member_alive gauge",
        *(f'slee_member_alive{{member="{_label(member["name"])}"}} {int(member["alive"])}'
          for member in board.members["members"]),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
