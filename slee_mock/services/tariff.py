"""The price of a call: a set-up fee plus a price for every started unit of time. Money is counted
in whole minor units (10 to the minus `Tariff.digits` of the currency) and never in floats."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

_MONEY = r"[0-9]{1,9}(\.[0-9]{1,6})?"
_TARIFF = re.compile(rf"(?P<setup>{_MONEY})\+(?P<price>{_MONEY})/(?P<unit>[0-9]{{1,6}})s\Z")


@dataclass(frozen=True)
class Tariff:
    """Set-up fee plus a price for every started unit of time, in minor units."""

    setup: int
    price: int
    unit: int  # seconds
    digits: int = 2

    @staticmethod
    @lru_cache(maxsize=64)  # a page adds up hundreds of bills of one tariff
    def parse(text: str) -> Tariff:
        """ "0.10+0.05/10s". Raises ValueError with a sentence."""
        match = _TARIFF.match(text.replace(" ", ""))
        if not match or int(match["unit"]) == 0:
            raise ValueError(
                f"'{text}' is not a tariff; write set-up fee + price / seconds, as in 0.10+0.05/10s"
            )
        digits = max(2, *(len(match[name].partition(".")[2]) for name in ("setup", "price")))
        setup, price = (int(Decimal(match[name]).scaleb(digits)) for name in ("setup", "price"))
        return Tariff(setup, price, int(match["unit"]), digits)

    def money(self, minor: int) -> str:
        return str(Decimal(minor).scaleb(-self.digits))

    def started_units(self, answered: float, until: float) -> int:
        """Units that have begun before `until`; answering begins the first."""
        return max(1, -(-milliseconds(answered, until) // (self.unit * 1000)))


def milliseconds(start: float, end: float) -> int:
    """Never negative, whatever the clocks did."""
    return max(0, round((end - start) * 1000))
