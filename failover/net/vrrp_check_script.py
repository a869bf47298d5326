"""`forwarder.py --probe ADDRESS`: the health check that a VRRP daemon runs against a forwarder.

It sends the forwarder an OPTIONS request with Max-Forwards 0. The thread that forwards answers it,
on the socket that it forwards on: 200, or 503 while no server takes new calls. A forwarder on
standby has no socket there.
"""

from __future__ import annotations

import secrets
import time

from failover.net.options_ping import MAX_DATAGRAM, SERVICE_UNAVAILABLE, OptionsPing
from plumbing.address import Address, format_address
from plumbing.udp_socket import bind_udp

PATIENCE = 1.0  # seconds
REPEAT_INTERVAL = 0.25  # seconds: a datagram may get lost
SERVES, DEAD, NO_SERVER = 0, 1, 3  # exit statuses; argparse ends with 2


def probe(address: Address, patience: float = PATIENCE) -> tuple[int, str]:
    """The exit status of --probe, and a sentence that explains it."""
    where = format_address(address)
    try:
        status = _ask(address, patience)
    except ConnectionError:
        return DEAD, f"nobody listens at {where}"
    except OSError as error:
        return DEAD, f"{where} cannot be reached: {(error.strerror or str(error)).lower()}"
    if status is None:
        return DEAD, f"{where} did not answer within {patience:g} s"
    if status == SERVICE_UNAVAILABLE:
        return NO_SERVER, f"{where} answers, but no server takes new calls"
    return SERVES, f"{where} serves"


def _ask(address: Address, patience: float) -> int | None:
    """The status of the response; None if there is none. Raises OSError."""
    with bind_udp(("::" if ":" in address[0] else "0.0.0.0", 0)) as sock:
        sock.connect(address)
        own = sock.getsockname()[:2]
        ping = OptionsPing(address, own, secrets.token_hex(8), max_forwards=0)
        end = time.monotonic() + patience
        while (now := time.monotonic()) < end:
            sock.send(ping.request(now, patience))
            repeat_at = min(now + REPEAT_INTERVAL, end)
            while (now := time.monotonic()) < repeat_at:
                sock.settimeout(repeat_at - now)
                try:
                    data = sock.recv(MAX_DATAGRAM)
                except TimeoutError:
                    break
                answer = ping.response(data, time.monotonic(), patience)
                if answer:
                    return answer.status
    return None
