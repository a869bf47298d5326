"""The command line of a server. Every fault is one sentence with its remedy."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from plumbing.address import Address, parse_address
from sip import VERSION
from sip.digest import ALGORITHMS
from slee_mock.services.authentication import DIGEST
from slee_mock.services.session_timer import LEAST
from slee_mock.services.tariff import Tariff
from slee_mock.store.open_store import store_name
from slee_mock.user_files import read_user_lines


class SettingsError(ValueError):
    """A fault of the command line, or of a file that it names: a sentence with the remedy."""


@dataclass(frozen=True)
class Settings:
    name: str
    listen: Address
    forwarder: Address
    store: str = field(repr=False)  # a URL may have a password in it
    management: Address | None = None  # None: no page
    users: dict[str, str] | None = None  # None: no passwords
    realm: str = "failover.test"
    digest: tuple[str, ...] = DIGEST
    tariff: str = "0.10+0.05/10s"
    currency: str = "EUR"
    register: tuple[Address, ...] = ()  # of forwarders, to register at
    beat: float = 2.0  # seconds between two registrations
    deploy: tuple[str, ...] = ()  # services, NAME:ARGUMENT each
    session_expires: int = 1800  # seconds; 0: sessions do not expire
    forwarder_page: str = ""  # the URL of the forwarder's page, to which this server's leads
    server_header: bool = False  # responses name this server and its version
    verbose: bool = False


def parse_arguments(arguments: Sequence[str]) -> Settings:
    """Raises SettingsError; argparse itself ends the program for --help, --version and unknown
    options."""
    try:
        options = _parser().parse_args(arguments)
    except argparse.ArgumentError as error:
        raise SettingsError(f"{error.argument_name}: {error.message}") from None
    return Settings(**{**vars(options), "deploy": tuple(options.deploy)})


def _name(text: str) -> str:
    if not text.isprintable() or not text.strip():
        raise ValueError("it must be a printable name, as in --name server1")
    return text


def _address(text: str) -> Address:
    return parse_address(text, literal=True)


def _own_address(text: str) -> Address:
    """Not all addresses of the computer: our Via says where the responses go."""
    address = _address(text)
    if address[0] in ("0.0.0.0", "::"):
        raise ValueError(
            f"nothing can be sent to {address[0]}; name one address, as in 127.0.0.1:5070"
        )
    return address


def _forwarder(text: str) -> Address:
    address = _own_address(text)
    if not address[1]:
        raise ValueError("nobody can be reached at port 0; name the one that it listens on")
    return address


def _management(text: str) -> Address | None:
    return _address(text) if text else None


def _page(url: str) -> str:
    try:
        found = urlsplit(url)
        is_page = found.scheme in ("http", "https") and bool(found.hostname)
        _ = found.port  # raises ValueError
    except ValueError:
        is_page = False
    if url and not (is_page and url.isprintable() and " " not in url):
        raise ValueError(f"'{url}' is not the URL of a page, as in http://127.0.0.1:8060/")
    return url


def _addresses(text: str) -> tuple[Address, ...]:
    return tuple(_address(each) for each in text.split(",") if text)


def _store(where: str) -> str:
    store_name(where)  # raises ValueError
    return where


def _tariff(text: str) -> str:
    Tariff.parse(text)  # raises ValueError
    return text


def _users(path: str) -> dict[str, str] | None:
    form = "user:password, as in alice:secret"
    return read_user_lines(path, form, _password, secret=True) if path else None


def _password(line: str) -> tuple[str, str] | None:
    user, _, password = line.partition(":")
    return (user.strip(), password) if user.strip() and password else None


def _algorithms(text: str) -> tuple[str, ...]:
    found = tuple(each.strip().upper() for each in text.split(","))
    for each in found:
        if each not in ALGORITHMS:
            known = ", ".join(ALGORITHMS)
            raise ValueError(f"'{each}' is not one of {known}, as in --digest SHA-256,MD5")
    return found


def _beat(text: str) -> float:
    if not re.fullmatch(r"\d{1,4}(\.\d{1,3})?", text, re.ASCII) or not 0.05 <= float(text) <= 3600:
        raise ValueError(f"'{text}' is not a time in seconds from 0.05 to 3600")
    return float(text)


def _session(text: str) -> int:
    if not re.fullmatch(r"\d{1,6}", text, re.ASCII) or 0 < int(text) < LEAST:
        raise ValueError(
            f"'{text}' is not a whole number of seconds from {LEAST} on, or 0 for never"
        )
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m slee_mock",
        exit_on_error=False,
        description="A mock SLEE server behind the forwarder: registrar, call control, bills, "
        "a management page. "
        "Servers that are given the same store are one cluster: each can go on where another died.",
    )

    def option(
        flag: str, read: Callable[[str], object], default: str, metavar: str | None, what: str
    ) -> None:
        """Adds an option whose help text ends with the default, if there is one."""

        def typed(text: str) -> object:
            try:
                return read(text)
            except ValueError as error:  # argparse shows only the sentences of its own class
                raise argparse.ArgumentTypeError(str(error)) from None

        shown = f"{what} (%(default)s)" if default else what
        parser.add_argument(flag, type=typed, default=default, metavar=metavar, help=shown)

    option("--name", _name, "server1", None, "this server's name in the cluster")
    option("--listen", _own_address, "127.0.0.1:5070", "HOST:PORT", "UDP address for SIP")
    option("--forwarder", _forwarder, "127.0.0.1:5060", "HOST:PORT", "where everything is sent to")
    option(
        "--store",
        _store,
        "cluster.db",
        "FILE|URL",
        "the cluster's SQLite file, or redis://[:PASSWORD@]HOST:PORT[/DB], or "
        "redis+sentinel://[:PASSWORD@]HOST:PORT,HOST:PORT/MASTER[/DB]",
    )
    option(
        "--management",
        _management,
        "127.0.0.1:8071",
        "HOST:PORT",
        "address of the management page; empty: none",
    )
    option(
        "--forwarder-page",
        _page,
        "",
        "URL",
        "the forwarder's page, to which the management page then has a link, as in "
        "http://127.0.0.1:8060/",
    )
    option("--users", _users, "", "FILE", "lines user:password; then phones must know theirs")
    option(
        "--digest",
        _algorithms,
        ",".join(DIGEST),
        "ALGORITHM[,ALGORITHM]",
        f"of {' and '.join(ALGORITHMS)}, how passwords may be proven, the preferred first",
    )
    option("--realm", str, Settings.realm, None, "realm of the passwords")
    option(
        "--tariff",
        _tariff,
        Settings.tariff,
        "FEE+PRICE/SECONDS",
        "set-up fee and price per started unit of time",
    )
    option("--currency", str, Settings.currency, None, "printed behind the totals")
    option(
        "--register",
        _addresses,
        "",
        "HOST:PORT[,HOST:PORT]",
        "registration addresses of the forwarders that have no line for this server",
    )
    option("--beat", _beat, "2", "SECONDS", "seconds between two registrations")
    option(
        "--session-expires",
        _session,
        str(Settings.session_expires),
        "SECONDS",
        "close calls that no phone refreshes for so long; where none knows how, those of which "
        "no message passes for so long, until one does; 0: never",
    )
    add = parser.add_argument
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
