"""Which services a server runs, in their order of priority: the built-in ones and those it is told
to deploy.

A deployed service is one module with a function `deploy(context, argument) -> Service`; `argument`
is the text behind the colon of `--deploy name:argument`. docs/slee.txt shows how to write one.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from slee_mock.container.sbb import Sbb
from slee_mock.services.authentication import DIGEST, DigestAuthentication
from slee_mock.services.billing import Billing
from slee_mock.services.call_control import CallControl
from slee_mock.services.registrar import Registrar
from slee_mock.services.session_timer import SessionTimers
from slee_mock.sip_adaptor import LocalResponses

Deploy = Callable[["Context", str], Sbb]
NO_DEPLOY = "{} is not a service to deploy: it has no function deploy(context, argument)"


class DeployError(ValueError):
    """A service cannot be deployed. The text says which and what to do."""


@dataclass(frozen=True)
class Context:
    """What a service may know of the server it runs on, and of its cluster."""

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
    answers: LocalResponses = field(init=False)

    def __post_init__(self) -> None:
        name = self.server if self.server_header else ""
        object.__setattr__(self, "answers", LocalResponses(self.key, name))


def install(context: Context) -> list[Sbb]:
    """Deployed services see requests after gate and registrar and before the proxy, and what the
    proxy tells of its calls before billing does. Raises DeployError."""
    users = None if context.users is None else frozenset(context.users)
    services: list[Sbb] = (
        []
        if context.users is None
        else [
            DigestAuthentication(
                context.answers, context.key, context.users, context.realm, context.digest
            )
        ]
    )
    return [
        *services,
        Registrar(context.answers, context.server),
        *(_deployed(each, context) for each in context.deploy),
        CallControl(
            context.answers,
            context.key,
            context.address,
            users,
            context.realm if context.users else "",
            SessionTimers(context.session_expires),
        ),
        Billing(context.server, context.tariff, context.currency),
    ]


def find(wish: str) -> Deploy:
    """The function behind `NAME:ARGUMENT`: of slee_mock/services/NAME.py, or of any module of that
    name. Raises DeployError."""
    name = wish.partition(":")[0]
    if not all(part.isidentifier() for part in name.split(".")):
        raise DeployError(f"'{wish}' is not NAME:ARGUMENT, as in prepaid:balances.txt")
    ours = (
        f"slee_mock.services.{name}"
        if "." not in name and importlib.util.find_spec(f"slee_mock.services.{name}")
        else ""
    )
    if ours and hasattr(importlib.import_module(ours), "deploy"):
        module = ours
    # what else is in slee_mock/services deploys nothing, and does not hide a user's file of its
    # name
    else:
        module = name
    try:
        found = getattr(importlib.import_module(module), "deploy", None)
    except (Exception, SystemExit) as error:  # a stranger's file: whatever is wrong with it
        if isinstance(error, ModuleNotFoundError) and error.name == name.partition(".")[0]:
            if ours:
                raise DeployError(NO_DEPLOY.format(ours)) from None
            raise DeployError(
                f"there is no service '{name}': neither slee_mock/services/{name}.py nor a file "
                f"{name}.py in this folder or where PYTHONPATH says"
            ) from None
        raise DeployError(
            f"{name} cannot be read: {type(error).__name__}: {error}; mend it"
        ) from error
    if not callable(found):
        raise DeployError(NO_DEPLOY.format(module))
    deploy: Deploy = found
    return deploy


def _deployed(wish: str, context: Context) -> Sbb:
    deploy = find(wish)
    name, _, argument = wish.partition(":")
    try:
        service = deploy(context, argument)
    except (ValueError, OSError) as error:
        raise DeployError(f"{name}: {error}") from error
    except (Exception, SystemExit) as error:  # a stranger's file again
        raise DeployError(
            f"{name}: its deploy() raises {type(error).__name__}: {error}; mend it"
        ) from error
    lacking = [each for each in ("name", "events", "handle") if not hasattr(service, each)]
    if lacking:
        raise DeployError(
            f"{name}: what its deploy() returns is no service: it has no {' and no '.join(lacking)}"
        )
    return service
