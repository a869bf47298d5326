"""The secret that signs what passes: read from a file, which the first start makes.

Two forwarders with the same secret (and the same names of servers) route alike, and one that starts
again still knows what it signed before. The file is one line of text, so that it can be copied to
another computer by hand.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from pathlib import Path
from typing import NamedTuple

from plumbing.private_files import OWNER_ONLY, exposed
from sip.branch import keyed_hash

EMPTY = "forwarder.secret.file is empty"
LEAST = 32  # characters
MOST = 4096


class Secret(NamedTuple):
    """`key` signs. `origin` says where it is from, for people. `kept`: a forwarder that starts
    again has it too."""

    key: bytes
    origin: str
    kept: bool

    def __str__(self) -> str:
        return (
            f"{self.fingerprint}, from {self.origin}"
            if self.kept
            else f"{self.fingerprint}, for {self.origin}"
        )

    @property
    def fingerprint(self) -> str:
        """Forwarders that show the same one have the same secret; nothing of it can be told from
        this."""
        return keyed_hash(self.key, "fingerprint")[:8]


class SecretError(Exception):
    """The file cannot be used as it is; the text says why and what to do."""


def place(name: str, settings_file: Path) -> Path | None:
    """Where the secret file is that the settings name; None if they name none. A relative name is
    beside the settings, or in the folder that systemd made for the service (StateDirectory=)."""
    if not name:
        return None
    state = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return (Path(state) if state else settings_file.resolve().parent) / name


def open_secret(path: Path | None) -> Secret:
    """The secret of the file, which is made if it is not there. Where it can be neither, one for
    this run only.

    Raises SecretError for a file that is there and cannot or should not be used.
    """
    if path is None:
        return passing(EMPTY)
    try:
        return read(path)
    except FileNotFoundError:
        pass
    try:
        _make(path)
    except FileExistsError:
        pass  # another forwarder was faster
    except OSError as error:
        return passing(f"{path} cannot be written: {(error.strerror or str(error)).lower()}")
    else:
        return read(path)._replace(origin=f"{path}, made now")
    try:
        return read(path)
    except FileNotFoundError:
        raise SecretError(
            f"{path} is a link to nothing: delete it, and the next start makes the file"
        ) from None


def look(path: Path | None) -> str:
    """What `open_secret` would give, without making anything. Raises SecretError as it does."""
    if path is None:
        return str(passing(EMPTY)).partition(", ")[2]
    try:
        return str(read(path))
    except FileNotFoundError:
        return f"{path}, to be made by the first start"


def passing(why: str) -> Secret:
    """One that nobody else has and that ends with the process."""
    return Secret(secrets.token_bytes(32), f"this run only ({why})", False)


def read(path: Path) -> Secret:
    """Raises FileNotFoundError if there is no such file, SecretError if there is one that will not
    do."""
    try:
        # Not blocking: a named pipe would be waited for.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SecretError(
            f"{path}: {(error.strerror or str(error)).lower()}; let this user read it"
        ) from None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise SecretError(f"{path} is not a file; name one in forwarder.secret.file")
        fault = exposed(path, status)
        if fault:
            raise SecretError(fault)
        text = os.read(handle, MOST).strip()
    finally:
        os.close(handle)
    if len(text) < LEAST:
        raise SecretError(
            f"{path} holds less than {LEAST} characters: delete it, and the next start makes a "
            "good one"
        )
    return Secret(hashlib.sha256(text).digest(), str(path), True)


def _make(path: Path) -> None:
    """All of it or nothing, and never over one that is there: two forwarders may start at the same
    moment."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
    try:
        with open(handle, "w", encoding="ascii") as opened:
            opened.write(secrets.token_hex(32) + "\n")
            opened.flush()
            os.fsync(handle)
        os.link(draft, path)
    finally:
        os.unlink(draft)
