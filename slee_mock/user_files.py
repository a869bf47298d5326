"""Files with a line for each user, `user:password` or `user:money`; blank lines and comments
(# ...) are skipped."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from plumbing.file_permissions import exposed

T = TypeVar("T")


def read_user_lines(
    path: str, form: str, read: Callable[[str], tuple[str, T] | None], secret: bool = False
) -> dict[str, T]:
    """{user: value}. `read` returns user and value of a line, or None for a bad one; `form` says
    what a line is. `secret`: the file must be its owner's alone. Raises ValueError with a
    sentence."""
    try:
        # some editors put a byte order mark in front
        with open(path, encoding="utf-8-sig") as file:
            fault = exposed(path, os.fstat(file.fileno())) if secret else ""
            if fault:
                raise ValueError(fault)
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ValueError(
            f"cannot read {path or 'a file without a name'}: {reason}; write lines {form}"
        ) from None
    found: dict[str, T] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        pair = read(line)
        if pair is None:
            raise ValueError(f"{path}:{number}: a line is {form}")
        if pair[0] in found:
            raise ValueError(f"{path}:{number}: there are two lines for {pair[0]}; keep one")
        found[pair[0]] = pair[1]
    return found
