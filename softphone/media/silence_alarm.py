"""Detects that no audio packets arrive in a call that should have them. Pure: counts and times in,
seconds out."""

from __future__ import annotations

STEP = 5  # seconds of silence after which it is told, and told anew
LOOK = 1.0  # seconds between two looks at the count of packets


class SilenceWatch:
    """One call's. `look` is called every LOOK seconds with what has come so far."""

    def __init__(self) -> None:
        self._packets = -1
        self._since = 0.0

    def look(self, packets: int, is_due: bool, now: float) -> int:
        """Whole seconds of silence, in steps of STEP; 0 while sound comes or none is due.
        `packets`: received so far."""
        if not is_due or packets != self._packets:
            self._packets, self._since = packets, now
        return int(now - self._since) // STEP * STEP
