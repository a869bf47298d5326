"""`forwarder.py --probe ADDRESS`: does the forwarder at this address serve? For health checks of
VRRP daemons.

It is asked itself: an OPTIONS that may be passed on no further (Max-Forwards 0) and is for nobody
in particular. The thread that forwards answers, on the socket that it forwards on: 200, or 503
where no server takes new calls. Either proves that it lives, the first alone that it can serve. One
on standby has no socket there.
"""

from __future__ import annotations

import secrets
import time

from failover.net.options_ping import MAX_DATAGRAM, NOT_NOW, Script
from plumbing.address import Address, format_address
from plumbing.udp_socket import bind_udp

PATIENCE = 1.0  # seconds
SERVES, DEAD, LIVES = 0, 1, 3  # 2 is what a faulty command line ends with
AGAIN = 0.25  # seconds until it is asked once more: a datagram may get lost


def probe(address: Address, patience: float = PATIENCE) -> tuple[int, str]:
    """SERVES, LIVES or DEAD, the exit status of --probe; and that in a sentence."""
    where = format_address(address)
    try:
        status = _ask(address, patience)
    except ConnectionError:
        return DEAD, f"nobody listens at {where}"
    except OSError as error:
        return DEAD, f"{where} cannot be reached: {(error.strerror or str(error)).lower()}"
    if status is None:
        return DEAD, f"{where} did not answer within {patience:g} s"
    if status == NOT_NOW:
        return LIVES, f"{where} answers, but no server takes new calls"
    return SERVES, f"{where} serves"


def _ask(address: Address, patience: float) -> int | None:
    """The status of the answer, None if there is none. Raises OSError."""
    with bind_udp(("::" if ":" in address[0] else "0.0.0.0", 0)) as sock:
        sock.connect(address)
        script = Script(address, sock.getsockname()[:2], secrets.token_hex(8), hops=0)
        end = time.monotonic() + patience
        while (now := time.monotonic()) < end:
            sock.send(script.ask(now, patience))
            again = min(now + AGAIN, end)
            while (left := again - time.monotonic()) > 0:
                sock.settimeout(left)
                try:
                    data = sock.recv(MAX_DATAGRAM)
                except TimeoutError:
                    break
                answer = script.answer(data, time.monotonic(), patience)
                if answer:
                    return answer.status
    return None
