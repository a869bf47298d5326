"""What a failover costs whoever calls: this forwarder beside Kamailio, under the same load, in one run.

    python benchmarks/failover.py [--runs 5] [--rate 1000] [--port 21900] [--only NAME ...] [--json]

Needs Python alone; Kamailio is measured where it is installed (Debian: apt install kamailio; its settings are in
benchmarks/kamailio/). Everything stays on 127.0.0.1. A run takes twenty seconds a forwarder: requests at a steady rate
while the first server is killed; is frozen and thawed; both are killed and started again. Medians [least..most] are
printed.
"""

from __future__ import annotations

import argparse
import glob
import json
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from benchmarks.load import Address, Load, Server, gap, lost, repeated, stale  # noqa: E402  # as a script, from anywhere

Figures = dict[str, float | None]
ROWS = (
    ("kill.gap", "kill -9: longest time without an answer, ms"),
    ("kill.repeated", "kill -9: requests that had to be retransmitted"),
    ("kill.lost", "kill -9: requests never answered"),
    ("stop.gap", "SIGSTOP: longest time without an answer, ms"),
    ("stop.repeated", "SIGSTOP: requests that had to be retransmitted"),
    ("stop.lost", "SIGSTOP: requests never answered"),
    ("stop.stale", "SIGCONT: stale messages of the thawed server"),
    ("both.refused", "both down: first 503 after, ms"),
    ("both.unanswered", "both down: requests that got no answer at all"),
    ("both.back", "both back: first answer after, ms"),
)
MODULES = ("/usr/lib/*/kamailio/modules", "/usr/lib/kamailio/modules", "/usr/lib64/kamailio/modules")
START = 10.0  # seconds that a forwarder may take to answer its first request
SETTLE = 1.2  # seconds for each to have asked both servers


# -- the forwarders ---------------------------------------------------------------------------------------------------


def ours(listen: Address, servers: list[Server], folder: Path) -> list[str]:
    """Its command, with its default settings."""
    lines = [f"forwarder.listen={_text(listen)}", "admin.listen="]
    lines += [f"{server.name}={_text(server.address)}" for server in servers]
    (folder / "servers.properties").write_text("\n".join(lines))
    return [sys.executable, "-S", str(HERE.parent / "forwarder.py"), str(folder / "servers.properties")]


def kamailio(config: str) -> Callable[[Address, list[Server], Path], list[str]]:
    def command(listen: Address, servers: list[Server], folder: Path) -> list[str]:
        text = (HERE / "kamailio" / config).read_text()
        modules = next(found for pattern in MODULES for found in glob.glob(pattern))
        known = {"LISTEN": _text(listen), "FOLDER": str(folder), "MODULES": modules}
        known |= {server.name.upper(): _text(server.address) for server in servers}
        for word, value in known.items():
            text = text.replace(f"@{word}@", value)
        (folder / config).write_text(text)
        weights = [f"1 sip:{_text(server.address)} 0 {10 - n}\n" for n, server in enumerate(servers)]
        (folder / "servers.list").write_text("".join(weights))
        # -x fm: with Debian's default memory manager it runs at half speed.
        return ["kamailio", "-DD", "-E", "-f", str(folder / config), "-x", "fm", "-X", "fm", "-m", "256", "-M", "16",
                "-w", str(folder), "-Y", str(folder), "-P", str(folder / "pid")]  # fmt: skip

    return command


PEERS: dict[str, Callable[[Address, list[Server], Path], list[str]]] = {
    "forwarder": ours,
    "kamailio dispatcher": kamailio("dispatcher.cfg"),
    "kamailio fast": kamailio("fast.cfg"),
}


def _text(address: Address) -> str:
    return f"{address[0]}:{address[1]}"


@contextmanager
def scene(name: str, port: int) -> Iterator[tuple[Address, list[Server]]]:
    """(its address, two servers), once a request has been answered."""
    listen = ("127.0.0.1", port)
    servers = [Server(f"server{n}", ("127.0.0.1", port + n)) for n in (1, 2)]
    with ExitStack() as ending:
        folder = Path(ending.enter_context(tempfile.TemporaryDirectory()))
        for server in servers:
            ending.callback(server.stop)
            server.start()
        log = ending.enter_context((folder / "log").open("wb"))
        argv = PEERS[name](listen, servers, folder)
        process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=HERE.parent)
        ending.callback(_end, process)
        deadline = time.monotonic() + START
        while lost(Load(listen, 10).run(0.05, patience=0.2)):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} does not answer: {(folder / 'log').read_text(errors='replace')[-500:]}")
        time.sleep(SETTLE)
        yield listen, servers


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# -- what is done to their servers ------------------------------------------------------------------------------------


def killed(listen: Address, servers: list[Server], rate: float) -> Figures:
    load = Load(listen, rate)
    asked = load.run(2.5, [(0.5, servers[0].kill)], patience=2.0)
    return {
        "kill.gap": gap(asked, load.began + 0.45, load.began + 2.5) * 1000,
        "kill.repeated": repeated(asked),
        "kill.lost": lost(asked),
    }


def frozen(listen: Address, servers: list[Server], rate: float) -> Figures:
    load = Load(listen, rate)
    asked = load.run(3.0, [(0.5, servers[0].freeze), (2.0, servers[0].thaw)], patience=2.0)
    return {
        "stop.gap": gap(asked, load.began + 0.45, load.began + 2.0) * 1000,
        "stop.repeated": repeated(asked),
        "stop.lost": lost(asked),
        "stop.stale": stale(asked, load.began + 2.0, servers[0].name),
    }


def both(listen: Address, servers: list[Server], rate: float) -> Figures:
    load = Load(listen, rate)
    asked = load.run(4.5, [(0.5, lambda: [server.kill() for server in servers]),
                           (2.0, lambda: [server.restart() for server in servers])], patience=0.5)  # fmt: skip
    down, back = load.began + 0.5, load.began + 2.0
    refused = [at for one in asked for at, status, _ in one.answers if status == 503 and down <= at < back]
    served = [at for one in asked for at, status, _ in one.answers if status < 300 and at >= back]
    return {
        "both.refused": (min(refused) - down) * 1000 if refused else None,
        "both.unanswered": sum(not one.answers for one in asked if down <= one.sent < back),
        "both.back": (min(served) - back) * 1000 if served else None,
    }


def measure(name: str, port: int, rate: float) -> Figures:
    figures: Figures = {}
    for play in (killed, frozen, both):
        with scene(name, port) as (listen, servers):
            figures |= play(listen, servers, rate)
    return figures


# -- the table --------------------------------------------------------------------------------------------------------


def cell(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "never"
    never = f", {len(values) - len(known)}x never" if len(known) < len(values) else ""
    return f"{statistics.median(known):.0f} [{min(known):.0f}..{max(known):.0f}{never}]"


def table(results: dict[str, list[Figures]]) -> str:
    rows = [["", *results]]
    rows += [[text, *(cell([run[key] for run in runs]) for runs in results.values())] for key, text in ROWS]
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def available() -> list[str]:
    return [name for name in PEERS if not name.startswith("kamailio") or shutil.which("kamailio")]


def free(port: int) -> None:
    """Raises OSError where a port that is needed is taken."""
    for n in range(3):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", port + n))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, choices=range(1, 101), metavar="N", help="1 to 100 (default 5)")
    rates = range(10, 5001)
    parser.add_argument("--rate", type=int, default=1000, choices=rates, metavar="N", help="requests a second")
    parser.add_argument("--port", type=int, default=21900, help="this one and the two after it are used")
    parser.add_argument("--only", nargs="+", choices=list(PEERS), metavar="NAME", help=", ".join(PEERS))
    parser.add_argument("--json", action="store_true", help="print everything measured as one JSON object")
    options = parser.parse_args()
    names = options.only or available()
    try:
        free(options.port)
        results: dict[str, list[Figures]] = {name: [] for name in names}
        for run in range(options.runs):
            for name in names:
                print(f"run {run + 1} of {options.runs}: {name}", file=sys.stderr)
                results[name].append(measure(name, options.port, options.rate))
    except (OSError, RuntimeError, StopIteration) as error:
        print(f"cannot measure: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps({"rate": options.rate, "runs": options.runs, "python": platform.python_version(),
                          "results": results}))  # fmt: skip
        return 0
    print(f"{options.rate} requests a second, {options.runs} runs; median [least..most]\n")
    print(table(results))
    if not shutil.which("kamailio"):
        print("\nKamailio is not installed (Debian: apt install kamailio), so there is nothing to compare with.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
