"""The crash sweep's stage of real processes: the forwarder, two servers with one store, phones on
real sockets.

Every cell has a cluster and a loopback address of its own, so that several can be played at the
same time. The first server is started with the fault (faulty_server.py) and dies by SIGKILL; all
others are the programs as they are.
"""

from __future__ import annotations

import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from outage_sweep_kit import Plan, plans, strike_both
from process_kit import FORWARDER, Process, server_argv
from sweep_kit import (
    KILLED,
    PASSWORDS,
    RECEIVED,
    Cell,
    Fault,
    Flow,
    Handset,
    faults,
    moved,
    play_calmly,
    strike,
)

from plumbing.address import format_address
from slee_mock.cluster.cluster_clock import steady_clock
from slee_mock.services.bill_record import Bill
from slee_mock.services.bindings_record import Bindings
from slee_mock.store.interface import Transaction
from slee_mock.store.records import ClockOffset
from slee_mock.store.sqlite_store import SqliteStore
from softphone.phone import Phone
from softphone.ua.account import Account

FAULTY_SERVER = Path(__file__).with_name("faulty_server.py")
PATIENCE = 20.0  # seconds until something counts as lost
QUIET = 0.2  # seconds, four heartbeats
ABREAST = 4  # cells at the same time: they wait more than they work


class _RealHandset(Handset):
    def __init__(self, phone: Phone, events: list[Any]) -> None:
        super().__init__(phone.account.user, phone.address, events)
        self._phone = phone

    def does(self, wish: str) -> None:
        getattr(self._phone, wish)()

    def calls(self, target: str) -> None:
        self._phone.call(target)

    def answers(self) -> None:
        self._phone.answer()


def _wait_until_ready(programs: list[Process]) -> None:
    try:
        for program in programs:
            program.wait_until_ready()
    except AssertionError as error:  # no lost call, but the end of the sweep
        raise RuntimeError(str(error)) from error


class ProcessStage:
    """Entered, everything runs and listens."""

    talk = 0.3

    def __init__(self, flow: Flow, fault: Fault | None = None, _seed: int | None = None) -> None:
        self._flow, self._fault = flow, fault
        # Linux answers on all of 127/8.
        self._host = (
            f"127.{random.randrange(16, 250)}.{random.randrange(256)}.{random.randrange(1, 255)}"
        )
        self._stack = ExitStack()
        self._told: list[list[Any]] = []
        self.handsets: dict[str, Handset] = {}

    def __enter__(self) -> ProcessStage:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            self._folder, self._store = folder, folder / "cluster.db"
            servers = [self._server(stack, folder, number, self._fault) for number in (1, 2)]
            self._first, self._second = servers
            _wait_until_ready(servers)  # so that the forwarder finds both, and the first is hot
            _wait_until_ready([self._forwarder(stack, folder)])
            for user in ("alice", "bob", *self._flow.others):
                self.handsets[user] = self._phone(stack, user)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _server(
        self, stack: ExitStack, folder: Path, number: int, fault: Fault | None = None
    ) -> Process:
        fault = fault if number == 1 else None
        point = "received" if fault and fault.point == RECEIVED else "saved"
        users: list[str] = []
        if self._flow.users:
            (folder / "users").write_text(
                "".join(f"{user}:{word}\n" for user, word in PASSWORDS.items())
            )
            users = ["--users", str(folder / "users")]
        argv = server_argv(
            f"server{number}",
            format_address((self._host, 5060 + 10 * number)),
            format_address((self._host, 5060)),
            self._store,
            "",
            *users,
            program=(FAULTY_SERVER, fault.number if fault else 0, point),
        )
        return self._started(stack, f"server{number}", argv)

    def _forwarder(self, stack: ExitStack, folder: Path) -> Process:
        lines = [f"server{number}={self._host}:{5060 + 10 * number}" for number in (1, 2)]
        # A killed server's port refuses; where many cells share a computer, the others may well
        # answer late.
        lines += [f"forwarder.listen={self._host}:5060", "admin.listen=", "heartbeat.fall=40"]
        (folder / "servers.properties").write_text("\n".join(lines))
        return self._started(stack, "forwarder", [*FORWARDER, str(folder / "servers.properties")])

    def _started(self, stack: ExitStack, name: str, argv: Sequence[str]) -> Process:
        process = Process(name, argv, self._folder / f"{name}.log")
        stack.callback(process.stop)
        return process

    def _phone(self, stack: ExitStack, user: str) -> Handset:
        events: list[Any] = []
        self._told.append(events)
        password = PASSWORDS.get(user, "") if self._flow.users else ""
        account = Account(user, "failover.test", password, user.capitalize())
        phone = Phone(account, (self._host, 5060), (self._host, 0), events.append, register=False)
        phone.start()
        stack.callback(phone.stop)
        return _RealHandset(phone, events)

    @property
    def now(self) -> float:
        return time.monotonic()

    def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = self.now + PATIENCE
        while not condition():
            if self.now > deadline:
                raise AssertionError(f"never came about: {what}")
            time.sleep(0.001)

    def wait(self, seconds: float) -> None:
        """People talk."""
        time.sleep(seconds)

    def settle(self) -> None:
        """What the first server took with it has been sent on when it was noticed to be gone,
        within a heartbeat."""
        told, since = -1, self.now

        def is_quiet() -> bool:
            nonlocal told, since
            count = sum(len(events) for events in self._told)
            if count != told:
                told, since = count, self.now
            return self.now - since > QUIET

        self.until(is_quiet, "silence")

    def bills(self) -> list[Bill]:
        bills, (anchor,) = self._ask(lambda each: (each.scan(Bill), each.scan(ClockOffset)))
        # The least that passes between the two readings: this thread may be made to wait in
        # between.
        ahead = max(steady_clock() - self.now for _ in range(10))
        return [moved(bill, anchor.offset + ahead) for bill in bills]

    def live(self, user: str) -> int:
        known = self._ask(
            lambda transaction: transaction.read(Bindings, f"sip:{user}@failover.test")
        )
        return len(known.live(time.time())) if known else 0

    def _ask(self, question: Callable[[Transaction], Any]) -> Any:
        store = SqliteStore(str(self._store))
        try:
            return question(Transaction(store))
        finally:
            store.close()

    def handled(self) -> list[str]:
        self._first.stop()
        lines = self._first.said.splitlines()
        return [line.removeprefix("given ") for line in lines if line.startswith("given ")]

    def demand(self, fault: Fault, bill_error: float) -> None:
        given = self.handled()
        died = self._first.status == -signal.SIGKILL and len(given) == fault.number
        if not died:
            raise AssertionError(
                f"the server was given {len(given)} messages and did not die of the last"
            )


class ProcessOutage(ProcessStage):
    """The second server is killed when the first has died of the fault; both can be started
    anew."""

    def __init__(self, flow: Flow, fault: Fault | None = None, _seed: int | None = None) -> None:
        super().__init__(flow, fault)
        self._struck_at: float | None = None

    def struck_at(self) -> float | None:
        if self._struck_at is None and self._first.status is not None:
            self._second.kill()
            self._struck_at = self.now
        return self._struck_at

    def revive(self, both: bool) -> None:
        for number in (1, 2) if both else (2,):
            self._server(self._stack, self._folder, number)


def sweep_process_outages(**which: Any) -> Iterator[Cell]:
    """Both servers die and come back, as real processes; `which` as of `plans`."""

    def strike_one(plan: Plan) -> Cell:
        return strike_both(plan, None, ProcessOutage, patience=4.0, giving_up=45.0)

    with ThreadPoolExecutor(ABREAST) as pool:
        yield from pool.map(strike_one, list(plans(**which)))


def sweep_processes(flows: Sequence[Flow]) -> Iterator[Cell]:
    """All cells of these flows, several at the same time."""
    with ThreadPoolExecutor(ABREAST) as pool:
        calms = list(pool.map(lambda flow: play_calmly(flow, None, ProcessStage), flows))
        jobs = [
            (flow, calm, fault)
            for flow, calm in zip(flows, calms, strict=True)
            for fault in faults(flow, calm, [KILLED])
        ]
        yield from pool.map(lambda job: strike(job[0], job[2], job[1], None, ProcessStage), jobs)
