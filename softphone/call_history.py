"""The last hundred calls of a phone, kept in a file.

Rules
  1. A call is one line of JSON. When one ends the file is written anew and renamed: a kill -9 right
     after loses nothing.
  2. A line that cannot be read is skipped; the others stay.
  3. The file is read again first: another phone of this account may have added a call.
  4. Without a file, or with one that cannot be written, the calls are kept in memory; `fault` says
     why.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

from softphone import texts
from softphone.settings import write_private
from softphone.ua.events import CallView, Direction

MAX_CALLS = 100
DECLINED = 603  # RFC 3261 21.6.2: what this phone answers when its person refuses


class Outcome(str, Enum):
    """The result of a call, as a list of calls marks it."""

    ANSWERED = "answered"  # they called, and we talked
    MISSED = "missed"  # they called, and nobody answered
    DECLINED = "declined"  # they called, and we refused
    PLACED = "placed"  # we called, and they answered
    UNANSWERED = "unanswered"  # we called in vain


@dataclass(frozen=True)
class PastCall:
    """One call. `started`: seconds since 1970; `seconds`: how long the two talked; `reason`: how it
    ended, in a sentence."""

    uri: str
    name: str
    outcome: Outcome
    started: float
    seconds: float
    reason: str


def past_call(call: CallView, now: float, wall: float) -> PastCall:
    """The entry of a call that has ended. `now` and `wall` are one moment, in monotonic seconds and
    in seconds since 1970."""
    ended = call.ended_at if call.ended_at is not None else now
    begun = call.answered_at if call.answered_at is not None else ended
    return PastCall(
        uri=call.peer_uri,
        name=call.peer_name,
        outcome=_outcome(call),
        started=round(wall - (now - begun), 3),
        seconds=round(max(0.0, ended - begun), 1),
        reason=call.sentence,
    )


def _outcome(call: CallView) -> Outcome:
    answered = call.answered_at is not None
    if call.direction is Direction.OUTGOING:
        return Outcome.PLACED if answered else Outcome.UNANSWERED
    if answered:
        return Outcome.ANSWERED
    return Outcome.DECLINED if call.status == DECLINED else Outcome.MISSED


class CallHistory:
    """`path`: the file, made when the first call ends; None: in memory only. `fault`: why the file
    cannot be used, in a sentence with the remedy, or ""."""

    def __init__(self, path: Path | None = None) -> None:
        self.fault = ""
        self._path = path
        self._calls = deque(self._read(), MAX_CALLS)

    def __iter__(self) -> Iterator[PastCall]:
        """The newest first."""
        return reversed(self._calls)

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, call: PastCall) -> None:
        """Keep this one, which has just ended."""
        known = dict.fromkeys([*self._read(), *self._calls, call])
        self._calls = deque(sorted(known, key=lambda each: each.started), MAX_CALLS)
        if self._path is None:
            return
        try:
            write_private(self._path, b"".join(_line(each) for each in self._calls))
            self.fault = ""
        except OSError as error:
            self.fault = self._sentence(error)

    def clear(self) -> None:
        """Forget all of them, also in the file."""
        self._calls.clear()
        if self._path is not None:
            try:
                self._path.unlink(missing_ok=True)
            except OSError as error:
                self.fault = self._sentence(error)

    def _read(self) -> list[PastCall]:
        """The calls in the file."""
        if self._path is None:
            return []
        try:
            text = self._path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        except OSError as error:
            self.fault = self._sentence(error)
            return []
        return [call for line in text.splitlines() if (call := _read_line(line)) is not None]

    def _sentence(self, error: OSError) -> str:
        return texts.CALLS_NOT_KEPT.format(path=self._path, reason=error.strerror or error)


def _line(call: PastCall) -> bytes:
    return json.dumps(asdict(call), ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _read_line(line: str) -> PastCall | None:
    try:
        row = json.loads(line)
        return PastCall(
            str(row["uri"]),
            str(row["name"]),
            Outcome(row["outcome"]),
            float(row["started"]),
            float(row["seconds"]),
            str(row["reason"]),
        )
    except (ValueError, KeyError, TypeError):
        return None
