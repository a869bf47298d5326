"""Deployment: the SBBs that a server runs, in their priority; the built-in ones, and those that
`--deploy NAME:ARGUMENT` names.

A deployable unit is one module NAME with a function `deploy(context, argument)` that returns an
SBB. docs/slee.txt shows how to write one.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from slee_mock.container.sbb import Sbb
from slee_mock.services.authentication import DIGEST, DigestAuthentication
from slee_mock.services.billing import Billing
from slee_mock.services.call_control import CallControl
from slee_mock.services.registrar import Registrar
from slee_mock.services.session_timer import SessionTimers
from slee_mock.sip_adaptor import LocalResponses

Deploy = Callable[["Context", str], Sbb]
# of this project, searched after the working folder and PYTHONPATH
EXAMPLES = str(Path(__file__).resolve().parents[2] / "examples" / "services")


class DeployError(ValueError):
    """A service cannot be deployed. The text says which, and what to do."""


@dataclass(frozen=True)
class Context:
    """The part of its server and cluster that an SBB may know."""

    server: str  # its name
    address: str  # where other members and the forwarder reach it
    key: bytes  # the cluster's
    tariff: str
    currency: str
    users: Mapping[str, str] | None = None  # passwords; None: nobody is asked for one
    realm: str = ""
    digest: tuple[str, ...] = DIGEST
    session_expires: int = 1800  # seconds; 0: sessions do not expire
    deploy: tuple[str, ...] = ()  # NAME:ARGUMENT each
    server_header: bool = False  # answers tell version and server to whoever asks

    @cached_property
    def answers(self) -> LocalResponses:
        return LocalResponses(self.key, self.server if self.server_header else "")


def install(context: Context) -> list[Sbb]:
    """Makes the SBBs of a server, the first one with the highest priority: deployed ones come after
    the registrar, and before call control and billing. Raises DeployError."""
    answers, key, users = context.answers, context.key, context.users
    sbbs: list[Sbb] = []
    if users is not None:
        sbbs.append(DigestAuthentication(answers, key, users, context.realm, context.digest))
    sbbs.append(Registrar(answers, context.server))
    sbbs += [_deployed(each, context) for each in context.deploy]
    realm, timers = context.realm if users else "", SessionTimers(context.session_expires)
    names = None if users is None else frozenset(users)
    sbbs.append(CallControl(answers, key, context.address, names, realm, timers))
    sbbs.append(Billing(context.server, context.tariff, context.currency))
    return sbbs


def load(wish: str) -> Deploy:
    """Imports the module NAME of `NAME:ARGUMENT` and returns its function `deploy`. Raises
    DeployError."""
    name = wish.partition(":")[0]
    if not all(part.isidentifier() for part in name.split(".")):
        raise DeployError(f"'{wish}' is not NAME:ARGUMENT, as in prepaid:balances.txt")
    if EXAMPLES not in sys.path:
        sys.path.append(EXAMPLES)  # last: a file of the user's comes first
    try:
        found = getattr(importlib.import_module(name), "deploy", None)
    except (Exception, SystemExit) as error:  # of the user's file, whatever is wrong with it
        if isinstance(error, ModuleNotFoundError) and error.name == name.partition(".")[0]:
            raise DeployError(
                f"there is no service '{name}': no file {name}.py in this folder, where PYTHONPATH "
                "says or in examples/services"
            ) from None
        raise DeployError(
            f"{name} cannot be read: {type(error).__name__}: {error}; mend it"
        ) from error
    if not callable(found):
        raise DeployError(
            f"{name} is not a service to deploy: it has no function deploy(context, argument)"
        )
    deploy: Deploy = found
    return deploy


def _deployed(wish: str, context: Context) -> Sbb:
    deploy = load(wish)
    name, _, argument = wish.partition(":")
    try:
        service = deploy(context, argument)
    except (ValueError, OSError) as error:
        raise DeployError(f"{name}: {error}") from error
    except (Exception, SystemExit) as error:  # of the user's file again
        raise DeployError(
            f"{name}: its deploy() raises {type(error).__name__}: {error}; mend it"
        ) from error
    lacking = [each for each in ("name", "events", "handle") if not hasattr(service, each)]
    if lacking:
        raise DeployError(
            f"{name}: what its deploy() returns is no service: it has no {' and no '.join(lacking)}"
        )
    return service
