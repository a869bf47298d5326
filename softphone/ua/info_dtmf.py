"""Digits by INFO (application/dtmf-relay, as Cisco's phones and most servers have it), for a
phone that takes no telephone-events. RFC 6086 warns of such INFO, so it is only sent to who
lists INFO in Allow."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from sip.message import Response
from softphone.ua import user_messages
from softphone.ua.call_states import TALKING
from softphone.ua.client_request import ClientRequest
from softphone.ua.events import DigitPassed, DigitRefused

if TYPE_CHECKING:
    from softphone.ua.call import Call

DTMF_RELAY = ("Content-Type", "application/dtmf-relay")
DURATION = 160  # milliseconds
MOST_WAITING = 32


class InfoDigits:
    """The digits of one call, sent one after the other: a lost INFO must not let the next one
    overtake it."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._waiting: deque[str] = deque()
        self._under_way = False

    def press(self, digit: str, now: float) -> None:
        """Send the digit; DigitPassed tells that the other side has taken it, DigitRefused that
        it does not."""
        if self._call.state is not TALKING or len(self._waiting) >= MOST_WAITING:
            return
        if not self._call.session_timer.takes_info:
            self._refuse(digit, now)
            return
        self._waiting.append(digit)
        self._next(now)

    def _next(self, now: float) -> None:
        if self._under_way or not self._waiting or self._call.state is not TALKING:
            return
        self._under_way = True
        digit = self._waiting.popleft()

        def answered(exchange: ClientRequest, response: Response, later: float) -> None:
            self._under_way = False
            if response.status < 300:
                self._call.layer.emit(DigitPassed(later, self._call.call_id, digit, True))
            elif response.status == 481:
                self._call.lost(later, 481)
            else:
                self._waiting.clear()
                self._refuse(digit, later)
            self._next(later)

        body = f"Signal={digit}\r\nDuration={DURATION}\r\n".encode()
        self._call.ask("INFO", answered, now, (DTMF_RELAY,), body)

    def _refuse(self, digit: str, now: float) -> None:
        call = self._call
        call.layer.emit(
            DigitRefused(now, call.call_id, digit, user_messages.NO_DIGITS.format(name=call.name))
        )
