"""Bills as a table for spreadsheets: CSV (RFC 4180), UTF-8, times in UTC (ISO 8601), units in the
columns' names. Pure.

What came from the network and begins like a formula gets an apostrophe in front, which spreadsheets
take as the sign of a text: else a caller's name could compute, or fetch, something on the desk of
whoever opens the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any

TEXTS = ("call_id", "caller", "caller_uri", "callee", "callee_uri", "state", "why")
TIMES = ("offered", "answered", "ended")
NUMBERS = ("seconds", "units", "total")
HEADER = (
    *TEXTS,
    *(f"{name}_utc" for name in TIMES),
    "talk_seconds",
    "started_units",
    "total",
    "currency",
    "tariff",
    "carried_seconds_by_server",
    "final",
    "unpaid",
)
FORMULA = tuple("=+-@\t\r\n")


def heading() -> str:
    return _line(HEADER)


def lines(calls: Iterable[Mapping[str, Any]]) -> str:
    """`calls` as /calls has them."""
    return "".join(_line(_cells(call)) for call in calls)


def _cells(call: Mapping[str, Any]) -> list[str]:
    shares = "; ".join(f"{share['server']}: {share['seconds']}" for share in call["carried"])
    return [
        *(_harmless(str(call[name])) for name in TEXTS),
        *(_utc(call[name]) for name in TIMES),
        *(str(call[name]) for name in NUMBERS),
        *(_harmless(text) for text in (call["currency"], call["tariff"], shares)),
        *("yes" if call[name] else "no" for name in ("final", "unpaid")),
    ]


def _utc(wall: float | None) -> str:
    if wall is None:
        return ""
    return (
        datetime.fromtimestamp(wall, timezone.utc)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )


def _harmless(text: str) -> str:
    return f"'{text}" if text.lstrip(" ").startswith(FORMULA) else text


def _line(cells: Iterable[str]) -> str:
    return ",".join(_quoted(cell) for cell in cells) + "\r\n"


def _quoted(cell: str) -> str:
    """RFC 4180 2, rules 5 to 7."""
    if any(mark in cell for mark in ',"\r\n') or cell != cell.strip():
        return '"' + cell.replace('"', '""') + '"'
    return cell
