"""Lists of IP networks in settings: `10.0.0.0/8, 192.0.2.7, 2001:db8::/32`."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network


@dataclass(frozen=True)
class Networks:
    """A set of IP addresses: `"10.1.2.3" in networks`. A text that is no address is in none."""

    members: tuple[IPv4Network | IPv6Network, ...]

    @staticmethod
    def parse(text: str) -> Networks:
        """Networks and single addresses, separated by commas. Raises ValueError with a sentence."""
        members = []
        for word in (part.strip() for part in text.split(",")):
            try:
                members.append(ip_network(word))
            except ValueError as error:
                beyond = "host bits" in str(error)
                fault = "has bits beyond its length" if beyond else "is not a network"
                raise ValueError(
                    f"'{word}' {fault}; write 10.0.0.0/8 or 192.0.2.7, for example"
                ) from None
        return Networks(tuple(members))

    def __contains__(self, host: object) -> bool:
        try:
            address = ip_address(str(host))
        except ValueError:
            return False
        return any(address in member for member in self.members)

    def __str__(self) -> str:
        return ", ".join(str(member) for member in self.members)


LOOPBACK = Networks.parse("127.0.0.0/8, ::1/128")
