"""Calls through everything: SIPp's phones, the forwarder, two mock SLEE servers with one store, and
a kill -9.

    python -m benchmarks.calls [--rate 200] [--seconds 60] [--talk 3] [--calm] [--port 22900]
    [--json]

A registered phone is called at a steady rate; half-way server1 is killed, and a twelfth of the time
later started again. Afterwards each bill in the store is held against the time that SIPp's caller
talked. Exit status 1 if a call was lost or a bill is missing or wrong; 2 if it could not be
measured. Needs SIPp (Debian: apt install sip-tester) and nothing else beyond Python; everything
stays on 127.0.0.1.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.command import Parser, free, print_json
from plumbing.address import parse_address
from slee_mock.services.bill_record import Bill, total_at
from slee_mock.store.interface import Transaction
from slee_mock.store.sqlite_store import SqliteStore

ROOT = Path(__file__).resolve().parent.parent
PHONES = Path(__file__).resolve().parent / "phones"
DOMAIN = "failover.test"
SETUP, PRICE, UNIT = Decimal("0.10"), Decimal("0.05"), 10  # what a call costs, recomputed here
# seconds a bill may differ from what the caller talked: T1, for a message that has to be said again
SLACK = 0.5
RETURN = 12  # server1 comes back a so many-th of the time after it was killed
PORTS = (
    "forwarder",
    "admin",
    "server1",
    "server2",
    "callee",
    "caller",
    "callee control",
    "caller control",
)
WAIT = 15.0  # seconds for programs to start, and beyond the last call for it to end


class Talk(NamedTuple):
    """A call as its caller saw it: wall seconds of the 200 and of its BYE."""

    call_id: str
    answered: float
    ended: float

    @property
    def seconds(self) -> float:
        return self.ended - self.answered


@dataclass
class Result:
    """`gap`: the longest time in which no call was answered. CPU in milliseconds a call."""

    placed: int
    completed: int
    failed: int
    bills: int
    missing: int
    wrong: list[str]
    off: float  # the largest difference between a bill's seconds and the talk's
    retransmissions: int
    gap: float
    failovers: list[str]
    cpu: dict[str, float]

    @property
    def good(self) -> bool:
        return self.completed == self.placed == self.bills and not (
            self.failed or self.missing or self.wrong
        )


# -- the programs ----------------------------------------------------------------------------------


class Program:
    """One process, its output in a file. `cpu`: seconds it has used, known once it has ended."""

    def __init__(self, name: str, argv: list[str], folder: Path) -> None:
        self.name, self.log, self.cpu = name, folder / f"{name}.log", 0.0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                argv,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "TERM": "dumb"},
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def running(self) -> bool:
        return self._process.returncode is None and not self._reap(os.WNOHANG)

    def kill(self) -> None:
        if self.running():
            self._process.send_signal(signal.SIGKILL)
            self._reap(0)

    def stop(self) -> None:
        if self.running():
            self._process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + 5.0
            while self.running() and time.monotonic() < deadline:
                time.sleep(0.02)
            self.kill()

    def _reap(self, options: int) -> bool:
        pid, status, usage = os.wait4(self._process.pid, options)
        if pid:
            self._process.returncode = os.waitstatus_to_exitcode(status)
            self.cpu = usage.ru_utime + usage.ru_stime
        return bool(pid)


def server_argv(name: str, listen: str, forwarder: str, store: Path) -> list[str]:
    """The command of a mock SLEE server without management pages."""
    addresses = ["--listen", listen, "--forwarder", forwarder]
    argv = [sys.executable, "-S", "-m", "slee_mock", "--name", name, *addresses]
    return [*argv, "--store", str(store), "--management", ""]


class Scene:
    """All programs of one run, on ports that follow each other."""

    def __init__(self, port: int, folder: Path) -> None:
        self.folder = folder
        self.at = {name: f"127.0.0.1:{port + n}" for n, name in enumerate(PORTS)}
        self.programs: list[Program] = []

    def stop(self) -> None:
        for program in reversed(self.programs):
            program.stop()

    def start(self, name: str, argv: list[str]) -> Program:
        program = Program(name, argv, self.folder)
        self.programs.append(program)
        return program

    def forwarder(self) -> None:
        file = self.folder / "servers.properties"
        lines = [f"forwarder.listen={self.at['forwarder']}", f"admin.listen={self.at['admin']}"]
        lines += [f"{name}={self.at[name]}" for name in ("server1", "server2")]
        # a source is one phone elsewhere, here it is thousands
        file.write_text("\n".join([*lines, "limit.rate=0"]))
        self.start("forwarder", [sys.executable, "-S", str(ROOT / "forwarder.py"), str(file)])

    def server(self, name: str) -> Program:
        store = self.folder / "cluster.db"
        argv = server_argv(name, self.at[name], self.at["forwarder"], store)
        return self.start(name, [*argv, "--tariff", f"{SETUP}+{PRICE}/{UNIT}s"])

    def phone(self, name: str, *more: str) -> Program:
        options = {
            "-sf": PHONES / f"{name}.xml",
            "-i": "127.0.0.1",
            "-mi": "127.0.0.1",
            "-ci": "127.0.0.1",
            "-p": self.at[name].rpartition(":")[2],
            "-cp": self.at[f"{name} control"].rpartition(":")[2],
            "-s": "bob",
            "-rtcheck": "loose",
            "-buff_size": 4 << 20,
            "-stf": self.folder / f"{name}.csv",
            "-fd": 1,
            "-error_file": self.folder / f"{name}.errors",
        }
        words = [str(word) for option in options.items() for word in option]
        words += ["-key", "domain", DOMAIN, "-nostdin", "-trace_stat", "-trace_err", *more]
        return self.start(name, ["sipp", self.at["forwarder"], *words])

    def ask(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://{self.at['admin']}{path}", timeout=5) as answer:
            return json.load(answer)

    def up(self) -> bool:
        try:
            return all(server["state"] == "UP" for server in self.ask("/status")["servers"])
        except OSError:
            return False

    def register(self) -> bool:
        """The called phone, by a word for it from a socket of our own. True once that is
        answered."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0.5)
            sock.connect(parse_address(self.at["forwarder"]))
            own = "{}:{}".format(*sock.getsockname())
            aor = f"sip:bob@{DOMAIN}"
            sock.send(
                (
                    f"REGISTER sip:{DOMAIN} SIP/2.0\r\nVia: SIP/2.0/UDP "
                    f"{own};branch=z9hG4bK{time.time_ns()}\r\n"
                    f"Max-Forwards: 70\r\nFrom: <{aor}>;tag=r\r\nTo: <{aor}>\r\nCall-ID: "
                    f"register@{own}\r\n"
                    f"CSeq: 1 REGISTER\r\nContact: <sip:bob@{self.at['callee']}>\r\n"
                    "Content-Length: 0\r\n\r\n"
                ).encode()
            )
            try:
                return sock.recv(65_535).startswith(b"SIP/2.0 200 ")
            except OSError:
                return False

    def figures(self, name: str) -> dict[str, str]:
        """The last of what a SIPp counts each second."""
        file = self.folder / f"{name}.csv"
        rows = (
            list(csv.reader(file.read_text().splitlines(), delimiter=";")) if file.exists() else []
        )
        return dict(zip(rows[0], rows[-1], strict=False)) if len(rows) > 1 else {}


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: not within {seconds:g} s")
        time.sleep(0.05)


# -- the run ---------------------------------------------------------------------------------------


def play(scene: Scene, options: argparse.Namespace) -> Result:
    scene.forwarder()
    servers = [scene.server(name) for name in ("server1", "server2")]
    wait_until(scene.up, WAIT, "forwarder and servers are up")
    scene.phone("callee")
    wait_until(scene.register, WAIT, "a phone is registered")
    calls, half = options.rate * options.seconds, options.seconds / 2
    caller = scene.phone(
        "caller",
        "-r",
        str(options.rate),
        "-m",
        str(calls),
        "-l",
        str(options.rate * (options.talk + 40)),
        "-d",
        str(options.talk * 1000),
        "-trace_logs",
        "-log_file",
        str(scene.folder / "talks"),
    )
    began = time.monotonic()
    if not options.calm:
        time.sleep(half)
        servers[0].kill()
        time.sleep(max(0.0, began + half + options.seconds / RETURN - time.monotonic()))
        scene.server("server1")
    patience = options.seconds + options.talk + WAIT - (time.monotonic() - began)
    wait_until(lambda: not caller.running(), patience + WAIT, "the last call ends")
    failovers = [f"{each['from']} ({each['noticed']})" for each in scene.ask("/failovers")]
    scene.stop()
    return judge(scene, failovers)


def judge(scene: Scene, failovers: list[str]) -> Result:
    caller, callee = scene.figures("caller"), scene.figures("callee")
    talks = read_talks(scene.folder / "talks")
    bills = read_bills(str(scene.folder / "cluster.db"))
    placed = int(caller["OutgoingCall(C)"])
    answered = sorted(talk.answered for talk in talks)
    cpu: dict[str, float] = {}
    for program in scene.programs:
        cpu[program.name] = cpu.get(program.name, 0.0) + program.cpu * 1000 / placed
    return Result(
        placed=placed,
        completed=len(talks),
        failed=int(caller["FailedCall(C)"]),
        bills=len(bills),
        missing=sum(talk.call_id not in bills for talk in talks),
        wrong=[
            fault
            for talk in talks
            if talk.call_id in bills and (fault := wrong(bills[talk.call_id], talk))
        ],
        off=max(
            (abs(_billed(bills[t.call_id]) - t.seconds) for t in talks if t.call_id in bills),
            default=0.0,
        ),
        retransmissions=int(caller["Retransmissions(C)"]) + int(callee["Retransmissions(C)"]),
        gap=max((after - before for before, after in pairwise(answered)), default=0.0),
        failovers=failovers,
        cpu=cpu,
    )


def read_talks(file: Path) -> list[Talk]:
    talks = []
    for line in file.read_text().splitlines() if file.exists() else []:
        call_id, *numbers = line.split()
        answered, answered_us, ended, ended_us = map(float, numbers)
        talks.append(Talk(call_id, answered + answered_us / 1e6, ended + ended_us / 1e6))
    return talks


def read_bills(path: str) -> dict[str, Bill]:
    store = SqliteStore(path)
    try:
        return {bill.call_id: bill for bill in Transaction(store).scan(Bill)}
    finally:
        store.close()


def _billed(bill: Bill) -> float:
    """Seconds; far from any talk's where the bill has no beginning or no end."""
    return (
        bill.ended - bill.answered
        if bill.answered is not None and bill.ended is not None
        else float("inf")
    )


def wrong(bill: Bill, talk: Talk) -> str:
    """The fault of a bill in a sentence; "" if it has none."""
    told = total_at(bill, time.time())
    if not told.final or abs(_billed(bill) - talk.seconds) > SLACK:
        return (
            f"{bill.call_id}: billed {_billed(bill):.3f} s ({told.state}), talked "
            f"{talk.seconds:.3f} s"
        )
    if Decimal(told.total) not in (cost(talk.seconds - SLACK), cost(talk.seconds + SLACK)):
        return f"{bill.call_id}: billed {told.total}, talked {talk.seconds:.3f} s"
    if sum(seconds for _, seconds in told.carried) != told.seconds:
        return (
            f"{bill.call_id}: the servers' shares {told.carried} are not the call's {told.seconds} "
            "s"
        )
    return ""


def cost(seconds: float) -> Decimal:
    return SETUP + max(1, -int(-seconds // UNIT)) * PRICE


# -- what is told ----------------------------------------------------------------------------------


def text(result: Result, options: argparse.Namespace) -> str:
    lines = [
        f"{options.rate} calls/s for {options.seconds} s, each {options.talk} s long, "
        + ("nobody killed" if options.calm else "server1 killed half-way and back later"),
        f"calls                    {result.placed} placed, {result.completed} completed, "
        f"{result.failed} failed",
        f"bills                    {result.bills}, {result.missing} missing, {len(result.wrong)} "
        "wrong; "
        f"largest error {result.off * 1000:.0f} ms",
        f"messages said again      {result.retransmissions} by the phones",
        f"longest gap              {result.gap * 1000:.0f} ms without an answered call",
        f"failovers                {', '.join(result.failovers) or 'none'}",
        "CPU a call               "
        + ", ".join(f"{name} {ms:.2f} ms" for name, ms in result.cpu.items()),
    ]
    return "\n".join([*lines, *(f"wrong: {fault}" for fault in result.wrong[:10])])


def parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(__doc__, 22900, f"the {len(PORTS) - 1} after it")
    parser.number("--rate", 200, 1000, "calls a second")
    parser.number("--seconds", 60, 600, "how long", least=4)
    parser.number("--talk", 3, 120, "seconds a call lasts")
    parser.add_argument("--calm", action="store_true", help="kill nobody")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    options = parse(argv)
    if not shutil.which("sipp"):
        print(
            "cannot measure: SIPp is not installed (Debian: apt install sip-tester)",
            file=sys.stderr,
        )
        return 2
    try:
        free(options.port, len(PORTS))
        with ExitStack() as ending:
            folder = Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="calls-")))
            scene = Scene(options.port, folder)
            ending.callback(scene.stop)
            result = play(scene, options)
    except (OSError, RuntimeError, KeyError) as error:
        print(f"cannot measure: {error}", file=sys.stderr)
        return 2
    if options.json:
        print_json(options, good=result.good, **asdict(result))
    else:
        print(text(result, options))
    return 0 if result.good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
