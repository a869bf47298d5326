"""The phone's settings between two starts: the account and the sound devices that were chosen.

One file of JSON that only its owner may read, because the password is in it. It is written anew as
a whole and renamed, so that a crash leaves the old one or the new one; the list of calls
(call_history.py) is written the same way. No Qt, no network.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from plumbing.file_permissions import OWNER_ONLY
from softphone import texts


@dataclass(frozen=True)
class SavedAccount:
    """As its person wrote it: `user` may hold a domain, `server` is HOST or HOST:PORT, "" for the
    domain's own."""

    user: str
    server: str = ""
    display_name: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True)
class DeviceChoice:
    """Which devices the person wants, by Qt's id in hexadecimal; "": the system's default."""

    microphone: str = ""
    loudspeaker: str = ""
    ringer: str = ""


@dataclass(frozen=True)
class Settings:
    """`account`: None until one was set up."""

    account: SavedAccount | None = None
    devices: DeviceChoice = DeviceChoice()


def load(path: Path) -> Settings:
    """The settings in this file; the defaults where there is none. ValueError, with a sentence that
    says what to do, for one that cannot be read."""
    try:
        row: Any = json.loads(path.read_text(encoding="utf-8"))
        account = row.get("account")
        devices = {each.name: str(row.get(each.name, "")) for each in fields(DeviceChoice)}
        if account:
            account = SavedAccount(
                **{each.name: str(account[each.name]) for each in fields(SavedAccount)}
            )
        return Settings(account or None, DeviceChoice(**devices))
    except FileNotFoundError:
        return Settings()
    except OSError as fault:
        raise ValueError(texts.FILE_UNREADABLE.format(path=path, reason=fault.strerror)) from None
    except (ValueError, KeyError, AttributeError, TypeError):
        raise ValueError(texts.FILE_DAMAGED.format(path=path)) from None


def save(path: Path, settings: Settings) -> None:
    """Write them; OSError if that cannot be done, and the old file is then as it was."""
    row = {"account": settings.account and asdict(settings.account), **asdict(settings.devices)}
    write_private(path, json.dumps(row, ensure_ascii=False, indent=2).encode() + b"\n")


def write_private(path: Path, data: bytes) -> None:
    """Write a file, on the disk (fsync) and as a whole, that only its owner may read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)  # a left-over one might be readable by others
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
