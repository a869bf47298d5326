"""How an agent treats what happens within a call, and what strangers send it (RFC 3261 8.2, 12.2,
14)."""

from __future__ import annotations

from softphone.ua.events import CallState

TALKING, ENDED, INCOMING = CallState.TALKING, CallState.ENDED, CallState.INCOMING
STRANGER = ("127.0.0.1", 5090)
