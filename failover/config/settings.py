"""The settings and servers that servers.properties lists.

Rules
  1. A line is a setting (its key is in SETTINGS), or a server: `name=host:port`, or `host:port`
     alone, whose name is then the address as written. Anything else is a fault.
  2. A key, a name or an address stands in the file once. What is left out has its default.
  3. All faults are found in one reading, each with its line: `read` raises one SettingsError.
  4. SETTINGS has the keys and their defaults; servers.properties shows and explains each to the
     operator. A test holds the two equal.

Two steps: each line is parsed by itself; then the whole is checked, for a server's address can be
judged only when forwarder.listen is known.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches

from failover.config.networks import LOOPBACK, Networks
from failover.config.properties import Entry, Fault, parse
from failover.config.value_parsers import (
    NAME,
    absolute_file_name,
    file_name,
    host_port,
    network_list,
    number,
    one_of,
    page_links,
    yes_or_no,
)
from failover.upstream.affinity_key import OF_ONE_MESSAGE
from plumbing.address import Address, format_address, parse_address
from sip.grammar import canonical_host
from sip.header import canonical

POLICIES = FIRST_LIVE, CALL_ID = "first-live", "call-id"
PHONES = "phones"  # the name of the phones' side, hence no server's
_HEADER = re.compile(r"[A-Za-z0-9.!%*_+`'~-]{1,64}\Z")  # RFC 3261 25.1: a token
# (host, is an IPv6 address wanted?) -> its IP address; raises ValueError with a sentence
Resolve = Callable[[str, bool], str]
IsLocal = Callable[[str], bool]  # is this IP address one of this computer's?


@dataclass(frozen=True)
class ServerLine:
    """A server of the file. Without a name of its own it has its address's text as name."""

    name: str
    address: Address

    def __str__(self) -> str:
        where = format_address(self.address)
        return where if self.name == where else f"{self.name} {where}"


@dataclass(frozen=True)
class Settings:
    """The values of a file; servers.properties explains them. Times are in seconds."""

    servers: tuple[ServerLine, ...]
    listen: Address
    standby: bool  # wait for the listen address if another forwarder has it
    # None: the listen address, or, where that is a wildcard, the one the system sends from
    advertise: Address | None
    names: tuple[Address, ...]  # hosts in lower case, port 0 where none is written
    policy: str
    convergence: str
    path: bool
    secret_file: str  # "": a secret for one run only
    track_file: str  # "": none
    interval: float
    fall: int
    rise: int
    passive_requests: int  # 0: no passive check
    passive_seconds: float
    registration: Address | None  # None: servers cannot register themselves
    allow: Networks
    foreign: bool  # servers may register addresses other than their own
    timeout: float
    rate: int  # datagrams a second; 0: no source is limited
    burst: int
    exempt: Networks
    admin: Address | None  # None: no page
    links: Mapping[str, str]  # URLs of the servers' own pages, by server

    @property
    def patience(self) -> float:
        """Seconds within which a hung server is down, at the latest: if it hung right after an
        answer, the interval then running still counts as answered."""
        return self.interval * (self.fall + 1)

    @property
    def promise(self) -> str:
        return f"a killed server is noticed at once, a hung one within {self.patience:g} s"


class SettingsError(Exception):
    """The file cannot be used; `faults` has all that is wrong with it, in the order of its
    lines."""

    def __init__(self, name: str, faults: list[Fault]) -> None:
        self.faults = sorted(faults, key=lambda fault: fault.line)
        super().__init__("\n".join(fault.located(name) for fault in self.faults))


# -- parsers of single settings: text in, value out, ValueError with a sentence --------------------


def _names(text: str) -> tuple[Address, ...]:
    """Names and addresses that mean this forwarder; port 0 where none is written."""
    parsed = (parse_address(part, default_port=0) for part in text.split(",") if part.strip())
    return tuple((canonical_host(host), port) for host, port in parsed)


def _convergence(text: str) -> str:
    if not _HEADER.match(text):
        raise ValueError(f"'{text}' is not the name of a header")
    header = canonical(text)
    if header in OF_ONE_MESSAGE:
        raise ValueError(
            f"{header} names a message, not a session; Call-ID, From, To or a header of your own "
            "may do"
        )
    return header


@dataclass(frozen=True)
class Setting:
    """A row of the table: `field` is its name in Settings."""

    key: str
    field: str
    default: str
    parse: Callable[[str], object]


SETTINGS = (
    Setting("forwarder.listen", "listen", "0.0.0.0:5060", host_port(fixed_for="phones")),
    Setting("forwarder.standby", "standby", "yes", yes_or_no),
    Setting(
        "forwarder.advertise", "advertise", "", host_port(optional=True, names=True, default_port=0)
    ),
    Setting("forwarder.names", "names", "", _names),
    Setting(
        "forwarder.policy",
        "policy",
        FIRST_LIVE,
        one_of(POLICIES, f"not a policy; it is either {FIRST_LIVE} or {CALL_ID}"),
    ),
    Setting("forwarder.convergence", "convergence", "Call-ID", _convergence),
    Setting("forwarder.path", "path", "no", yes_or_no),
    Setting("forwarder.secret.file", "secret_file", "forwarder.secret", file_name),
    Setting("forwarder.track.file", "track_file", "", absolute_file_name),
    Setting("heartbeat.interval", "interval", "0.05", number(0.005, 60, decimals=6)),
    Setting("heartbeat.fall", "fall", "3", number(1, 100)),
    Setting("heartbeat.rise", "rise", "2", number(1, 100)),
    Setting("passive.requests", "passive_requests", "20", number(0, 9999)),
    Setting("passive.seconds", "passive_seconds", "3", number(1, 60, decimals=6)),
    Setting(
        "registration.listen", "registration", "", host_port(optional=True, fixed_for="servers")
    ),
    Setting("registration.allow", "allow", "", network_list(if_empty=LOOPBACK)),
    Setting("registration.foreign", "foreign", "no", yes_or_no),
    Setting("registration.timeout", "timeout", "10", number(0.5, 3600, decimals=6)),
    Setting("limit.rate", "rate", "200", number(0, 999_999)),
    Setting("limit.burst", "burst", "1000", number(0, 999_999)),
    Setting("limit.exempt", "exempt", "127.0.0.0/8, ::1/128", network_list(if_empty=Networks(()))),
    Setting("admin.listen", "admin", "127.0.0.1:8060", host_port(optional=True)),
    Setting("admin.links", "links", "", page_links),
)
KEYS = {setting.key: setting for setting in SETTINGS}


# -- the whole file --------------------------------------------------------------------------------


def literal(host: str, ipv6: bool = False) -> str:
    """The canonical text of an IP address. A Resolve that looks no names up."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        raise ValueError(f"'{host}' is not an IP address") from None


def read(
    text: str, name: str, resolve: Resolve = literal, here: IsLocal = lambda host: False
) -> Settings:
    """The settings in a file's text. Raises SettingsError, which calls the file `name`."""
    entries, faults = parse(text)
    reading = _Reading(faults, resolve, here)
    for entry in entries:
        reading.take(entry)
    settings = reading.settings()
    if reading.faults:
        raise SettingsError(name, reading.faults)
    return settings


def differences(old: Settings, new: Settings) -> list[str]:
    """The changes as lines for the log: "+ server3 10.0.0.3:5060", "heartbeat.fall 3 -> 4"."""
    lines = [f"- {line}" for line in old.servers if line not in new.servers]
    lines += [f"+ {line}" for line in new.servers if line not in old.servers]
    if not lines and old.servers != new.servers:
        lines.append(f"order {', '.join(line.name for line in new.servers)}")
    for setting in SETTINGS:
        was, now = getattr(old, setting.field), getattr(new, setting.field)
        if was != now:
            lines.append(f"{setting.key} {_shown(was)} -> {_shown(now)}")
    return lines


def _shown(value: object) -> str:
    """A value as the file has it; "nothing" for an empty one."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return str(value).removesuffix(".0")
    if isinstance(value, Mapping):
        text = ", ".join(f"{name} {link}" for name, link in value.items())
    elif isinstance(value, tuple) and value and not isinstance(value[0], tuple):
        text = format_address(value).removesuffix(":0")  # port 0: none is written
    elif isinstance(value, tuple):
        text = ", ".join(map(_shown, value))
    else:
        text = "" if value is None else str(value)
    return text or "nothing"


class _Reading:
    """The values, servers and faults found so far in a file."""

    def __init__(self, faults: list[Fault], resolve: Resolve, here: IsLocal) -> None:
        self.faults = faults
        self._resolve, self._here = resolve, here
        # entry, address as written, name ("": none); hosts are resolved in `settings`
        self._written: list[tuple[Entry, Address, str]] = []
        self._values: dict[str, object] = {}
        self._lines: dict[str, int] = {}  # key or server name -> its line
        self._servers: dict[Address, tuple[str, int]] = {}  # address -> name and line

    def take(self, entry: Entry) -> None:
        """Reads one line: a setting, a server, or a fault."""
        try:
            if entry.key in KEYS:
                self._set(entry)
            elif _is_bare(entry):
                self._written.append((entry, _bare_address(entry), ""))
            elif NAME.match(entry.key):
                self._written.append((entry, parse_address(entry.value.strip()), entry.key))
            else:
                self._fault(entry, f"unknown key '{entry.key}'{_suggestion(entry.key)}")
        except ValueError as error:
            self._invalid(entry, error)

    def settings(self) -> Settings:
        """The file's values and the defaults of the others. Finds the faults of the whole file."""
        values: dict[str, object] = {
            s.field: self._values.get(s.key, s.parse(s.default)) for s in SETTINGS
        }
        settings = _built((), values)
        for entry, written, name in self._written:
            try:
                self._add(entry, written, name, ipv6=":" in settings.listen[0])
            except ValueError as error:
                self._invalid(entry, error)
        servers = tuple(ServerLine(name, address) for address, (name, _) in self._servers.items())
        settings = replace(settings, servers=servers)
        if not servers and not settings.registration and not self.faults:
            advice = (
                "add a line such as server1=127.0.0.1:5070, "
                "or registration.listen for servers to come to"
            )
            self.faults.append(Fault(0, f"no server; {advice}"))
        if settings.registration and settings.registration[1] == settings.listen[1]:
            line = self._lines["registration.listen"]
            self.faults.append(
                Fault(line, "registration.listen needs a port other than forwarder.listen's")
            )
        for address, (name, line) in self._servers.items():
            fault = self._unfit(address, settings)
            if fault:
                self.faults.append(Fault(line, f"{name} {fault}"))
        return settings

    def _unfit(self, server: Address, settings: Settings) -> str:
        """The reason why the forwarder cannot have a server at this address; "" if it can."""
        listen, own = settings.listen, format_address(settings.listen)
        here = ipaddress.ip_address(listen[0]).is_unspecified and (
            ipaddress.ip_address(server[0]).is_loopback or self._here(server[0])
        )
        if server in (listen, settings.advertise) or (here and server[1] == listen[1]):
            return f"is the forwarder's own address {own}"
        if (":" in server[0]) != (":" in listen[0]):
            theirs, ours, wildcard = (
                ("IPv6", "IPv4", "[::]") if ":" in server[0] else ("IPv4", "IPv6", "0.0.0.0")
            )
            return (
                f"has an {theirs} address and forwarder.listen={own} is {ours}: one forwarder "
                "speaks one of them; "
                f"listen on {wildcard}:{listen[1]}, or run a second forwarder"
            )
        return ""

    def _set(self, entry: Entry) -> None:
        if self._is_first(entry, entry.key):
            self._values[entry.key] = KEYS[entry.key].parse(entry.value.strip())

    def _add(self, entry: Entry, written: Address, name: str, ipv6: bool) -> None:
        host, port = written
        if not port:
            raise ValueError("a server cannot have port 0")
        address = (self._resolve(host, ipv6), port)
        name = name or format_address(written)
        if name == PHONES:
            self._fault(
                entry, f"'{PHONES}' is the name of the phones' side; give the server another"
            )
        elif address in self._servers:
            other, line = self._servers[address]
            self._fault(entry, f"{format_address(address)} is on line {line} already, as {other}")
        elif self._is_first(entry, name):
            self._servers[address] = (name, entry.line)

    def _is_first(self, entry: Entry, name: str) -> bool:
        first = self._lines.setdefault(name, entry.line)
        if first != entry.line:
            self._fault(entry, f"'{name}' is on line {first} already")
        return first == entry.line

    def _invalid(self, entry: Entry, error: ValueError) -> None:
        self._fault(entry, f"{entry.key}: {error}" if not _is_bare(entry) else str(error))

    def _fault(self, entry: Entry, text: str) -> None:
        self.faults.append(Fault(entry.line, text))


def _built(servers: tuple[ServerLine, ...], values: Mapping[str, object]) -> Settings:
    advertise, listen = values["advertise"], values["listen"]
    if isinstance(advertise, tuple) and isinstance(listen, tuple):
        advertise = (advertise[0], advertise[1] or listen[1])
    # the parsers of the table SETTINGS return what the fields want
    return Settings(servers, **{**values, "advertise": advertise})  # type: ignore[arg-type]


def _is_bare(entry: Entry) -> bool:
    """Is it a server without a name, `host:port` or `host : port`? As a properties file's line that
    is a key and its value."""
    if entry.text.startswith("["):
        return True
    return entry.separator == ":" and entry.value.strip().isdigit() and not _suggestion(entry.key)


def _bare_address(entry: Entry) -> Address:
    return parse_address(entry.text.replace("\\", ""))


def _suggestion(key: str) -> str:
    near = get_close_matches(key.lower(), KEYS, n=1, cutoff=0.75)
    return f" (did you mean '{near[0]}'?)" if near else ""
