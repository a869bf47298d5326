"""The command line: reads servers.properties, runs a forwarder until it is told to stop, reloads on SIGHUP."""

from __future__ import annotations

import argparse
import errno
import logging
import queue
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from failover.admin import Admin
from failover.properties import decode
from failover.service import Forwarder
from failover.settings import Settings, SettingsError, literal, read
from plumbing.address import format_address
from sip import VERSION

log = logging.getLogger("forwarder")
MAX_FILE = 1 << 20
STOP, RELOAD = "stop", "reload"


def main(arguments: Sequence[str], default_file: Path) -> int:
    """Runs `forwarder.py`; returns its exit status."""
    options = _options(arguments, default_file)
    file = Path(options.file)
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr
    )
    try:
        settings = load(file)
    except (OSError, SettingsError) as error:
        print(_sentence(file, error), file=sys.stderr)
        return 1
    if options.check:
        print(f"{file.name} is good.", *describe(settings), sep="\n")
        return 0
    try:
        return _run(file, settings)
    except OSError as error:
        print(_remedy(file, error), file=sys.stderr)
        return 1


def load(file: Path) -> Settings:
    """The settings of a file, names of computers looked up. Raises OSError or SettingsError."""
    with file.open("rb") as opened:
        data = opened.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise OSError(errno.EFBIG, "too large to be a list of servers")
    return read(decode(data), file.name, look_up)


def look_up(host: str) -> str:
    """The IP address of a computer's name, IPv4 before IPv6. Raises ValueError with a sentence."""
    try:
        return literal(host)
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        raise ValueError(f"no address is known for '{host}'") from None
    return str(min(found, key=lambda entry: entry[0] != socket.AF_INET)[4][0])


def describe(settings: Settings) -> list[str]:
    """What was read, in sentences."""
    servers = [f"{line.name} {format_address(line.address)}" for line in settings.servers]
    return [
        f"servers, in order: {', '.join(servers)}",
        f"new calls go by {settings.policy}; heartbeats every {settings.interval:g} s: {settings.promise}",
        f"phones and servers send to {format_address(settings.listen)} (UDP)",
        f"status page at http://{format_address(settings.admin)}/" if settings.admin else "no status page",
    ]


def _options(arguments: Sequence[str], default_file: Path) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="forwarder.py",
        description="Forwards SIP over UDP to the first living server of a list, and moves on when that one dies.",
        epilog="SIGHUP reads the file again; SIGTERM and Ctrl-C stop. The file explains every setting.",
    )
    where = f"servers and settings (default: {default_file.name} beside forwarder.py)"
    parser.add_argument("file", nargs="?", default=default_file, help=where)
    parser.add_argument("--check", action="store_true", help="say what the file means and what it promises, and end")
    parser.add_argument("--version", action="version", version=f"forwarder {VERSION}")
    parser.add_argument("-v", "--verbose", action="store_true", help="log a line for every message and its way")
    return parser.parse_args(arguments)


def _run(file: Path, settings: Settings) -> int:
    wishes = _wishes()
    forwarder = Forwarder(settings)
    forwarder.start()
    admin: Admin | None = None
    try:
        if settings.admin:
            admin = Admin(settings.admin, forwarder)
            admin.start()
        print(f"forwarder {VERSION}", *describe(settings), sep="\n")
        print(f"ready: {format_address(settings.listen)}", flush=True)
        while _next(wishes) == RELOAD:
            _reload(file, forwarder)
        log.info("stopping")
        return 0
    finally:
        if admin:
            admin.stop()
        forwarder.stop()


def _wishes() -> queue.SimpleQueue[str]:
    """What signals ask for. A SimpleQueue may be put into from within a signal handler."""
    wishes: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name, wish in (("SIGTERM", STOP), ("SIGINT", STOP), ("SIGHUP", RELOAD)):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_, wish=wish: wishes.put(wish))
    return wishes


def _next(wishes: queue.SimpleQueue[str]) -> str:
    while True:
        try:
            return wishes.get(timeout=1.0)  # Windows looks at signals only between two waits
        except queue.Empty:
            continue


def _reload(file: Path, forwarder: Forwarder) -> None:
    """Whatever is wrong with the new file, the old table goes on serving."""
    try:
        changed = forwarder.reload(load(file))
    except (OSError, SettingsError) as error:
        log.error("reload refused, nothing changed:\n%s", _sentence(file, error))
        return
    log.warning("reload: %s", "; ".join(changed) or "nothing changed")


def _sentence(file: Path, error: OSError | SettingsError) -> str:
    if isinstance(error, SettingsError):
        return str(error)
    return f"{file}: {(error.strerror or str(error)).lower()}; name another file, or write one (see servers.properties)"


def _remedy(file: Path, error: OSError) -> str:
    """Who has a problem and what to do about it, for what can go wrong with an address."""
    text = error.strerror or str(error)
    if error.errno == errno.EADDRINUSE:
        return f"{text}: another program has this port; stop it, or choose another in {file.name}"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{text}: this computer has no such address; correct it in {file.name}"
    if error.errno == errno.EACCES:
        return f"{text}: ports below 1024 need the administrator's rights; choose another in {file.name}"
    return f"{text}: cannot be used; look at the addresses in {file.name}"
