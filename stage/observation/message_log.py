"""The messages of the ladder as text and as a pcap file."""

from __future__ import annotations

from collections.abc import Iterable

from plumbing.address import parse_address
from plumbing.pcap import CapturedDatagram, pcap
from stage.observation.observations import LadderRow


def as_pcap(rows: Iterable[LadderRow], offset: float) -> bytes:
    """A capture file of the messages whose text is known. `offset`: wall minus monotonic
    seconds."""
    return pcap(
        CapturedDatagram(
            row.at + offset,
            parse_address(row.source_address),
            parse_address(row.target_address),
            row.text.encode(),
        )
        for row in rows
        if row.text
    )


def as_text(rows: Iterable[LadderRow], zero: float) -> str:
    """A line per message with the seconds since `zero`, and its text indented beneath."""
    lines: list[str] = []
    for row in rows:
        if not row.source:
            lines.append(f"{row.at - zero:9.3f}  ---- {row.label} ----")
            continue
        addresses = f"{row.source_address} > {row.target_address}" if row.source_address else ""
        lines.append(
            f"{row.at - zero:9.3f}  {row.source} -> {row.target}  {row.label}  {addresses}".rstrip()
        )
        lines += [f"           | {line}" for line in row.text.splitlines()]
    return "\n".join(lines) + "\n"
