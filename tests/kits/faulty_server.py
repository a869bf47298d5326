"""A real server with a fault: `python -S tests/kits/faulty_server.py NUMBER POINT SLEE_MOCK'S
ARGUMENTS...`

At its NUMBERth message, heartbeats not counted, it ends as kill -9 would end it: when it has
`received` the message, or when it has `saved` what comes of it and sent nothing yet. 0: never. It
prints the messages it was given.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sip.errors import RemoteProtocolError
from slee_mock.__main__ import main
from slee_mock.container.event_router import Router
from slee_mock.container.events import Arrival, Outcome, ResponseEvent, TimerEvent
from slee_mock.sip_adaptor import is_heartbeat
from slee_mock.store.interface import Store


def break_router(number: int, point: str) -> None:
    whole = Router.process_all
    given: list[Arrival | TimerEvent] = []  # each once, however often it is handled

    def process_all(
        self: Router, events: Sequence[Arrival | TimerEvent], store: Store
    ) -> list[Outcome]:
        for index, event in enumerate(events):
            name = _name(event)
            if name and not any(each is event for each in given):
                given.append(event)
                print(f"given {name}", flush=True)
            if 0 < number <= len(given) and event is given[number - 1]:
                if point == "saved":
                    whole(self, events[: index + 1], store)
                os.kill(os.getpid(), signal.SIGKILL)
        return whole(self, events, store)

    Router.process_all = process_all  # type: ignore[method-assign]


def _name(event: Arrival | TimerEvent) -> str:
    """As the sweep calls it; nothing for a heartbeat or a timer."""
    if isinstance(event, ResponseEvent):
        return f"{event.response.status} {event.response.cseq.method}"
    if isinstance(event, TimerEvent):
        return ""
    try:
        return "" if is_heartbeat(event.request) else event.request.method
    except RemoteProtocolError:
        return event.request.method


if __name__ == "__main__":
    break_router(int(sys.argv[1]), sys.argv[2])
    sys.exit(main(sys.argv[3:]))
