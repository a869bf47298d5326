"""The command line of forwarder.py: reads servers.properties, runs a forwarder until a signal stops
it, reloads on SIGHUP.

The main thread only starts, waits for signals, and stops. A signal handler does no more than put
the signal's name into a queue.
"""

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

from failover.admin import logging_setup
from failover.admin.systemd_notify import Notifier
from failover.config.networks import LOOPBACK
from failover.config.properties import Fault, decode
from failover.config.settings import FIRST_LIVE, Settings, SettingsError, literal, read
from failover.config.shared_secret import Secret, SecretError, open_secret, secret_path
from failover.config.shared_secret import describe as describe_secret
from failover.forwarder import Forwarder
from failover.net.active_standby import ACTIVE, HELD
from failover.net.own_address import is_here
from failover.net.port_owner import port_owner
from failover.net.sockets import EXTRA_PORTS, first_free
from failover.net.vrrp_check_script import DEAD, probe
from plumbing.address import Address, format_address, parse_address
from sip import VERSION

if TYPE_CHECKING:
    from failover.admin.http_api import Admin

log = logging.getLogger("forwarder")
MAX_FILE = 1 << 20  # octets of servers.properties
RELOAD = "SIGHUP"


def main(arguments: Sequence[str], default_file: Path) -> int:
    """Runs `forwarder.py`; returns its exit status."""
    options = _options(arguments, default_file)
    if options.probe:
        return _probe(options.probe)
    file = Path(options.file)
    logging_setup.set_up(options.verbose)
    try:
        settings = load(file)
        path = secret_path(settings.secret_file, file)
        if options.check:
            print(
                f"{file.name} is good.",
                *describe(settings),
                f"secret: {describe_secret(path)}",
                *(f"warning: {text}" for text in warnings(settings)),
                sep="\n",
            )
            return 0
        secret = open_secret(path)
    except (OSError, SettingsError, SecretError) as error:
        print(_message(error), file=sys.stderr)
        return 1
    try:
        return _run(file, settings, secret)
    except TimeoutError as error:
        print(
            f"it has not ended as it should: {error}; its sockets are closed now", file=sys.stderr
        )
        return 1
    except OSError as error:
        print(_advice(file, error, settings), file=sys.stderr)
        return 1


def load(file: Path) -> Settings:
    """Reads the settings file and looks up the host names in it. Raises SettingsError."""
    advice = "name another file, or write one: a line server1=HOST:PORT for each server"
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_FILE + 1)
    except OSError as error:
        raise SettingsError(
            str(file), [Fault(0, f"{(error.strerror or str(error)).lower()}; {advice}")]
        ) from error
    if len(data) > MAX_FILE:
        raise SettingsError(str(file), [Fault(0, f"too large to be a list of servers; {advice}")])
    return read(decode(data), file.name, look_up, is_here)


def look_up(host: str, ipv6: bool) -> str:
    """The IP address of a host, of the wanted family if it has one. Raises ValueError with a
    message for the operator."""
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
    """Explains the settings, a line each, for --check and the start."""
    servers = ", ".join(map(str, settings.servers)) or "none but those that come"
    policy = settings.policy
    if policy != FIRST_LIVE:
        policy += f" (sessions named by {settings.convergence})"
    rise = f"{settings.rise} answers, {settings.rise * settings.interval:g} s"
    taken = "stands by until it is free" if settings.standby else "does not start"
    limit = f"{settings.rate or 'no'} datagrams a second, {settings.burst} at once"
    lines = [f"servers, in order: {servers}"]
    if settings.registration:
        lines.append(f"servers register themselves at {_registration(settings)}")
    lines += [
        f"new calls go by {policy}",
        f"heartbeats every {settings.interval:g} s: {settings.promise}; one that is back is used "
        f"after {rise} (longer for one that flaps)",
        f"phones and servers send to {format_address(settings.listen)} (UDP)",
        f"while another program has this address: {taken}",
        *_own_names(settings),
        f"limit of one source: {limit}",
    ]
    if settings.admin:
        lines.append(f"status page at http://{format_address(settings.admin)}/")
    else:
        lines.append("no status page")
    return lines


def _own_names(settings: Settings) -> list[str]:
    lines = []
    if settings.advertise:
        lines.append(f"writes {format_address(settings.advertise)} into messages")
    if settings.names:
        names = (format_address(each) if each[1] else each[0] for each in settings.names)
        lines.append(f"is meant by these, too: {', '.join(names)}")
    return lines


def _registration(settings: Settings) -> str:
    assert settings.registration
    whose = "their own address" if not settings.foreign else "any address there"
    where = f"{format_address(settings.registration)} (UDP), {whose}, from {settings.allow}"
    return f"{where}; forgotten after {settings.timeout:g} s of silence"


def warnings(settings: Settings) -> list[str]:
    """Settings that are allowed, and dangerous or of no use."""
    return [*_unreachable(settings), *_unknown_links(settings), *_open_pages(settings)]


def _unreachable(settings: Settings) -> list[str]:
    where = f"forwarder.listen={format_address(settings.listen)}"
    host = settings.listen[0]
    everywhere = ip_address(host).is_unspecified
    if not everywhere and not is_here(host):
        then = "it stands by until it has" if settings.standby else "it does not start until then"
        return [f"{where}: this computer has no such address now; {then}"]
    away = [str(server) for server in settings.servers if server.address[0] not in LOOPBACK]
    if host not in LOOPBACK or not away:
        return []
    return [f"{where} is of this computer only: no requests of {', '.join(away)} arrive there"]


def _unknown_links(settings: Settings) -> list[str]:
    unknown = settings.links.keys() - {server.name for server in settings.servers}
    if not unknown or settings.registration:  # it may register itself
        return []
    return [f"admin.links names {', '.join(sorted(unknown))}, and no server is called so"]


def _open_pages(settings: Settings) -> list[str]:
    if settings.admin and settings.admin[0] not in LOOPBACK:
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
    signals, notifier = _handle_signals(), Notifier()
    forwarder = Forwarder(settings, secret)
    forwarder.start()
    with ExitStack() as cleanup:  # calls all of them, the last one first, whatever one raises
        cleanup.callback(notifier.close)
        pages = cleanup.enter_context(ExitStack())
        # The forwarder stops before the pages, which take longer: a standby waits for the address.
        cleanup.callback(forwarder.stop)
        if settings.admin:
            admin = first_free(
                settings.admin, EXTRA_PORTS if settings.standby else 0, partial(_admin, forwarder)
            )
            pages.callback(admin.stop)
            settings = replace(settings, admin=_used_address(settings.admin, admin.address))
        settings = replace(settings, registration=forwarder.registration)
        print(f"forwarder {VERSION}", *describe(settings), f"secret: {secret}", sep="\n")
        for text in (*warnings(settings), *_secret_warnings(secret)):
            log.warning("%s", text)
        active = forwarder.ha_state.role is ACTIVE
        print(
            f"ready: {format_address(settings.listen)}{'' if active else ' (standby)'}", flush=True
        )
        if forwarder.ha_state.event is HELD and (who := port_owner(settings.listen)):
            level = logging.INFO if "forwarder.py" in who else logging.WARNING
            log.log(level, "%s is held by %s", format_address(settings.listen), who)
        if notifier.enabled:
            forwarder.every(notifier.interval, partial(_beat, notifier, forwarder))
        notifier.ready()
        gc.collect()
        # The objects of the start stay. With 10,000 pending messages a full collection takes 5 ms,
        # not 9.
        gc.freeze()
        # few objects refer to each other in circles: to look for them every 700 objects, as by
        # default, costs a message some 5 % more
        gc.set_threshold(10_000, 50)
        while (name := _next_signal(signals)) == RELOAD:
            notifier.reloading()
            _reload(file, forwarder)
            notifier.ready()
        log.info("stopping, as %s asked", name)
        notifier.stopping()
    return 0


def _beat(notifier: Notifier, forwarder: Forwarder) -> None:
    """Feeds the watchdog even if the status line fails, since that is no reason for a restart."""
    status: str | None = None
    try:
        status = forwarder.summary()
    finally:
        notifier.beat(status)


def _admin(forwarder: Forwarder, address: Address) -> Admin:
    """Starts the admin pages. Imports them only now, since http.server and what it imports are a
    sixth of the memory."""
    from failover.admin.http_api import Admin

    admin = Admin(address, forwarder)
    admin.start()
    return admin


def _used_address(configured: Address, used: Address) -> Address:
    """`used`, with a warning if it is not the configured one."""
    if used != configured and configured[1]:
        taken = f"{format_address(configured)} is taken, perhaps by the other forwarder"
        log.warning("the status page is at http://%s/: %s", format_address(used), taken)
    return used


def _secret_warnings(secret: Secret) -> list[str]:
    if secret.kept:
        return []
    return [
        f"the secret is for {secret.origin}: after a restart answers under way are lost, and calls "
        "find their "
        "server by the policy alone; name a file in forwarder.secret.file that this user can write"
    ]


def _handle_signals() -> queue.SimpleQueue[str]:
    """The names of the signals that arrive. (A signal handler may put into a SimpleQueue.)"""
    signals: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in ("SIGTERM", "SIGINT", RELOAD):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_, name=name: signals.put(name))
    return signals


def _next_signal(signals: queue.SimpleQueue[str]) -> str:
    while True:
        try:
            return signals.get(timeout=1.0)  # Windows handles signals only between two waits
        except queue.Empty:
            continue


def _reload(file: Path, forwarder: Forwarder) -> None:
    """Reads the file again. Whatever fails, the forwarder goes on with the settings it has."""
    try:
        settings = load(file)
    except (OSError, SettingsError) as error:
        log.error("reload refused, nothing changed: %s", "; ".join(_message(error).split("\n")))
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


def _message(error: OSError | SettingsError | SecretError) -> str:
    """An OSError here is the system's refusal to look up an address, or to write the secret."""
    if isinstance(error, OSError):
        return f"the system refuses: {(error.strerror or str(error)).lower()}"
    return str(error)


def _advice(file: Path, error: OSError, settings: Settings) -> str:
    """Names the fault of an address at the start, and the remedy."""
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
    if text.endswith(")"):  # it names an address, as the errors of bind_udp and the pages do
        return f"{text}: cannot be used; look at the addresses in {file.name}"
    return f"the system refuses: {text}"
