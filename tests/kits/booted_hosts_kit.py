"""Hosts of hosts_kit.py that run a real systemd: the manual's own commands are typed there.

A host is started by systemd-nspawn (Debian: systemd-container) from this computer's own /usr, with
an empty /etc and /var that are gone afterwards, the project in /opt/call-failover, and the network
namespace of its name. Its processes are in a cgroup of its own.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from hosts_kit import EXAMPLES, HELLO, HOSTS, ROOT, SHARED, namespace
from process_kit import wait_until

MANUAL = ROOT / "docs" / "operations.txt"
UNIT = ROOT / "examples" / "systemd" / "call-failover.service"
PROPERTIES = "/etc/call-failover/servers.properties"
SECRET = "/var/lib/call-failover/forwarder.secret"
NETWORKD = [f"systemd-networkd{end}" for end in (".service", ".socket", "-wait-online.service")]
CGROUPS = [Path("/sys/fs/cgroup", each) for each in ("systemd", "unified", "")]


def cannot_boot() -> str:
    """Why this computer cannot start such a host, "" if it can. See also hosts_kit.unfit()."""
    if not shutil.which("systemd-nspawn"):
        return "systemd-nspawn is not installed (Debian: systemd-container)"
    if not Path("/usr/bin/python3").exists():
        return "the unit's Python, /usr/bin/python3, is not there"
    if not any((each / "cgroup.procs").exists() for each in CGROUPS):
        return "no cgroups here, which systemd needs"
    return ""


def typed(section: str, first: str) -> list[str]:
    """The commands of the block in that section of the manual that begins with `first`; the last
    one is before an empty line."""
    text = MANUAL.read_text(encoding="utf-8")
    text = text[text.index(f"\n{section}\n---") :]
    block = text[text.index(f"      {first}") :].partition("\n\n")[0]
    lines = (re.sub(r" {3,}\(.*", "", line.strip()) for line in block.splitlines())
    return [line for line in lines if line and not line.startswith("(")]


class BootedHost:
    """Entered, systemd has reached its basic target there."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._stack = contextlib.ExitStack()
        self._leader = 0  # its PID 1, as seen from here

    def __enter__(self) -> BootedHost:
        with contextlib.ExitStack() as stack:
            prefix = self._own_cgroup(stack)
            self._console = stack.enter_context(tempfile.TemporaryFile("w+"))
            self._machine = subprocess.Popen(
                [*prefix, *self._argv()],
                stdin=subprocess.DEVNULL,
                stdout=self._console,
                stderr=subprocess.STDOUT,
            )
            stack.callback(self._machine.wait)
            stack.callback(self._end)
            self._leader = wait_until(self._init, HELLO, lambda: f"{self.name} begins to boot")
            booted = ("systemctl", "is-active", "--quiet", "basic.target")
            wait_until(lambda: self._status(*booted) == 0, HELLO, lambda: f"{self.name} boots")
            # The network is up already; no unit is to wait for it.
            self.run("systemctl", "mask", *NETWORKD)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *failure: object) -> None:
        try:
            if failure[0]:
                print(f"--- {self.name}\n{self.run('journalctl', '--no-pager', '-n', '60')}")
        except (AssertionError, subprocess.TimeoutExpired):  # it is shutting down
            print(f"--- {self.name} has no journal any more")
        finally:
            self._stack.close()

    def _own_cgroup(self, stack: contextlib.ExitStack) -> list[str]:
        """The words before a command that give it a cgroup of its own."""
        if Path("/run/systemd/system").is_dir():
            return ["systemd-run", "--quiet", "--scope", "--property=Delegate=yes"]
        entered = []
        for folder in CGROUPS:
            if (folder / "cgroup.procs").exists():
                own = folder / namespace(self.name)
                own.mkdir()
                stack.callback(_remove, own)
                entered.append(f"echo $$ > {own}/cgroup.procs")
        return ["sh", "-c", "; ".join([*entered, 'exec "$@"']), "sh"]

    def _argv(self) -> list[str]:
        options = {
            "directory": "/",
            "volatile": "yes",  # of it only /usr, read-only; all else is empty, in memory
            "register": "no",
            "machine": self.name,
            "network-namespace-path": f"/run/netns/{namespace(self.name)}",
            "capability": "CAP_NET_ADMIN,CAP_NET_RAW",  # for keepalived
            "bind-ro": f"{ROOT}:/opt/call-failover",
            "console": "pipe",
        }
        words = [f"--{name}={value}" for name, value in options.items()]
        start = ["--boot", "--", "--unit=basic.target"]
        return ["systemd-nspawn", "--quiet", "--keep-unit", *words, *start]

    def _init(self) -> int:
        """The process that is the host's systemd, once there is one; systemd-nspawn has other
        children before."""
        if self._machine.poll() is not None:
            self._console.seek(0)
            raise AssertionError(f"systemd-nspawn has ended: {self._console.read()}")
        pid = self._machine.pid
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                    return int(child)
        return 0

    def _end(self) -> None:
        """As if its power were cut; its files were in memory and are gone."""
        if self._leader:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._leader, signal.SIGKILL)
        self._machine.terminate()
        try:
            self._machine.wait(HELLO / 2)
        except subprocess.TimeoutExpired:
            self._machine.kill()

    def _enter(self, *argv: str) -> list[str]:
        return ["nsenter", f"--target={self._leader}", "--all", "--", *argv]

    def _status(self, *argv: str) -> int:
        done = subprocess.run(self._enter(*argv), capture_output=True, timeout=HELLO, check=False)
        return done.returncode

    def run(self, *argv: str, typing: str = "", status: int = 0) -> str:
        """The output of a command there, which must end with that status; `typing` is its
        input."""
        done = subprocess.run(
            self._enter(*argv),
            input=typing,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=3 * HELLO,
            check=False,
            umask=0o022,  # as root has it
        )
        assert done.returncode == status, f"{self.name}: {' '.join(argv)}: {done.stdout}"
        return done.stdout

    def types(self, *lines: str) -> str:
        """The output of a root shell there, which ends at the first line that fails."""
        return self.run("sh", "-e", typing="\n".join(lines))

    def read(self, path: str) -> str:
        return self.run("cat", path)

    def write(self, path: str, text: str) -> None:
        """As an editor or scp does: a file that is there keeps its owner and mode."""
        self.run("mkdir", "-p", str(Path(path).parent))
        self.run("sh", "-c", f"cat > {path}", typing=text)

    def shows(self, unit: str, name: str) -> str:
        """A property of a unit, as `systemctl show` tells it."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def journal(self, unit: str) -> str:
        return self.run("journalctl", "--no-pager", "--output=cat", f"--unit={unit}")

    def kill(self, unit: str, number: signal.Signals = signal.SIGKILL) -> None:
        """A signal to all processes of a unit."""
        self.run("systemctl", "kill", f"--signal={number.name}", unit)

    def installs_forwarder(self, *settings: str) -> None:
        """By the unit's own words; not started yet."""
        servers = [f"server{n}={HOSTS['servers']}:{5060 + 10 * n}" for n in (1, 2)]
        self.write(PROPERTIES, "\n".join([*servers, "limit.rate=0", *settings, ""]))
        install = re.findall(r"^# +((?:cp|systemctl) .+)$", UNIT.read_text(), re.MULTILINE)
        copy, start = install
        self.types("cd /opt/call-failover", copy, start.replace("enable --now", "enable"))

    def installs_keepalived(self, example: str) -> None:
        """By the words of the manual, which also start both."""
        _, *lines = typed("10 Two forwarders, one address", "apt-get install keepalived")
        self.run("mkdir", "-p", "/etc/keepalived")  # the package's own folder
        own = [
            line.replace("INTERFACE", "eth0")
            .replace("ADDRESS", SHARED[0])
            .replace("active.conf", example)
            for line in lines
        ]
        assert len(own) == 5 and (EXAMPLES / example).name in own[3], own
        self.types(*own)


def _remove(cgroup: Path) -> None:
    for folder in sorted(cgroup.rglob("*/"), reverse=True):
        with contextlib.suppress(OSError):
            folder.rmdir()
    with contextlib.suppress(OSError):
        cgroup.rmdir()
