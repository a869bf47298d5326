"""The data of the management pages, as plain values: calls with their bills, bindings, members,
counters. No I/O but reads of the store."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sip import VERSION
from slee_mock.services.bill_record import Bill, BillTotal, ended_at, total_at
from slee_mock.services.bindings_record import Bindings
from slee_mock.store.interface import Damaged, Transaction
from slee_mock.store.records import Member

# in a snapshot: so many of the newest bills, and so many of the calls that have run for longer
MOST_CALLS = 200
MOST_USERS = 500
MOST_MISSED = 10_000  # bills read at once after a long time without a question
MOST_FORECASTS = 50  # running calls, the newest
FORECAST_SECONDS = 5


@dataclass(frozen=True)
class Snapshot:
    """The state of the cluster at one moment, as JSON-able values. `calls`, `bindings`, `members`
    and `status` are the pages of these names. `forecast`: by Call-ID, the sums of a running bill in
    the next seconds, so that the page ticks without doing sums of its own. `running`: calls that
    have not ended, by their states. `bills`: the number of all that are kept."""

    calls: dict[str, Any]
    bindings: dict[str, Any]
    members: dict[str, Any]
    status: dict[str, Any]
    forecast: dict[str, list[dict[str, Any]]]
    running: Counter[str]
    bills: int

    def as_json(self) -> dict[str, Any]:
        """The page /snapshot, from which page.js makes the front page."""
        return {**vars(self), "running": self.running.total()}


class OpenCalls:
    """All calls that have not ended, although a snapshot reads only the newest bills. Those that
    began earlier are remembered by their keys, so that the store is not read as a whole each
    time."""

    def __init__(self) -> None:
        self._open: set[str] = set()
        self._newest: int | None = None  # its mark, at the last look

    def look(self, transaction: Transaction, now: float) -> tuple[list[Bill], list[Bill]]:
        """Reads the newest bills, and the bills of open calls that are not among them."""
        mark = transaction.mark(Bill, 0)
        page, before = transaction.walk(Bill, MOST_CALLS)
        newest = _sound(page, now)
        older = {bill.call_id: bill for bill in _sound(self._missed(transaction, before), now)}
        fresh = {bill.call_id for bill in newest}
        # An earlier bill was put aside (billing.py): the one of its Call-ID now has an old mark.
        reused = {key.rpartition(" ")[0] for key in fresh | older.keys() if " " in key}
        known = (self._open | reused) - fresh - older.keys()
        read = [transaction.read_if_intact(Bill, key) for key in known]
        older |= {bill.call_id: bill for bill in _sound((each for each in read if each), now)}
        running = [
            bill
            for bill in older.values()
            if bill.call_id not in fresh and ended_at(bill, now) is None
        ]
        self._open = {bill.call_id for bill in [*newest, *running] if ended_at(bill, now) is None}
        self._newest = mark
        return newest, running

    def _missed(self, transaction: Transaction, before: int | None) -> list[Bill | Damaged]:
        """Reads the bills below the mark `before` that were made since the last look."""
        missed: list[Bill | Damaged] = []
        while before is not None and before > (self._newest or 0) and len(missed) < MOST_MISSED:
            found, before = transaction.walk(Bill, MOST_CALLS, before)
            missed += found
        return missed


def take_snapshot(
    transaction: Transaction, status: dict[str, Any], now: float, open_calls: OpenCalls
) -> Snapshot:
    """Reads the state of the cluster. `status`: of the server that is asked."""
    newest, older = open_calls.look(transaction, now)
    shown = sorted([*newest, *sorted(older, key=_latest)[:MOST_CALLS]], key=_latest)
    users = transaction.scan(Bindings, MOST_USERS)
    contacts = [each for user in users for each in _bindings(user, now)]
    members = sorted(transaction.scan(Member), key=lambda member: member.name)
    head = {"server": status["name"], "now": now}
    calls = [_call(bill, now) for bill in shown]
    states = Counter(call["state"] for call in calls if not call["final"])
    states.update(total_at(bill, now).state for bill in sorted(older, key=_latest)[MOST_CALLS:])
    open_bills = [bill for bill in shown if ended_at(bill, now) is None][:MOST_FORECASTS]
    hot = _hot(members, now)
    return Snapshot(
        calls={**head, "calls": calls},
        bindings={
            **head,
            "users": transaction.count(Bindings),
            "shown": len(users),
            "bindings": contacts,
        },
        members={**head, "hot": hot, "members": [_member(member, now, hot) for member in members]},
        status=status,
        bills=transaction.count(Bill),
        forecast={bill.call_id: _forecast(bill, now) for bill in open_bills if bill.answered},
        running=states,
    )


def bills(
    transaction: Transaction, most: int, before: int | None, now: float
) -> tuple[list[dict[str, Any]], int | None]:
    """Reads the next of a walk through all bills, and the mark to go on from; None at its end. A
    damaged bill is among them, with the state "damaged"."""
    found, mark = transaction.walk(Bill, most, before)
    return [_call(bill, now) for bill in found], mark


def _sound(bills: Iterable[Bill | Damaged], now: float) -> list[Bill]:
    """Picks the bills that can be read and added up."""
    return [
        bill for bill in bills if isinstance(bill, Bill) and not isinstance(_total(bill, now), str)
    ]


def _total(bill: Bill, now: float) -> BillTotal | str:
    """Adds the bill up, or says why that cannot be done: a tariff that is none."""
    try:
        return total_at(bill, now)
    except Exception as error:
        return f"the store's bill {bill.call_id!r} is damaged: {error}"


def _latest(bill: Bill) -> float:
    return -bill.offered


def _forecast(bill: Bill, now: float) -> list[dict[str, Any]]:
    """Computes the sums of this second of the call and of the next ones. Each is taken in the
    middle of its second, since a unit counts from the very beginning of the second in which it
    starts."""
    assert bill.answered is not None
    begun = bill.answered + total_at(bill, now).seconds
    return [_sums(total_at(bill, begun + second + 0.5)) for second in range(FORECAST_SECONDS)]


def _sums(total: BillTotal) -> dict[str, Any]:
    """The part of a call that changes while it runs."""
    return {
        "seconds": total.seconds,
        "carried": [{"server": server, "seconds": seconds} for server, seconds in total.carried],
        "units": total.units,
        "total": total.total,
    }


def _hot(members: Iterable[Member], now: float) -> str | None:
    """Names the hot server. Of several that say so, the last to become it: one that has just died
    still says so."""
    hot = [member for member in members if member.role == "hot" and member.alive(now)]
    return max(hot, key=lambda member: member.role_since).name if hot else None


def _call(bill: Bill | Damaged, now: float) -> dict[str, Any]:
    if isinstance(bill, Damaged):
        return _damaged(bill, bill.why)
    total = _total(bill, now)
    if isinstance(total, str):
        return _damaged(bill, total)
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
        **_sums(total),
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


def _bindings(user: Bindings, now: float) -> list[dict[str, Any]]:
    return [
        {
            "aor": user.aor,
            "name": user.display,
            "contact": binding.contact,
            "q": binding.q,
            "expires": math.ceil(binding.expires_at - now),
            "server": binding.server,
        }
        for binding in user.live(now)
    ]


def _member(member: Member, now: float, hot: str | None) -> dict[str, Any]:
    role = member.role if member.alive(now) and (member.role != "hot" or member.name == hot) else ""
    return {
        "name": member.name,
        "address": member.address,
        "management": member.management,
        "alive": member.alive(now),
        "last_seen": member.last_seen,
        "stopped": member.stopped,
        "role": role,
    }


def server_status(
    member: Member,
    *,
    uptime: float,
    forwarder: str,
    counts: Mapping[tuple[str, str], int],
    trouble: str = "",
    clock_offset: float = 0.0,
    deferred: int = 0,
    warning: str = "",
    forwarder_page: str = "",
) -> dict[str, Any]:
    """The page /status without the services' part. `trouble` with the store, and `warning` while
    this server works all the same, are sentences. `counts`: by group (handled, dropped, sent,
    bills) and name. `clock_offset`: seconds by which cluster time is ahead of the computer's clock.
    `deferred`: events of calls that the store has yet to take. `forwarder_page`: its URL."""
    groups: dict[str, dict[str, int]] = {"handled": {}, "dropped": {}, "sent": {}, "bills": {}}
    for (group, name), count in sorted(counts.items()):
        groups[group][name] = count
    return {
        "name": member.name,
        "version": VERSION,
        "address": member.address,
        "forwarder": forwarder,
        "forwarder_page": forwarder_page,
        "uptime": round(uptime, 3),
        "store": trouble or "ok",
        "warning": warning,
        "handled": groups["handled"],
        "dropped": groups["dropped"],
        "sent": groups["sent"].get("datagrams", 0),
        "services": {},
        "bills_closed": groups["bills"].get("closed", 0),
        "waiting": deferred,
        "clock_offset": round(clock_offset, 3),
    }
