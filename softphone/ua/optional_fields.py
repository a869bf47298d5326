"""Header fields that only help: one that is missing or cannot be read counts as absent."""

from __future__ import annotations

from sip.errors import RemoteProtocolError
from sip.grammar import is_number
from sip.message import Message, Response
from softphone.ua.account import Address
from softphone.ua.address_comparison import is_literal


def listed(message: Message, name: str) -> list[str]:
    """The elements of all lines of that name."""
    try:
        return message.values(name)
    except RemoteProtocolError:
        return []


def retry_after(response: Response) -> float | None:
    """Seconds of Retry-After (RFC 3261 20.33), kept within what a person would wait."""
    digits = (response.get("Retry-After") or "").split("(")[0].split(";")[0].strip()
    return min(max(float(digits), 1.0), 60.0) if is_number(digits, 8) else None


def seen_address(response: Response) -> Address | None:
    """Where the server saw our request come from (RFC 3581 4)."""
    try:
        via = response.via
    except RemoteProtocolError:
        return None
    return (via.received, via.rport) if via.rport and is_literal(via.received) else None
