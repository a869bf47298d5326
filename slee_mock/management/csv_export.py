"""Bills as a table for spreadsheets: CSV (RFC 4180), UTF-8, times in UTC (ISO 8601), units in the
names of the columns. No I/O.

A text that begins like a formula gets an apostrophe in front, which makes it a text for
spreadsheets. Otherwise a caller's name could compute or fetch something where the file is opened.
"""

from __future__ import annotations

import csv
import io
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


def table(calls: Iterable[Mapping[str, Any]], heading: bool = False) -> str:
    """The lines of `calls`, which are as in /calls."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    if heading:
        writer.writerow(HEADER)
    writer.writerows(_cells(call) for call in calls)
    return text.getvalue()


def _cells(call: Mapping[str, Any]) -> list[str]:
    shares = "; ".join(f"{share['server']}: {share['seconds']}" for share in call["carried"])
    return [
        *(_harmless(str(call[name])) for name in TEXTS),
        *(_utc(call[name]) for name in TIMES),
        *(str(call[name]) for name in NUMBERS),
        *(_harmless(text) for text in (call["currency"], call["tariff"], shares)),
        *("yes" if call[name] else "no" for name in ("final", "unpaid")),
    ]


def _utc(time: float | None) -> str:
    if time is None:
        return ""
    utc = datetime.fromtimestamp(time, timezone.utc).isoformat(timespec="milliseconds")
    return utc.replace("+00:00", "Z")


def _harmless(text: str) -> str:
    return f"'{text}" if text.lstrip(" ").startswith(FORMULA) else text
