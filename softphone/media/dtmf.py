"""Digits as telephone-events (RFC 4733), one packet every 20 ms. Pure: a tick in, a payload out,
and back."""

from __future__ import annotations

import struct
from collections import deque

from softphone.media.g711 import BLOCK

DIGITS = "0123456789*#ABCD"
EVENT = struct.Struct(">BBH")
VOLUME = 10  # -10 dBm0
TICKS = 5  # 100 ms, above the 40 ms that receivers want
ENDS = 3  # RFC 4733 2.5.1.4: the last packet goes out three times, lest its loss leave the digit on
QUEUE = 32


def is_digit(text: str) -> bool:
    """Is it one digit of a telephone?"""
    return len(text) == 1 and text.upper() in DIGITS


class DigitSender:
    """The digits still to be sent. Three end packets after each make the pause between two."""

    def __init__(self) -> None:
        self._waiting: deque[str] = deque()
        self._begun = ""
        self._event = -1
        self._began = 0
        self._tick = 0

    def press(self, digit: str) -> None:
        """Queue a digit; ValueError for what is none, or when too many wait."""
        if not is_digit(digit):
            raise ValueError(f"not a digit of the telephone: {digit!r}")
        if len(self._waiting) >= QUEUE:
            raise ValueError(f"more than {QUEUE} digits wait to be sent")
        self._waiting.append(digit.upper())

    def next(self, timestamp: int) -> tuple[bytes, int, bool] | None:
        """(payload, timestamp of the event, marker) to send at this tick instead of sound, or
        None."""
        if self._event < 0:
            if not self._waiting:
                return None
            digit = self._waiting.popleft()
            self._begun += digit
            self._event = DIGITS.index(digit)
            self._began, self._tick = timestamp, 0
        self._tick += 1
        end = 0x80 if self._tick > TICKS else 0
        payload = EVENT.pack(self._event, end | VOLUME, min(self._tick, TICKS + 1) * BLOCK)
        if self._tick == TICKS + ENDS:
            self._event = -1
        return payload, self._began, self._tick == 1

    def take_begun(self) -> str:
        """The digits whose first packet has left since this was last asked."""
        begun, self._begun = self._begun, ""
        return begun


class DigitReceiver:
    """Tells each digit once, however many of its packets arrive, from the first that does."""

    def __init__(self) -> None:
        self._last: int | None = None

    def receive(self, payload: bytes, timestamp: int) -> str | None:
        if len(payload) < EVENT.size or payload[0] >= len(DIGITS) or timestamp == self._last:
            return None
        # An old event may be repeated behind a new one; only a later timestamp is another digit.
        if self._last is not None and (timestamp - self._last) & 0xFFFFFFFF >= 0x80000000:
            return None
        self._last = timestamp
        return DIGITS[payload[0]]
