"""Parsers of values in servers.properties: text in, value out, ValueError with a sentence."""

from __future__ import annotations

import re
from collections.abc import Callable


def yes_or_no(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError(f"'{text}' is neither yes nor no")
    return text == "yes"


def whole(least: int, most: int) -> Callable[[str], int]:
    """The parser of a whole number between the two."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"\d{1,6}", text, re.ASCII) or not least <= int(text) <= most:
            raise ValueError(f"'{text}' is not a whole number from {least} to {most}")
        return int(text)

    return parse


def seconds(least: float, most: float) -> Callable[[str], float]:
    """The parser of a time between the two."""

    def parse(text: str) -> float:
        if (
            not re.fullmatch(r"\d{1,4}(\.\d{1,6})?", text, re.ASCII)
            or not least <= float(text) <= most
        ):
            raise ValueError(f"'{text}' is not a time in seconds from {least:g} to {most:g}")
        return float(text)

    return parse
