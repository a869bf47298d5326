"""The command line of `python -m softphone`, parsed into PhoneOptions. No Qt, no network."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from plumbing.address import Address, format_address, parse_address
from sip import VERSION
from sip.errors import RemoteProtocolError
from softphone import texts
from softphone.password import add_options, password_of
from softphone.settings import SavedAccount
from softphone.ua.account import Account, normal
from softphone.ua.keep_alive import PERIOD
from softphone.ua.session_timer import DEFAULT_INTERVAL, SHORTEST

FORWARDER: Address = ("127.0.0.1", 5060)
PAIR = {"alice": "bob", "bob": "alice"}  # who calls whom
DOMAIN = "failover.test"  # RFC 6761: names that never leave the test bench


@dataclass(frozen=True)
class PhoneOptions:
    """One phone as asked for on the command line. Its account has a display name."""

    account: Account
    proxy: Address
    listen: Address
    target: str = ""
    tone: bool = False
    session_expires: int = DEFAULT_INTERVAL
    direct: bool = False
    keep_alive: float = PERIOD


def parser() -> argparse.ArgumentParser:
    """The options, with what they are for."""
    options = argparse.ArgumentParser(
        prog="softphone",
        description="A SIP phone. Without options the one that was set up in its window; until "
        "then, and with --pair, two, alice and bob, that call each other through the forwarder.",
        epilog="Keys: Enter calls, answers or hangs up; Esc declines or hangs up; "
        "Ctrl+1 and Ctrl+2 choose the phone.",
    )
    options.add_argument(
        "--user", metavar="U", help="open one phone for this user; user@domain sets the domain too"
    )
    options.add_argument(
        "--proxy",
        metavar="HOST:PORT",
        help=f"where to send everything ({format_address(FORWARDER)}, or the domain given)",
    )
    options.add_argument("--domain", metavar="D", help=f"the domain of the account ({DOMAIN})")
    add_options(options)
    options.add_argument("--display-name", metavar="N", default="", help="the name that others see")
    options.add_argument(
        "--listen", metavar="HOST:PORT", help="the address of this phone (any free port)"
    )
    options.add_argument(
        "--session-expires",
        metavar="SECONDS",
        type=int,
        default=DEFAULT_INTERVAL,
        help="a call ends if neither side gives a sign of life for so long "
        f"({DEFAULT_INTERVAL}; 0: do not ask for it)",
    )
    _add_server_options(options)
    options.add_argument(
        "--tone", action="store_true", help="send a tone even if there is a microphone"
    )
    options.add_argument(
        "--pair", action="store_true", help="the two phones, also if one of your own was set up"
    )
    options.add_argument("-v", "--verbose", action="store_true", help="log every message to stderr")
    options.add_argument("--version", action="version", version=f"softphone {VERSION}")
    return options


def _add_server_options(options: argparse.ArgumentParser) -> None:
    """How the phone and its server trust each other."""
    options.add_argument(
        "--direct", action="store_true", help="ring for calls that do not come from the proxy, too"
    )
    options.add_argument(
        "--keep-alive",
        metavar="SECONDS",
        type=float,
        default=PERIOD,
        help=f"a sign of life to the server so often; it keeps a NAT open ({PERIOD:g}; 0: none)",
    )
    options.add_argument(
        "--server",
        metavar="HOST:PORT",
        action="append",
        default=[],
        help="another address of the account's server, trusted like the proxy's; repeatable",
    )
    options.add_argument(
        "--realm",
        metavar="R",
        action="append",
        default=[],
        help="another realm, beside the account's own, that may ask for the password; repeatable",
    )


def parse_phones(arguments: argparse.Namespace) -> list[PhoneOptions]:
    """The phones that were asked for. ValueError with a sentence if the options make no sense."""
    user, user_domain = _user_and_domain(arguments.user or "")
    domain = arguments.domain or user_domain or DOMAIN
    try:
        _ = Account(user, domain).uri
    except RemoteProtocolError:
        raise ValueError(f"--domain: '{domain}' is no domain; one looks like example.org") from None
    proxy = _address("--proxy", arguments.proxy, 5060)
    if proxy is None:
        proxy = FORWARDER if domain == DOMAIN else _address("--domain", domain, 5060) or FORWARDER
    if arguments.session_expires and arguments.session_expires < SHORTEST:
        raise ValueError(
            f"--session-expires: {arguments.session_expires} is too short; at least {SHORTEST}, or "
            "0"
        )
    if not (arguments.keep_alive == 0 or 5 <= arguments.keep_alive <= 3600):
        raise ValueError(
            f"--keep-alive: {arguments.keep_alive:g} is not 0 or from 5 to 3600 seconds"
        )
    listen = _address("--listen", arguments.listen, 0) or _own_side_of(proxy)
    users, password = [user], ""
    if arguments.user is None:
        for option in (
            "password",
            "password_file",
            "ask_password",
            "display_name",
            "listen",
            "realm",
            "server",
        ):
            if getattr(arguments, option):
                raise ValueError(
                    f"--{option.replace('_', '-')} is for one phone; say which with --user"
                )
        users = list(PAIR)
    elif user:
        password = password_of(arguments)
    else:
        raise ValueError("--user needs a name, such as alice")
    servers, is_pair = _servers(arguments.server), len(users) == 2
    return [
        PhoneOptions(
            Account(
                each,
                domain,
                password,
                arguments.display_name or _name_of(each),
                tuple(arguments.realm),
                servers,
            ),
            proxy,
            listen,
            target=PAIR.get(each, "") if is_pair or domain == DOMAIN else "",
            tone=arguments.tone or is_pair,
            session_expires=arguments.session_expires,
            direct=arguments.direct,
            keep_alive=arguments.keep_alive,
        )
        for each in users
    ]


def _name_of(user: str) -> str:
    """The name that others see where none was given."""
    return normal(user).capitalize()


def options_given(arguments: argparse.Namespace) -> bool:
    """Does the command line say which phones are wanted?"""
    given, default = vars(arguments), vars(parser().parse_args([]))
    return any(given[name] != default[name] for name in given if name != "verbose")


class FieldFault(ValueError):
    """An entry of the account sheet that makes no sense; `field`: a key of texts.ACCOUNT_FIELDS."""

    def __init__(self, field: str, sentence: str) -> None:
        label, _ = texts.ACCOUNT_FIELDS[field]
        super().__init__(f"{label}: {sentence}")
        self.field = field


def account_options(account: SavedAccount) -> PhoneOptions:
    """The phone of an account that was set up in its window; FieldFault if that makes no sense."""
    try:
        user, domain = _user_and_domain(account.user.strip())
    except ValueError as fault:
        raise FieldFault("user", str(fault)) from None
    if not user:
        raise FieldFault("user", texts.NO_USER)
    server = account.server.strip()
    if not server and not domain:
        raise FieldFault("server", texts.NO_SERVER)
    try:
        proxy = parse_address(server or domain, 5060)
        domain = domain or proxy[0]
        _ = Account(user, domain).uri
    except ValueError as fault:
        raise FieldFault("server", str(fault)) from None
    except RemoteProtocolError:
        raise FieldFault("user", texts.NOT_A_DOMAIN.format(text=domain)) from None
    name = account.display_name.strip() or _name_of(user)
    return PhoneOptions(Account(user, domain, account.password, name), proxy, _own_side_of(proxy))


def _servers(texts: Sequence[str]) -> tuple[Address, ...]:
    """ValueError for a name: it is compared with where messages come from."""
    try:
        return tuple(parse_address(text, 5060, literal=True) for text in texts)
    except ValueError as fault:
        raise ValueError(f"--server: {fault}") from None


def _user_and_domain(text: str) -> tuple[str, str]:
    if text.lower().startswith("sips:"):
        raise ValueError(texts.USER_ENCRYPTED.format(text=text))
    user, _, domain = text.removeprefix("sip:").partition("@")
    if any(character.isspace() or character in '<>"' for character in user + domain):
        raise ValueError(texts.NOT_A_USER.format(text=text))
    return user, domain


def _own_side_of(proxy: Address) -> Address:
    """Where to listen if nobody says: this computer alone if the proxy is on it too, else
    everywhere."""
    host = proxy[0]
    if ":" in host:
        return ("::1" if host == "::1" else "::"), 0
    return ("127.0.0.1" if host == "localhost" or host.startswith("127.") else "0.0.0.0"), 0


def _address(option: str, text: str | None, default_port: int) -> Address | None:
    if text is None:
        return None
    try:
        return parse_address(text, default_port)
    except ValueError as fault:
        raise ValueError(f"{option}: {fault}") from None
