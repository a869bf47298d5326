"""The SIP messages of one phone, kept to be looked at and saved."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from plumbing.address import Address, format_address
from plumbing.pcap import CapturedDatagram, pcap
from softphone.ua.events import MessagePassed

MESSAGES_KEPT = 1000


@dataclass(frozen=True)
class TracedMessage:
    """`at`: seconds since 1970."""

    at: float
    message: MessagePassed

    @property
    def text(self) -> str:
        """The whole message; octets that are not UTF-8 are replaced."""
        return self.message.data.decode("utf-8", "replace").replace("\r\n", "\n")

    @property
    def ends(self) -> tuple[Address, Address]:
        """From where and to where."""
        local, peer = self.message.local, self.message.peer
        return (local, peer) if self.message.sent else (peer, local)

    @property
    def route(self) -> str:
        return " -> ".join(map(format_address, self.ends))


class SipTrace:
    """The last MESSAGES_KEPT messages, the oldest first. `answered_by`: the server that answered
    last, by its name, if servers tell it (their option --server-header)."""

    def __init__(self) -> None:
        self.answered_by = ""
        self._messages: deque[TracedMessage] = deque(maxlen=MESSAGES_KEPT)

    def __iter__(self) -> Iterator[TracedMessage]:
        return iter(self._messages)

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, message: MessagePassed) -> None:
        """A message has just passed."""
        offset = time.time() - time.monotonic()
        self._messages.append(TracedMessage(message.at + offset, message))
        self.answered_by = message.server or self.answered_by

    def clear(self) -> None:
        self._messages.clear()

    def as_text(self) -> str:
        """All of them, each under a line with its time and addresses."""
        return "\n".join(f"--- {clock(each.at)}  {each.route}\n{each.text}" for each in self)

    def as_pcap(self) -> bytes:
        """A capture file of them."""
        return pcap(CapturedDatagram(each.at, *each.ends, each.message.data) for each in self)


def clock(wall: float) -> str:
    """The time of day to the millisecond."""
    millis = int(wall * 1000) % 1000
    return f"{time.strftime('%H:%M:%S', time.localtime(wall))}.{millis:03d}"
