"""The command line of a server, checked. Every fault is one sentence with its remedy."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from plumbing.address import Address, parse_address
from sip import VERSION
from sip.digest import ALGORITHMS
from slee_mock.services.authentication import DIGEST
from slee_mock.services.session_timer import LEAST
from slee_mock.services.tariff import Tariff
from slee_mock.store.open_store import store_name
from slee_mock.user_files import read_user_lines


class SettingsError(ValueError):
    """Something on the command line, or in a file it names, is wrong. The text says what to do."""


@dataclass(frozen=True)
class Settings:
    name: str
    listen: Address
    forwarder: Address
    store: str = field(repr=False)  # a URL may have a password in it
    management: Address | None = None  # None: no page
    users: dict[str, str] | None = None  # None: nobody is asked for a password
    realm: str = "failover.test"
    digest: tuple[str, ...] = DIGEST
    tariff: str = "0.10+0.05/10s"
    currency: str = "EUR"
    register: tuple[Address, ...] = ()  # where forwarders hear who is there
    beat: float = 2.0  # seconds between two registrations
    deploy: tuple[str, ...] = ()  # services, NAME:ARGUMENT each
    session_expires: int = 1800  # seconds; 0: sessions do not expire
    server_header: bool = False  # answers tell version and server to whoever asks
    verbose: bool = False


def parse_arguments(arguments: Sequence[str]) -> Settings:
    """Raises SettingsError; argparse itself ends the program for --help, --version and unknown
    options."""
    options = _parser().parse_args(arguments)
    if not options.name.isprintable() or not options.name.strip():
        raise SettingsError("--name must be a printable name, as in --name server1")
    try:
        Tariff.parse(options.tariff)
    except ValueError as error:
        raise SettingsError(f"--tariff: {error}") from None
    return Settings(
        name=options.name,
        listen=_reachable("--listen", _address("--listen", options.listen)),
        forwarder=_reachable("--forwarder", _address("--forwarder", options.forwarder, port=True)),
        store=_store("--store", options.store),
        management=_address("--management", options.management) if options.management else None,
        users=read_users(options.users) if options.users else None,
        realm=options.realm,
        digest=_algorithms(options.digest),
        tariff=options.tariff,
        currency=options.currency,
        register=tuple(
            _address("--register", each) for each in options.register.split(",") if options.register
        ),
        beat=_seconds("--beat", options.beat),
        deploy=tuple(options.deploy),
        session_expires=_session("--session-expires", options.session_expires),
        server_header=options.server_header,
        verbose=options.verbose,
    )


def read_users(path: str) -> dict[str, str]:
    """Lines `user:password`. Raises SettingsError."""
    try:
        return read_user_lines(path, "user:password, as in alice:secret", _password, secret=True)
    except ValueError as error:
        raise SettingsError(f"--users: {error}") from None


def _password(line: str) -> tuple[str, str] | None:
    user, _, password = line.partition(":")
    return (user.strip(), password) if user.strip() and password else None


def _algorithms(text: str) -> tuple[str, ...]:
    found = tuple(each.strip().upper() for each in text.split(","))
    for each in found:
        if each not in ALGORITHMS:
            raise SettingsError(
                f"--digest: '{each}' is not one of {', '.join(ALGORITHMS)}, as in --digest "
                "SHA-256,MD5"
            )
    return found


def _address(option: str, text: str, port: bool = False) -> Address:
    try:
        address = parse_address(text, literal=True)
    except ValueError as error:
        raise SettingsError(f"{option}: {error}") from None
    if port and not address[1]:
        raise SettingsError(
            f"{option}: nobody can be reached at port 0; name the one that it listens on"
        )
    return address


def _reachable(option: str, address: Address) -> Address:
    """Our Via says where the answers go, so that all addresses of a computer will not do."""
    if address[0] in ("0.0.0.0", "::"):
        raise SettingsError(
            f"{option}: nothing can be sent to {address[0]}; name one address, as in 127.0.0.1:5070"
        )
    return address


def _store(option: str, where: str) -> str:
    try:
        store_name(where)
    except ValueError as error:
        raise SettingsError(f"{option}: {error}") from None
    return where


def _seconds(option: str, text: str) -> float:
    if not re.fullmatch(r"\d{1,4}(\.\d{1,3})?", text, re.ASCII) or not 0.05 <= float(text) <= 3600:
        raise SettingsError(f"{option}: '{text}' is not a time in seconds from 0.05 to 3600")
    return float(text)


def _session(option: str, text: str) -> int:
    if not re.fullmatch(r"\d{1,6}", text, re.ASCII) or 0 < int(text) < LEAST:
        raise SettingsError(
            f"{option}: '{text}' is not a whole number of seconds from {LEAST} on, or 0 for never"
        )
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m slee_mock",
        description="A mock SLEE server behind the forwarder: registrar, call control, bills, "
        "a management page. "
        "Servers that are given the same store are one cluster: each can go on where another died.",
    )
    add = parser.add_argument
    add("--name", default="server1", help="this server's name in the cluster (server1)")
    add(
        "--listen",
        default="127.0.0.1:5070",
        metavar="HOST:PORT",
        help="UDP address for SIP (127.0.0.1:5070)",
    )
    add(
        "--forwarder",
        default="127.0.0.1:5060",
        metavar="HOST:PORT",
        help="where everything is sent to (127.0.0.1:5060)",
    )
    add(
        "--store",
        default="cluster.db",
        metavar="FILE|URL",
        help="the cluster's SQLite file (cluster.db), or redis://[:PASSWORD@]HOST:PORT[/DB], or "
        "redis+sentinel://[:PASSWORD@]HOST:PORT,HOST:PORT/MASTER[/DB]",
    )
    add(
        "--management",
        default="127.0.0.1:8071",
        metavar="HOST:PORT",
        help="address of the management page; empty: none (127.0.0.1:8071)",
    )
    add(
        "--users",
        default="",
        metavar="FILE",
        help="lines user:password; then phones must know theirs",
    )
    add(
        "--digest",
        default=",".join(DIGEST),
        metavar="ALGORITHM[,ALGORITHM]",
        help=f"of {' and '.join(ALGORITHMS)}, how passwords may be proven, the preferred first "
        f"({','.join(DIGEST)})",
    )
    add("--realm", default="failover.test", help="realm of the passwords (failover.test)")
    add(
        "--tariff",
        default="0.10+0.05/10s",
        metavar="FEE+PRICE/SECONDS",
        help="set-up fee and price per started unit of time (0.10+0.05/10s)",
    )
    add("--currency", default="EUR", help="printed behind the totals (EUR)")
    add(
        "--register",
        default="",
        metavar="HOST:PORT[,HOST:PORT]",
        help="registration addresses of the forwarders that have no line for this server",
    )
    add("--beat", default="2", metavar="SECONDS", help="seconds between two registrations (2)")
    add(
        "--session-expires",
        default="1800",
        metavar="SECONDS",
        help="close calls that no phone refreshes for so long; where none knows how, those of "
        "which "
        "no message passes for so long, until one does; 0: never (1800)",
    )
    add(
        "--deploy",
        action="append",
        default=[],
        metavar="NAME:ARGUMENT",
        help="a further service, as in prepaid:balances.txt; may be given several times",
    )
    add(
        "--server-header",
        action="store_true",
        help="tell version and name of this server in every answer, for tests and demonstrations: "
        "phones show which server they are registered through, and strangers learn it too",
    )
    add("--version", action="version", version=f"slee_mock {VERSION}")
    add("-v", "--verbose", action="store_true", help="log every decision to stderr")
    return parser
