"""Tables for people."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """The first column to the left, the others to the right."""
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    form = "  ".join(f"{{:{'>' if n else '<'}{width}}}" for n, width in enumerate(widths))
    return "\n".join(form.format(*row).rstrip() for row in rows)
