"""Parsers of values in servers.properties: text in, value out, ValueError with a sentence."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

from failover.config.networks import Networks
from plumbing.address import Address, parse_address

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}\Z")  # of a server
_URL = re.compile(r"https?://[A-Za-z0-9\[][!#-;=?-~]*\Z")


def yes_or_no(text: str) -> bool:
    return one_of(("yes", "no"), "neither yes nor no")(text) == "yes"


def one_of(words: Collection[str], otherwise: str) -> Callable[[str], str]:
    """The parser of one of these words; `otherwise` ends the sentence about any other."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"'{text}' is {otherwise}")
        return text

    return parse


def number(low: float, high: float, decimals: int = 0) -> Callable[[str], float]:
    """The parser of a whole number, or, with `decimals`, of a time in seconds."""
    kind, convert = ("a time in seconds", float) if decimals else ("a whole number", int)
    pattern = re.compile(rf"[0-9]{{1,6}}(\.[0-9]{{1,{decimals}}})?" if decimals else "[0-9]{1,6}")

    def parse(text: str) -> float:
        if not pattern.fullmatch(text) or not low <= convert(text) <= high:
            raise ValueError(f"'{text}' is not {kind} from {low:g} to {high:g}")
        return convert(text)

    return parse


def host_port(
    optional: bool = False,
    names: bool = False,
    default_port: int | None = None,
    fixed_for: str = "",
) -> Callable[[str], Address | None]:
    """The parser of `host:port`.

    `optional`: empty text is None. `names`: a computer's name will do instead of an IP address.
    `default_port`: where none is written. `fixed_for`: who needs to know the port, so that it
    cannot be 0, which lets the system choose one.
    """

    def parse(text: str) -> Address | None:
        if optional and not text:
            return None
        parsed = parse_address(text, default_port, literal=not names)
        if fixed_for and not parsed[1]:
            raise ValueError(
                f"port 0 would be a different port at every start; {fixed_for} need to know it"
            )
        return parsed

    return parse


def network_list(if_empty: Networks) -> Callable[[str], Networks]:
    return lambda text: Networks.parse(text) if text else if_empty


def file_name(text: str) -> str:
    if "\0" in text:
        raise ValueError("not the name of a file")
    return text


def absolute_file_name(text: str) -> str:
    if text and not text.startswith("/"):
        raise ValueError(
            f"'{text}' is not absolute; keepalived follows it, as /run/call-failover/sees"
        )
    return file_name(text)


def page_links(text: str) -> Mapping[str, str]:
    """`server1 http://10.0.0.1:8071/, server2 ...`: URLs by the names of servers."""
    found: dict[str, str] = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        name, _, url = part.partition(" ")
        if not NAME.match(name) or not _URL.match(url.strip()):
            raise ValueError(
                f"'{part}' is not a server and its page; write server1 http://10.0.0.1:8071/, "
                "for example"
            )
        found[name] = url.strip()
    return found
