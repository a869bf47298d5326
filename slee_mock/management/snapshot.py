"""What the management page tells, as plain values: calls with their bills, bindings, members,
counters. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sip import VERSION
from slee_mock.services.bill_record import Bill, BillTotal, is_final, total_at
from slee_mock.services.bindings_record import Bindings
from slee_mock.store.interface import Damaged, Transaction
from slee_mock.store.records import Member

# on the page: so many of the newest, and so many of those that have been running for longer
MOST_CALLS = 200
MOST_USERS = 500
MOST_MISSED = 10_000  # bills read in one go by who has not looked for long
TICKING = 50  # running calls, the newest, of which the page has a card that ticks
FORETOLD = 5  # seconds


@dataclass(frozen=True)
class ServerStatus:
    """What a server knows of itself. `trouble` is a sentence, empty while the store works."""

    member: Member
    uptime: float
    trouble: str
    forwarder: str
    counts: Mapping[tuple[str, str], int]  # (group, name): handled, dropped, sent
    services: Mapping[str, Any] = field(default_factory=dict)  # what each tells of itself
    clock_offset: float = 0.0  # seconds by which cluster time is ahead of the computer's clock
    waiting: int = 0  # facts of calls that the store has yet to take
    warning: str = ""  # a sentence for the operator, while this server works all the same


@dataclass(frozen=True)
class Snapshot:
    """JSON-able values, each as the page of its name shows it; and for the page alone, by Call-ID,
    what the bills of running calls will say in the next seconds: so they tick there without doing
    sums of their own. `running` counts the calls that have not ended by their states, `bills` all
    that are kept."""

    calls: dict[str, Any]
    bindings: dict[str, Any]
    members: dict[str, Any]
    status: dict[str, Any]
    forecast: dict[str, list[BillTotal]]
    running: Counter[str]
    bills: int


class OpenCalls:
    """The calls that have not ended: all of them, though a page reads the newest bills only. Those
    that began earlier are known by their keys, so that nobody has to read the whole store for them
    again and again."""

    def __init__(self) -> None:
        self._open: set[str] = set()
        self._newest: int | None = None  # its mark, when somebody looked last

    def look(self, transaction: Transaction, wall: float) -> tuple[list[Bill], list[Bill]]:
        """The newest bills, and of the calls that run those which are not among them."""
        mark = transaction.mark(Bill, 0)
        page, before = transaction.walk(Bill, MOST_CALLS)
        newest = _sound(page, wall)
        older = {bill.call_id: bill for bill in _sound(self._missed(transaction, before), wall)}
        fresh = {bill.call_id for bill in newest}
        for key in self._open - fresh - older.keys():
            bill = transaction.read_if_intact(Bill, key)
            if bill:
                older[key] = bill
        running = [
            bill
            for bill in older.values()
            if bill.call_id not in fresh and not is_final(bill, wall)
        ]
        self._open = {bill.call_id for bill in [*newest, *running] if not is_final(bill, wall)}
        self._newest = mark
        return newest, running

    def _missed(self, transaction: Transaction, before: int | None) -> list[Bill | Damaged]:
        """Those between the newest, which end before that mark, and what was the newest before."""
        missed: list[Bill | Damaged] = []
        while before is not None and before > (self._newest or 0) and len(missed) < MOST_MISSED:
            found, before = transaction.walk(Bill, MOST_CALLS, before)
            missed += found
        return missed


def board(
    transaction: Transaction, health: ServerStatus, wall: float, running: OpenCalls
) -> Snapshot:
    newest, older = running.look(transaction, wall)
    shown = sorted([*newest, *sorted(older, key=_latest)[:MOST_CALLS]], key=_latest)
    users = transaction.scan(Bindings, MOST_USERS)
    contacts = [each for user in users for each in _bindings(user, wall)]
    members = sorted(transaction.scan(Member), key=lambda member: member.name)
    head = {"server": health.member.name, "now": wall}
    calls = [_call(bill, wall) for bill in shown]
    states = Counter(call["state"] for call in calls if not call["final"])
    states.update(total_at(bill, wall).state for bill in sorted(older, key=_latest)[MOST_CALLS:])
    ticking = [bill for bill in shown if not is_final(bill, wall)][:TICKING]
    hot = _hot(members, wall)
    return Snapshot(
        calls={**head, "calls": calls},
        bindings={
            **head,
            "users": transaction.count(Bindings),
            "shown": len(users),
            "bindings": contacts,
        },
        members={**head, "hot": hot, "members": [_member(member, wall, hot) for member in members]},
        status=status(health),
        bills=transaction.count(Bill),
        forecast={bill.call_id: _forecast(bill, wall) for bill in ticking if bill.answered},
        running=states,
    )


def bills(
    transaction: Transaction, most: int, before: int | None, wall: float
) -> tuple[list[dict[str, Any]], int | None]:
    """The next of a walk through all bills, and the mark to go on before; None at its end. A bill
    that is damaged is among them, and says so."""
    found, mark = transaction.walk(Bill, most, before)
    return [_call(bill, wall) for bill in found], mark


def _sound(bills: Iterable[Bill | Damaged], wall: float) -> list[Bill]:
    """Those that can be read and added up."""
    return [bill for bill in bills if isinstance(bill, Bill) and not _fault(bill, wall)]


def _fault(bill: Bill | Damaged, wall: float) -> str:
    """Why it cannot be added up: a row of nonsense, a tariff that is none."""
    if isinstance(bill, Damaged):
        return bill.why
    try:
        total_at(bill, wall)
    except Exception as error:
        return f"the store's bill {bill.call_id!r} is damaged: {error}"
    return ""


def _latest(bill: Bill) -> float:
    return -bill.offered


def _forecast(bill: Bill, wall: float) -> list[BillTotal]:
    """The sums of this second of the call and of the next ones: each taken in its middle, since a
    unit that was started counts from the second's very beginning."""
    assert bill.answered is not None
    begun = bill.answered + total_at(bill, wall).seconds
    return [total_at(bill, begun + second + 0.5) for second in range(FORETOLD)]


def _hot(members: Iterable[Member], wall: float) -> str | None:
    """The one that was told so last: one that has just died cannot take its own word back."""
    told = [member for member in members if member.role == "hot" and member.alive(wall)]
    return max(told, key=lambda member: member.role_since).name if told else None


def _call(bill: Bill | Damaged, wall: float) -> dict[str, Any]:
    fault = _fault(bill, wall)
    if fault:
        return _damaged(bill, fault)
    assert isinstance(bill, Bill)
    total = total_at(bill, wall)
    return {
        "call_id": bill.call_id,
        "caller": bill.caller,
        "caller_uri": bill.caller_uri,
        "callee": bill.callee,
        "callee_uri": bill.callee_uri,
        "state": total.state,
        "offered": bill.offered,
        "answered": bill.answered,
        "ended": total.ended,
        "why": total.why,
        "seconds": total.seconds,
        "carried": [{"server": server, "seconds": seconds} for server, seconds in total.carried],
        "units": total.units,
        "total": total.total,
        "currency": bill.currency,
        "tariff": bill.tariff,
        "final": total.final,
        "unpaid": total.unpaid,
        "acknowledged": bill.answered is not None and total.acknowledged,
        "presumed": total.presumed,
    }


def _damaged(bill: Bill | Damaged, fault: str) -> dict[str, Any]:
    """Names and times as far as they are known; no sum."""
    known = vars(bill) if isinstance(bill, Bill) else {}
    texts = ("caller", "caller_uri", "callee", "callee_uri", "currency", "tariff")
    return {
        "call_id": bill.key,
        **{name: known.get(name, "") for name in texts},
        "state": "damaged",
        "why": fault,
        **{name: known.get(name) for name in ("offered", "answered", "ended")},
        "seconds": 0,
        "carried": [],
        "units": 0,
        "total": "",
        "final": True,
        "unpaid": False,
    }


def _bindings(user: Bindings, wall: float) -> list[dict[str, Any]]:
    return [
        {
            "aor": user.aor,
            "name": user.display,
            "contact": binding.contact,
            "q": binding.q,
            "expires": math.ceil(binding.expires_at - wall),
            "server": binding.server,
        }
        for binding in user.live(wall)
    ]


def _member(member: Member, wall: float, hot: str | None) -> dict[str, Any]:
    role = (
        member.role if member.alive(wall) and (member.role != "hot" or member.name == hot) else ""
    )
    return {
        "name": member.name,
        "address": member.address,
        "management": member.management,
        "alive": member.alive(wall),
        "last_seen": member.last_seen,
        "stopped": member.stopped,
        "role": role,
    }


def status(health: ServerStatus) -> dict[str, Any]:
    groups: dict[str, dict[str, int]] = {"handled": {}, "dropped": {}, "sent": {}, "bills": {}}
    for (group, name), count in sorted(health.counts.items()):
        groups[group][name] = count
    return {
        "name": health.member.name,
        "version": VERSION,
        "address": health.member.address,
        "forwarder": health.forwarder,
        "uptime": round(health.uptime, 3),
        "store": health.trouble or "ok",
        "warning": health.warning,
        "handled": groups["handled"],
        "dropped": groups["dropped"],
        "sent": groups["sent"].get("datagrams", 0),
        "services": health.services,
        "bills_closed": groups["bills"].get("closed", 0),
        "waiting": health.waiting,
        "clock_offset": round(health.clock_offset, 3),
    }


def metrics(status: Mapping[str, Any], board: Snapshot | None) -> str:
    """Prometheus text. Label values come from fixed sets and from server names. Without a board,
    because the store cannot be read, only what the server itself knows."""
    families = [
        _family(
            "slee_up",
            "gauge",
            "Whether the store works for this server.",
            {"": int(board is not None and status["store"] == "ok")},
        ),
        _family(
            "slee_uptime_seconds",
            "gauge",
            "Time since this server started.",
            {"": status["uptime"]},
        ),
        _family(
            "slee_handled_total",
            "counter",
            "Messages handled, by what they were.",
            {_labels(message=name): count for name, count in status["handled"].items()},
        ),
        _family(
            "slee_dropped_total",
            "counter",
            "Messages not passed on, by reason.",
            {_labels(reason=name): count for name, count in status["dropped"].items()},
        ),
        _family("slee_sent_total", "counter", "Datagrams sent.", {"": status["sent"]}),
        _family(
            "slee_bills_closed_total",
            "counter",
            "Calls whose end this server wrote down.",
            {"": status["bills_closed"]},
        ),
        _family(
            "slee_waiting_facts",
            "gauge",
            "What is known of calls and not saved yet.",
            {"": status["waiting"]},
        ),
    ]
    return "".join(families + (_stored(board) if board else []))


def _stored(board: Snapshot) -> list[str]:
    members = board.members["members"]
    return [
        _family(
            "slee_calls",
            "gauge",
            "Calls of the cluster that have not ended, by state.",
            {
                _labels(state=state): board.running[state]
                for state in ("offered", "ringing", "answered")
            },
        ),
        _family(
            "slee_bills",
            "gauge",
            "Bills that the store keeps, of running calls too.",
            {"": board.bills},
        ),
        _family(
            "slee_users",
            "gauge",
            "Users who are registered, or lately were.",
            {"": board.bindings["users"]},
        ),
        _family(
            "slee_bindings",
            "gauge",
            f"Contacts of the newest {MOST_USERS} users that can be reached now.",
            {"": len(board.bindings["bindings"])},
        ),
        _family(
            "slee_member_alive",
            "gauge",
            "Whether a member of the cluster shows signs of life.",
            {_labels(member=each["name"]): int(each["alive"]) for each in members},
        ),
        _family(
            "slee_member_role",
            "gauge",
            "Which role the forwarder gave a member that is alive.",
            {
                _labels(member=each["name"], role=role): int(each["role"] == role)
                for each in members
                for role in ("hot", "live", "replica")
            },
        ),
    ]


def _family(name: str, kind: str, words: str, samples: Mapping[str, float]) -> str:
    """One metric; nothing if there is no sample of it yet."""
    lines = [
        f"# HELP {name} {words}",
        f"# TYPE {name} {kind}",
        *(f"{name}{key} {n}" for key, n in samples.items()),
    ]
    return "".join(f"{line}\n" for line in lines) if samples else ""


def _labels(**pairs: str) -> str:
    return "{" + ",".join(f'{name}="{_label(text)}"' for name, text in pairs.items()) + "}"


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
