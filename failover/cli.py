"""The command line: reads servers.properties, runs a forwarder until it is told to stop, reloads on
SIGHUP."""

from __future__ import annotations

import argparse
import errno
import gc
import logging
import queue
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from failover.admin import logging_setup as journal
from failover.admin.systemd_notify import Notifier
from failover.config.properties import Fault, decode
from failover.config.settings import FIRST_LIVE, Settings, SettingsError, literal, read
from failover.config.shared_secret import Secret, SecretError, open_secret, secret_path
from failover.config.shared_secret import describe as describe_secret
from failover.forwarder import Forwarder
from failover.net.active_standby import ACTIVE
from failover.net.own_address import is_here
from failover.net.port_owner import port_owner
from failover.net.sockets import EXTRA_PORTS, first_free
from failover.net.vrrp_probe import DEAD, probe
from plumbing.address import Address, format_address, parse_address
from sip import VERSION

if TYPE_CHECKING:
    from failover.admin.http_api import Admin

log = logging.getLogger("forwarder")
MAX_FILE = 1 << 20
RELOAD = "SIGHUP"


def main(arguments: Sequence[str], default_file: Path) -> int:
    """Runs `forwarder.py`; returns its exit status."""
    options = _options(arguments, default_file)
    if options.probe:
        return _probe(options.probe)
    file = Path(options.file)
    journal.set_up(options.verbose)
    try:
        settings = load(file)
        path = secret_path(settings.secret_file, file)
        if options.check:
            doubts = [f"warning: {text}" for text in warnings(settings)]
            print(
                f"{file.name} is good.",
                *describe(settings),
                f"secret: {describe_secret(path)}",
                *doubts,
                sep="\n",
            )
            return 0
        secret = open_secret(path)
    except (OSError, SettingsError, SecretError) as error:
        print(_sentence(error), file=sys.stderr)
        return 1
    try:
        return _run(file, settings, secret)
    except TimeoutError as error:
        print(
            f"it has not ended as it should: {error}; its sockets are closed now", file=sys.stderr
        )
        return 1
    except OSError as error:
        print(_remedy(file, error, settings), file=sys.stderr)
        return 1


def load(file: Path) -> Settings:
    """The settings of a file, names of computers looked up. Raises SettingsError."""
    remedy = "name another file, or write one (see servers.properties)"
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_FILE + 1)
    except OSError as error:
        raise SettingsError(
            str(file), [Fault(0, f"{(error.strerror or str(error)).lower()}; {remedy}")]
        ) from error
    if len(data) > MAX_FILE:
        raise SettingsError(str(file), [Fault(0, f"too large to be a list of servers; {remedy}")])
    return read(decode(data), file.name, look_up, is_here)


def look_up(host: str, ipv6: bool) -> str:
    """The IP address of a computer's name, of the wanted family if it has one. Raises ValueError
    with a sentence."""
    try:
        return literal(host)
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        raise ValueError(f"no address is known for '{host}'") from None
    return str(min(found, key=lambda entry: (entry[0] == socket.AF_INET6) != ipv6)[4][0])


def describe(settings: Settings) -> list[str]:
    """What was read, in sentences."""
    servers = [f"{line.name} {format_address(line.address)}" for line in settings.servers]
    by = f"{settings.policy} (sessions named by {settings.convergence})"
    back = (
        f"{settings.rise} answers, {settings.rise * settings.interval:g} s "
        "(longer for one that flaps)"
    )
    return [
        f"servers, in order: {', '.join(servers) or 'none but those that come'}",
        *(
            [f"servers register themselves at {_reception(settings)}"]
            if settings.registration
            else []
        ),
        f"new calls go by {settings.policy if settings.policy == FIRST_LIVE else by}",
        f"heartbeats every {settings.interval:g} s: {settings.promise}; one that is back is used "
        f"after {back}",
        f"phones and servers send to {format_address(settings.listen)} (UDP)",
        "where that is another forwarder's: "
        f"{'waits for it' if settings.standby else 'refuses to start'}",
        f"limit of one source: {settings.rate or 'no'} datagrams a second, {settings.burst} at "
        "once",
        f"status page at http://{format_address(settings.admin)}/"
        if settings.admin
        else "no status page",
    ]


def _reception(settings: Settings) -> str:
    assert settings.registration
    whose = "their own address" if not settings.foreign else "any address there"
    where = f"{format_address(settings.registration)} (UDP), {whose}, from {settings.allow}"
    return f"{where}; forgotten after {settings.timeout:g} s of silence"


def warnings(settings: Settings) -> list[str]:
    """What may be meant, and may be a mistake that somebody else finds first."""
    if settings.admin and not ip_address(settings.admin[0].partition("%")[0]).is_loopback:
        where = format_address(settings.admin)
        return [
            f"the pages at {where} have no password: whoever reaches them sees every call's "
            "parties and may disable "
            "servers; let a firewall admit only those who should, or set "
            "admin.listen=127.0.0.1:8060"
        ]
    return []


def _options(arguments: Sequence[str], default_file: Path) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="forwarder.py",
        description="Forwards SIP over UDP to the first living server of a list, and moves on when "
        "that one dies.",
        epilog="SIGHUP reads the file again; SIGTERM and Ctrl-C stop. "
        "The file explains every setting.",
    )
    where = f"servers and settings (default: {default_file.name} beside forwarder.py)"
    parser.add_argument("file", nargs="?", default=default_file, help=where)
    parser.add_argument(
        "--check", action="store_true", help="say what the file means and what it promises, and end"
    )
    ask = (
        "end at once: status 0, the forwarder at this address serves; "
        "3, it lives, no server takes calls; 1, neither"
    )
    parser.add_argument("--probe", metavar="HOST:PORT", help=ask)
    parser.add_argument("--version", action="version", version=f"forwarder {VERSION}")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="log a line for every message and its way"
    )
    return parser.parse_args(arguments)


def _probe(text: str) -> int:
    try:
        host, port = parse_address(text, default_port=5060)
        status, sentence = probe((look_up(host, ipv6=":" in host), port))
    except ValueError as error:
        status, sentence = DEAD, str(error)
    print(sentence, file=sys.stderr if status == DEAD else sys.stdout)
    return status


def _run(file: Path, settings: Settings, secret: Secret) -> int:
    wishes, notifier = _wishes(), Notifier()
    forwarder = Forwarder(settings, secret)
    forwarder.start()
    with ExitStack() as ending:  # each of them, the last first, whatever one raises
        ending.callback(notifier.close)
        pages = ending.enter_context(ExitStack())
        # before the pages, which take their time: a standby waits for the address
        ending.callback(forwarder.stop)
        if settings.admin:
            admin = first_free(
                settings.admin, EXTRA_PORTS if settings.standby else 0, partial(_admin, forwarder)
            )
            pages.callback(admin.stop)
            settings = replace(settings, admin=_told(settings.admin, admin.address))
        settings = replace(settings, registration=forwarder.registration)
        print(f"forwarder {VERSION}", *describe(settings), f"secret: {secret}", sep="\n")
        for text in (*warnings(settings), *_worries(secret)):
            log.warning("%s", text)
        active = forwarder.ha_state.role is ACTIVE
        print(
            f"ready: {format_address(settings.listen)}{'' if active else ' (standby)'}", flush=True
        )
        if not active and (who := port_owner(settings.listen)):
            log.info("%s is held by %s", format_address(settings.listen), who)
        if notifier.enabled:
            forwarder.every(notifier.interval, partial(_beat, notifier, forwarder))
        notifier.ready()
        gc.collect()
        # what is here stays: with 10,000 in flight a full collection takes 5 ms instead of 9
        gc.freeze()
        while (wish := _next(wishes)) == RELOAD:
            notifier.reloading()
            _reload(file, forwarder)
            notifier.ready()
        log.info("stopping, as %s asked", wish)
        notifier.stopping()
    return 0


def _beat(notifier: Notifier, forwarder: Forwarder) -> None:
    """The watchdog is fed also where the status line cannot be had: a defect in that is no reason
    for a restart."""
    status: str | None = None
    try:
        status = forwarder.summary()
    finally:
        notifier.beat(status)


def _admin(forwarder: Forwarder, address: Address) -> Admin:
    """Imports its module only now: http.server and what that needs are a sixth of the memory."""
    from failover.admin.http_api import Admin

    admin = Admin(address, forwarder)
    admin.start()
    return admin


def _told(wished: Address, found: Address) -> Address:
    """Where the pages are, in the log too if that is not where they are expected."""
    if found != wished and wished[1]:
        taken = f"{format_address(wished)} is taken, perhaps by the other forwarder"
        log.warning("the status page is at http://%s/: %s", format_address(found), taken)
    return found


def _worries(secret: Secret) -> list[str]:
    """What a secret that ends with the process costs."""
    if secret.kept:
        return []
    return [
        f"the secret is for {secret.origin}: after a restart answers under way are lost, and calls "
        "find their "
        "server by the policy alone; name a file in forwarder.secret.file that this user can write"
    ]


def _wishes() -> queue.SimpleQueue[str]:
    """What signals ask for. A SimpleQueue may be put into from within a signal handler."""
    wishes: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in ("SIGTERM", "SIGINT", RELOAD):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_, name=name: wishes.put(name))
    return wishes


def _next(wishes: queue.SimpleQueue[str]) -> str:
    while True:
        try:
            return wishes.get(timeout=1.0)  # Windows looks at signals only between two waits
        except queue.Empty:
            continue


def _reload(file: Path, forwarder: Forwarder) -> None:
    """Whatever is wrong with the new file, or happens to be with us, the old table goes on
    serving."""
    try:
        settings = load(file)
    except (OSError, SettingsError) as error:
        log.error("reload refused, nothing changed: %s", "; ".join(_sentence(error).split("\n")))
        return
    try:
        changed = forwarder.reload(settings)
    except TimeoutError as error:
        log.error(
            "reload: %s; look at /status, and reload again if it still shows the old servers", error
        )
    except Exception:
        log.exception(
            "reload failed, though the file is good: look at /status for what is in force"
        )
    else:
        log.warning("reload: %s", "; ".join(changed) or "nothing changed")


def _sentence(error: OSError | SettingsError | SecretError) -> str:
    """An OSError here is not the file's: the system would not let us look something up, or
    write."""
    return (
        f"the system refuses: {(error.strerror or str(error)).lower()}"
        if isinstance(error, OSError)
        else str(error)
    )


def _remedy(file: Path, error: OSError, settings: Settings) -> str:
    """Who has a problem and what to do about it, for what can go wrong with an address."""
    text = error.strerror or str(error)
    if error.errno == errno.EADDRINUSE:
        ours = text.endswith(f"({format_address(settings.listen)})")
        who = (port_owner(settings.listen) if ours else "") or "another program"
        wait = ", or let this one wait for it (forwarder.standby=yes)" if ours else ""
        return f"{text}: {who} has this port; stop it, or choose another in {file.name}{wait}"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{text}: this computer has no such address; correct it in {file.name}"
    if error.errno == errno.EACCES:
        return (
            f"{text}: ports below 1024 need the administrator's rights; choose another in "
            f"{file.name}"
        )
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return (
            f"{text}: each server needs two; raise the limit (ulimit -n, or LimitNOFILE= of the "
            "unit)"
        )
    if error.errno == errno.EAFNOSUPPORT:
        return f"{text}: this computer does not speak IPv6; choose an IPv4 address in {file.name}"
    if text.endswith(")"):  # an address, as bind_udp and the pages name it
        return f"{text}: cannot be used; look at the addresses in {file.name}"
    return f"the system refuses: {text}"
