"""How long a forwarder kept a request while no server lived: the header field Failover-Kept.

Pure. The forwarder adds the field to what it passes on late, and takes it off all that phones send.
A server takes it off every request, so that nobody else sees it, and believes it of its forwarders
alone: a phone that sends to a server's port could otherwise shorten its bill. The request then
counts as if it had come so many seconds earlier.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from sip.message import Request

Address = tuple[str, int]

FIELD = "Failover-Kept"
LONGEST = 30 * 86_400.0  # seconds; the longest that an answered call is kept (retention.ENDLESS)

_SECONDS = re.compile(r"\d{1,7}(\.\d{1,9})?", re.ASCII)


class Forwarders:
    """The addresses that are believed: `forwarder`, where everything is sent to, and the same port
    on each of `hosts`. The port tells a forwarder from a phone on its computer."""

    def __init__(self, forwarder: Address, hosts: Iterable[str] = ()) -> None:
        self._addresses = frozenset((host, forwarder[1]) for host in (forwarder[0], *hosts))

    def seconds_kept(self, request: Request, source: Address) -> float:
        """Takes the field off `request`. 0.0 if there is none, or more than one, or one that cannot
        be true, or if `source` is not a forwarder's address."""
        values = request.all(FIELD)
        if not values:
            return 0.0
        request.remove(FIELD)
        if len(values) > 1 or source[:2] not in self._addresses:
            return 0.0
        match = _SECONDS.fullmatch(values[0].strip())
        seconds = float(match[0]) if match else 0.0
        return seconds if seconds <= LONGEST else 0.0


NOBODY = Forwarders(("", 0))
