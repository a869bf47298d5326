"""A network of the test's own: hosts on one switch, two of them forwarders that share an address by
real keepalived.

Every host is a network namespace, and so is the switch: nothing of this computer's own network is
touched. The hosts have the addresses of examples/keepalived, whose files are run as they are but
for the folders in them (`_installed`). A `Unit` does what systemd does with examples/systemd and
the drop-ins. Namespaces are called failover-PID-HOST: what a killed test left behind goes when the
next one starts.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

from process_kit import ROOT, Process, server_argv, wait_until

from plumbing.address import format_address

EXAMPLES = ROOT / "examples" / "keepalived"
SHARED = ("192.0.2.10", 5060)
HOSTS = {
    "forwarder1": "192.0.2.11",
    "forwarder2": "192.0.2.12",
    "servers": "192.0.2.21",
    "phones": "192.0.2.31",
}
SWITCH = "switch"
NAMES = re.compile(r"failover-(\d+)-\w+")
CLONE_NEWNET = 0x40000000
HELLO = 20.0  # seconds a process may take to start on a busy computer


def unfit(**programs: str) -> str:
    """Why this computer cannot stage a network with these programs, "" if it can. `programs`: the
    name of each, and Debian's package."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "needs root, for network namespaces"
    for program, package in {"ip": "iproute2", **programs}.items():
        if not shutil.which(program):
            return f"{program} is not installed (Debian: {package})"
    try:
        run("ip", "netns", "add", namespace("try"))
        run("ip", "netns", "del", namespace("try"))
    except OSError as error:
        return f"no network namespaces here: {error}"
    return ""


def run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=HELLO)
    if done.returncode:
        raise OSError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


def namespace(host: str) -> str:
    return f"failover-{os.getpid()}-{host}"


def in_host(host: str, *argv: str) -> tuple[str, ...]:
    """The command that runs this one there."""
    return ("ip", "netns", "exec", namespace(host), *argv)


def inside(host: str, *argv: str) -> str:
    return run(*in_host(host, *argv))


@contextlib.contextmanager
def entered(host: str):
    """This thread's sockets, and those of threads it starts meanwhile, are that host's."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{namespace(host)}") as there:
        _enter(libc, there.fileno())
        try:
            yield
        finally:
            _enter(libc, home.fileno())


def _enter(libc, number: int) -> None:
    if libc.setns(number, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def sweep() -> None:
    """Remove what tests left that are no more, and what this one made."""
    for name in re.findall(r"^\S+", run("ip", "netns", "list"), re.MULTILINE):
        owner = NAMES.fullmatch(name)
        if owner and (int(owner[1]) == os.getpid() or not Path(f"/proc/{owner[1]}").exists()):
            for pid in run("ip", "netns", "pids", name).split():
                with contextlib.suppress(ProcessLookupError):
                    if int(pid) != os.getpid():
                        os.kill(int(pid), signal.SIGKILL)
            run("ip", "netns", "del", name)
    for folder in Path(tempfile.gettempdir()).glob("failover-*-*"):
        owner = re.match(r"failover-(\d+)-", folder.name)
        if owner and not Path(f"/proc/{owner[1]}").exists():
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def lonely_host(host: str) -> Iterator[None]:
    """A host with loopback and nothing else; this thread and all that it starts meanwhile are on
    it."""
    sweep()
    try:
        _add(host)
        with entered(host):
            yield
    finally:
        sweep()


def _add(host: str) -> None:
    run("ip", "netns", "add", namespace(host))
    run("ip", "-n", namespace(host), "link", "set", "lo", "up")


class Network:
    """The hosts, by name and address, each with a cable to the switch; and what can befall a
    cable."""

    def __init__(self, hosts: Mapping[str, str] = HOSTS) -> None:
        self._hosts = hosts

    def __enter__(self) -> Network:
        sweep()
        try:
            for host in (SWITCH, *self._hosts):
                _add(host)
            self._switch("link", "add", "bridge", "type", "bridge")
            self._switch("link", "set", "bridge", "up")
            for host, address in self._hosts.items():
                peer = ("peer", "name", "eth0", "netns", namespace(host))
                self._switch("link", "add", host, "type", "veth", *peer)
                run("ip", "-n", namespace(host), "addr", "add", f"{address}/24", "dev", "eth0")
                run("ip", "-n", namespace(host), "link", "set", "eth0", "up")
                self.plug(host)
                self.mend(host)
        except BaseException:
            sweep()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        sweep()

    def _switch(self, *words: str) -> None:
        run("ip", "-n", namespace(SWITCH), *words)

    def unplug(self, host: str) -> None:
        """Its interface has no carrier any more, and it knows."""
        self._switch("link", "set", host, "down")

    def plug(self, host: str) -> None:
        self._switch("link", "set", host, "up")

    def blackhole(self, host: str) -> None:
        """The switch forwards nothing from or to it; the link stays up, and nobody is told."""
        self._switch("link", "set", host, "nomaster")

    def mend(self, host: str) -> None:
        self._switch("link", "set", host, "master", "bridge")

    def cut(self, host: str) -> None:
        """The switch passes nothing between it and the servers; all else it does, and nobody is
        told."""
        rules = "".join(
            f"add rule bridge cut-{host} forward iifname {here} oifname {there} drop; "
            for here, there in ((host, "servers"), ("servers", host))
        )
        chain = f"add table bridge cut-{host}; add chain bridge cut-{host} forward"
        inside(SWITCH, "nft", f"{chain} {{ type filter hook forward priority 0; }}; {rules}")

    def heal(self, host: str) -> None:
        inside(SWITCH, "nft", f"delete table bridge cut-{host}")


def forbid(host: str) -> None:
    """Its own firewall refuses what it sends to the servers, at once and aloud."""
    chain = (
        "add table ip forbid; add chain ip forbid output { type filter hook output priority 0; }"
    )
    inside(host, "nft", f"{chain}; add rule ip forbid output ip daddr {HOSTS['servers']} reject")


def allow(host: str) -> None:
    inside(host, "nft", "delete table ip forbid")


def deafen(host: str) -> None:
    """It hears no VRRP any more."""
    chain = "add table ip deaf; add chain ip deaf input { type filter hook input priority 0; }"
    inside(host, "nft", f"{chain}; add rule ip deaf input ip protocol 112 drop")


def hear(host: str) -> None:
    inside(host, "nft", "delete table ip deaf")


def has_address(host: str) -> bool:
    with entered(host), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((SHARED[0], 0))
        except OSError:
            return False
    return True


class Unit:
    """A service as systemd runs it, as far as that matters here: Type=notify, ExecStartPost=,
    ExecStop=, ExecStopPost= of its drop-in, Restart=always after RestartSec=. Its output goes to
    `log`."""

    def __init__(self, host: str, argv: list[str], dropin: str, restart: float, log: Path) -> None:
        self.host, self._argv, self._dropin, self._restart, self._log = (
            host,
            argv,
            dropin,
            restart,
            log,
        )
        self._notify = log.with_suffix(".notify")
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, name=f"unit-{log.stem}")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, notifies: bool) -> None:
        self._thread.start()
        if notifies and not self._ready.wait(HELLO):
            raise RuntimeError(f"{self._log.stem} does not start: {self._log.read_text()}")

    def stop(self) -> None:
        """`systemctl stop`: ExecStop=, SIGTERM, ExecStopPost=."""
        if not self._stopping.is_set() and self._thread.is_alive():
            self._stopping.set()
            self._exec("ExecStop")
            assert self.process is not None
            self.process.terminate()
            self._thread.join(HELLO / 2)
            self.process.kill()
            self._thread.join()

    def kill(self) -> None:
        """kill -9, with all its children, in the same instant: none is to see the other one go."""
        assert self.process is not None
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        self._ready.clear()
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for each in (pid, *map(int, children)):
                os.kill(each, number)

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def is_ready_again(self) -> None:
        """After kill(): waits until it has been started again."""
        if not self._ready.wait(HELLO):
            raise RuntimeError(f"{self._log.stem} does not come back")

    def _exec(self, key: str) -> None:
        for command in re.findall(rf"^{key}=\+?(.+)$", self._dropin, re.MULTILINE):
            subprocess.run(command, shell=True, check=True, timeout=HELLO)

    def _serve(self) -> None:
        while True:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
                self._notify.unlink(missing_ok=True)
                notified.bind(str(self._notify))
                self._run_once(notified)
            if self._stopping.wait(self._restart):
                return

    def _run_once(self, notified: socket.socket) -> None:
        environment = {**os.environ, "NOTIFY_SOCKET": str(self._notify)}
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                in_host(self.host, *self._argv),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        while self.process.poll() is None:
            if select.select([notified], [], [], 0.002)[0] and b"READY=1" in notified.recv(4096):
                self._exec("ExecStartPost")
                self._ready.set()
                break
        self.process.wait()
        self._exec("ExecStopPost")


def _installed(text: str, folder: Path, host: str) -> str:
    """A file of examples/keepalived for this host: the project is in another folder than
    /opt/call-failover, and as hosts share their files here each has a /run of its own."""
    return text.replace("/opt/call-failover", str(folder / "opt")).replace(
        "/run/", f"{folder}/run-{host}/"
    )


def start_server(stack: contextlib.ExitStack, folder: Path, number: int) -> None:
    """Starts server1 or server2 on the servers' host, with its store and its log in the folder;
    the stack ends it."""
    name, listen = f"server{number}", f"{HOSTS['servers']}:{5060 + 10 * number}"
    argv = server_argv(name, listen, format_address(SHARED), folder / "cluster.db", "")
    process = Process(name, in_host("servers", *argv), folder / f"{name}.log")
    stack.callback(process.stop)


class Pair:
    """Entered, all of it runs: forwarder1 has the address, forwarder2 stands by, both servers
    answer. `unicast`: with the lines for networks without multicast."""

    def __init__(self, unicast: bool = False) -> None:
        self._unicast = unicast
        self._stack = contextlib.ExitStack()
        self.forwarders: dict[str, Unit] = {}
        self.keepers: dict[str, Unit] = {}

    def __enter__(self) -> Pair:
        with contextlib.ExitStack() as stack:
            self.folder = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix=f"failover-{os.getpid()}-"))
            )
            self.folder.chmod(0o755)  # the health check is not root's
            self.network = stack.enter_context(Network())
            self.store = self.folder / "cluster.db"
            self._install()
            for number in (1, 2):
                start_server(stack, self.folder, number)
            for host, example in (("forwarder1", "active.conf"), ("forwarder2", "standby.conf")):
                self._forwarder(stack, host)
                self._keeper(stack, host, example)
                self._await(lambda: has_address("forwarder1"), "forwarder1 has the address")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *failure: object) -> None:
        if failure[0]:
            for log in sorted(self.folder.glob("*.log")):
                print(f"--- {log.name}\n{log.read_text()[-6000:]}")
        self._stack.close()

    def moves(self) -> int:
        """How often the address has changed places."""
        logs = (self.folder / f"{host}-forwarder.log" for host in self.forwarders)
        return sum(len(re.findall(r" active: ", log.read_text())) for log in logs) - 1

    def _await(self, condition, what: str) -> None:
        wait_until(condition, HELLO, lambda: what)

    def _install(self) -> None:
        opt = self.folder / "opt"
        for part in ("failover", "plumbing", "sip", "examples"):
            shutil.copytree(ROOT / part, opt / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "forwarder.py", opt)
        opt.chmod(0o755)  # as an installed one is: nobody runs the check
        check = opt / "examples" / "keepalived" / "check"
        for host in ("forwarder1", "forwarder2"):
            own = check.with_name(f"check-{host}")
            shutil.copy(check, own)
            own.write_text(_installed(check.read_text(), self.folder, host))

    def _forwarder(self, stack: contextlib.ExitStack, host: str) -> None:
        sees = self.folder / f"run-{host}" / "call-failover"  # RuntimeDirectory=
        sees.mkdir(parents=True)
        for folder in (sees, sees.parent):
            folder.chmod(0o755)
        lines = [f"server{n}={HOSTS['servers']}:{5060 + 10 * n}" for n in (1, 2)]
        lines += ["forwarder.listen={}:{}".format(*SHARED), "limit.rate=0"]
        lines += [f"forwarder.secret.file={self.folder}/secret"]
        lines += [_installed("forwarder.track.file=/run/call-failover/sees", self.folder, host)]
        file = self.folder / f"{host}.properties"
        file.write_text("\n".join(lines))
        dropin = _installed(
            (EXAMPLES / "call-failover.service.conf").read_text(), self.folder, host
        )
        # One as the unit starts it, one that may find its addresses by netifaces.
        bare = ["-S"] if host == "forwarder1" else []
        argv = [sys.executable, *bare, str(self.folder / "opt" / "forwarder.py"), str(file)]
        self.forwarders[host] = self._unit(stack, host, argv, dropin, 0.1, "forwarder")

    def _keeper(self, stack: contextlib.ExitStack, host: str, example: str) -> None:
        file = self.folder / f"{host}-keepalived.conf"
        text = _installed((EXAMPLES / example).read_text(), self.folder, host)
        text = text.replace("keepalived/check ", f"keepalived/check-{host} ")
        if self._unicast:
            text = re.sub(r"^    # (unicast_|    \d|}$)", r"    \1", text, flags=re.MULTILINE)
        file.write_text(text)
        dropin = (EXAMPLES / "keepalived.service.conf").read_text()
        restart = re.search(r"^RestartSec=([\d.]+)$", dropin, re.MULTILINE)
        assert restart, "seconds"
        pids = [f"--{name}={self.folder}/run-{host}/{name}" for name in ("pid", "vrrp_pid")]
        argv = [
            "keepalived",
            "--dont-fork",
            "--vrrp",
            "--log-console",
            "--log-detail",
            "--no-syslog",
        ]
        argv += [f"--use-file={file}", *pids]
        self.keepers[host] = self._unit(stack, host, argv, dropin, float(restart[1]), "keepalived")

    def _unit(
        self, stack, host: str, argv: list[str], dropin: str, restart: float, name: str
    ) -> Unit:
        unit = Unit(host, argv, dropin, restart, self.folder / f"{host}-{name}.log")
        stack.callback(unit.stop)
        unit.start(notifies=name == "forwarder")  # keepalived tells only a real systemd
        return unit


class Meter:
    """Asks through the shared address, a new request every few milliseconds, and remembers which
    were answered. Nothing is repeated: what is lost is lost."""

    INTERVAL = 0.004  # seconds

    def __init__(self) -> None:
        self.sent: list[float] = []
        self.refused: list[bytes] = []  # the first lines of answers other than 200
        self.answered: dict[int, float] = {}
        self._stopping = False
        self._thread = threading.Thread(target=self._measure, name="meter")

    def __enter__(self) -> Meter:
        with entered("phones"):
            self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind((HOSTS["phones"], 0))
        self._sock.setblocking(False)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._thread.join()
        self._sock.close()

    def serves(self, since: float, count: int = 100) -> bool:
        """Were so many in a row answered, all of them asked after `since`?"""
        last = len(self.sent) - 1
        while last >= 0 and last not in self.answered:
            last -= 1
        first = last - count + 1
        return (
            first >= 0
            and self.sent[first] > since
            and all(n in self.answered for n in range(first, last))
        )

    def outage(self) -> float:
        """Seconds between the requests before and after the longest row of unanswered ones."""
        times = [self.sent[number] for number in sorted(self.answered)]
        return max(later - earlier for earlier, later in pairwise(times))

    def _measure(self) -> None:
        due = time.monotonic()
        while not self._stopping:
            now = time.monotonic()
            if now >= due:
                due = max(due + self.INTERVAL, now)
                self._ask(now)
            if select.select([self._sock], [], [], max(0.0, due - now))[0]:
                self._hear()

    def _ask(self, now: float) -> None:
        host, port = self._sock.getsockname()
        number = len(self.sent)
        self.sent.append(now)
        text = (
            "OPTIONS sip:failover.test SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {host}:{port};rport;branch=z9hG4bKmeter{number}x\r\nMax-Forwards: "
            "70\r\n"
            f"From: <sip:meter@failover.test>;tag=meter\r\nTo: <sip:failover.test>\r\n"
            f"Call-ID: {number}@{host}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
        )
        with contextlib.suppress(OSError):  # nobody has the address, or nobody listens there
            self._sock.sendto(text.encode(), SHARED)

    def _hear(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                data = self._sock.recv(65_535)
                found = re.match(rb"SIP/2\.0 200 .*?branch=z9hG4bKmeter(\d+)x", data, re.DOTALL)
                if not found:
                    self.refused.append(data.partition(b"\r")[0])
                else:
                    self.answered.setdefault(int(found[1]), time.monotonic())
