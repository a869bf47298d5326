"""The programs that are measured: this forwarder, and Kamailio where it is installed (its settings:
benchmarks/kamailio/)."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from benchmarks.load import Address, Load, Server, lost

HERE = Path(__file__).resolve().parent
MODULES = (
    "/usr/lib/*/kamailio/modules",
    "/usr/lib/kamailio/modules",
    "/usr/lib64/kamailio/modules",
)
ABSENT = (
    "Kamailio is not installed (Debian: apt install kamailio), so there is nothing to compare with."
)
START = 10.0  # seconds that a forwarder may take to answer its first request
SETTLE = 1.2  # seconds for each to have asked both servers


class Peer(NamedTuple):
    """A forwarder between two answering servers. It leads a session of its own, so that all its
    processes are found."""

    listen: Address
    servers: list[Server]
    session: int

    def processes(self) -> list[Path]:
        """Their folders under /proc."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # it has just ended
                fields = stat.read_text().rpartition(")")[2].split()
                if int(fields[3]) == self.session and fields[0] != "Z":
                    found.append(stat.parent)
        return found

    def cpu(self) -> float:
        """Seconds that it has used so far, to the nanosecond where the kernel keeps such
        accounts."""
        used = 0.0
        for process in self.processes():
            try:
                used += (
                    sum(
                        int((task / "schedstat").read_text().split()[0])
                        for task in process.glob("task/*")
                    )
                    / 1e9
                )
            except OSError:
                user, system = (process / "stat").read_text().rpartition(")")[2].split()[11:13]
                used += (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
        return used

    def memory(self) -> float:
        """MiB, what its processes share counted once."""
        lines = [
            line
            for each in self.processes()
            for line in (each / "smaps_rollup").read_text().splitlines()
        ]
        return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def ours(listen: Address, servers: list[Server], folder: Path) -> list[str]:
    """Its command, with its default settings."""
    lines = [f"forwarder.listen={_text(listen)}", "admin.listen="]
    lines += [f"{server.name}={_text(server.address)}" for server in servers]
    (folder / "servers.properties").write_text("\n".join(lines))
    program, settings = HERE.parent / "forwarder.py", folder / "servers.properties"
    return [sys.executable, "-S", str(program), str(settings)]


def kamailio(config: str) -> Callable[[Address, list[Server], Path], list[str]]:
    def command(listen: Address, servers: list[Server], folder: Path) -> list[str]:
        text = (HERE / "kamailio" / config).read_text()
        modules = next(found for pattern in MODULES for found in glob.glob(pattern))
        known = {"LISTEN": _text(listen), "FOLDER": str(folder), "MODULES": modules}
        known |= {server.name.upper(): _text(server.address) for server in servers}
        for word, value in known.items():
            text = text.replace(f"@{word}@", value)
        (folder / config).write_text(text)
        weights = [
            f"1 sip:{_text(server.address)} 0 {10 - n}\n" for n, server in enumerate(servers)
        ]
        (folder / "servers.list").write_text("".join(weights))
        files = ["-f", folder / config, "-w", folder, "-Y", folder, "-P", folder / "pid"]
        # -x fm: with Debian's default memory manager it runs at half speed.
        options = ["-DD", "-E", "-x", "fm", "-X", "fm", "-m", "256", "-M", "16"]
        return ["kamailio", *options, *map(str, files)]

    return command


PEERS: dict[str, Callable[[Address, list[Server], Path], list[str]]] = {
    "forwarder": ours,
    "kamailio dispatcher": kamailio("dispatcher.cfg"),
    "kamailio fast": kamailio("fast.cfg"),
    "kamailio stateless": kamailio("stateless.cfg"),
}


def available(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.startswith("kamailio") or shutil.which("kamailio")]


@contextmanager
def scene(name: str, port: int, cores: Collection[int] = ()) -> Iterator[Peer]:
    """The forwarder of that name, once a request has been answered. `cores`: the only ones that it
    may run on."""
    listen = ("127.0.0.1", port)
    servers = [Server(f"server{n}", ("127.0.0.1", port + n)) for n in (1, 2)]
    with ExitStack() as ending:
        folder = Path(ending.enter_context(tempfile.TemporaryDirectory()))
        for server in servers:
            ending.callback(server.stop)
            server.start()
        log = ending.enter_context((folder / "log").open("wb"))
        argv = PEERS[name](listen, servers, folder)
        process = subprocess.Popen(
            argv,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            cwd=HERE.parent,
            start_new_session=True,
            preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None,
        )
        ending.callback(_end, process)
        deadline = time.monotonic() + START
        while lost(Load(listen, 10).run(0.05, patience=0.2)):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    f"{name} does not answer: {(folder / 'log').read_text(errors='replace')[-500:]}"
                )
        time.sleep(SETTLE)
        yield Peer(listen, servers, process.pid)


def _text(address: Address) -> str:
    return f"{address[0]}:{address[1]}"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
