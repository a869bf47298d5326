"""`python -m slee_mock`: start one server of the cluster and keep it running until SIGTERM or
Ctrl-C."""

from __future__ import annotations

import gc
import logging
import queue
import signal
import sys
from collections.abc import Sequence

from plumbing.address import format_address
from slee_mock.container.deployment import DeployError
from slee_mock.server import Server, StartError
from slee_mock.settings import Settings, SettingsError, parse_arguments
from slee_mock.store.interface import StoreDown
from slee_mock.store.open_store import store_name

# Seconds that a thread which computes may keep the others waiting. Of the heartbeats that come
# while pages are made every tenth waits longer than 6 ms with Python's own 0.005, than 2 ms with
# this.
SWITCH_SECONDS = 0.0005
# Objects made, and not given up, between two looks for garbage that goes round in circles, of which
# messages make none. Measured: 4 % of what a call costs with Python's own 700.
GC_THRESHOLD = 10_000


def main(arguments: Sequence[str]) -> int:
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        settings = parse_arguments(arguments)
    except SettingsError as error:
        return _fail(str(error))
    level = logging.DEBUG if settings.verbose else logging.WARNING
    logging.basicConfig(stream=sys.stderr, level=level, format="%(asctime)s %(message)s")
    # may be put into from within a signal handler
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda number, _: signals.put(number))
    gc.set_threshold(GC_THRESHOLD)
    try:
        server = Server(settings)
        # the modules' objects stay: to look through them for garbage takes 20 ms a time
        gc.freeze()
        server.start()
    except (StoreDown, StartError) as error:
        return _fail(str(error))
    except DeployError as error:
        return _fail(f"--deploy: {error}")
    except OSError as error:  # no file descriptors left, for one
        return _fail(f"cannot start: {error}")
    _print_start(settings)
    # with a timeout, because Windows does not deliver Ctrl-C to an endless wait
    while not _stop_requested(signals, 1.0):
        continue
    # a second signal means: do not wait
    server.leave(lambda seconds: _stop_requested(signals, seconds))
    try:
        server.stop()
    except TimeoutError as error:
        return _fail(f"not everything came to an end: {error}")
    return 0


def _stop_requested(signals: queue.SimpleQueue[int], seconds: float) -> bool:
    """Waits that long at most for a signal."""
    try:
        signals.get(timeout=seconds)
    except queue.Empty:
        return False
    return True


def _print_start(settings: Settings) -> None:
    print(f"{settings.name} keeps calls, bindings and bills in {store_name(settings.store)}")
    asked = (
        "no passwords asked"
        if settings.users is None
        else f"{len(settings.users)} users with passwords"
    )
    print(f"tariff {settings.tariff} {settings.currency}; {asked}")
    if settings.deploy:
        print(f"further services: {', '.join(settings.deploy)}")
    if settings.management:
        print(f"management page: http://{format_address(settings.management)}/")
    if settings.register:
        where = ", ".join(format_address(each) for each in settings.register)
        print(f"registers at {where} every {settings.beat:g} s")
    print(
        f"ready: {settings.name} listens on {format_address(settings.listen)} "
        f"and sends to the forwarder at {format_address(settings.forwarder)}",
        flush=True,
    )


def _fail(sentence: str) -> int:
    print(f"slee_mock: {sentence}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
