"""Two Asterisks behind the forwarder, as examples/asterisk and docs/operations.txt say.

Every host is a network namespace on one switch, with the address that the example gives it, so its
files are run exactly as they are. Each Asterisk has a root folder of its own, an overlay over the
one that Asterisk is installed in, into which the files are copied as the manual tells. The phones
are our softphone's, without windows.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from hosts_kit import Network, entered, in_host, run
from hosts_kit import unfit as no_namespaces
from phone_kit import Owner
from process_kit import FORWARDER as FORWARDER_ARGV
from process_kit import ROOT, Process, wait_until

from softphone.ua.events import CallState, CallView

EXAMPLE = ROOT / "examples" / "asterisk"
INSTALLED = "ASTERISK_ROOT"  # environment: the folder that a system with Asterisk is installed in
HOSTS = {
    "forwarder": "10.0.0.10",
    "asterisk1": "10.0.0.11",
    "asterisk2": "10.0.0.12",
    "database": "10.0.0.13",
    "phones": "10.0.0.20",
}
DOMAIN = HOSTS["forwarder"]
FORWARDER = (HOSTS["forwarder"], 5060)
PASSWORDS = {"alice": "change this", "bob": "change this too"}  # as in pjsip.conf
SOON = 20.0  # seconds
OPENING = 60.0  # seconds that an Asterisk may take to start on a busy computer


def unfit() -> str:
    """Why this computer cannot stage it, "" if it can."""
    reason = no_namespaces(unshare="util-linux", runuser="util-linux")
    if reason:
        return reason
    root = asterisk_root()
    if not root:
        return f"asterisk is not installed, and {INSTALLED} names no folder that it is installed in"
    if not list((root / "usr" / "lib").glob("*/odbc/psqlodbcw.so")):
        return f"PostgreSQL's ODBC driver is not installed in {root} (Debian: odbc-postgresql)"
    if not _postgres("postgres"):
        return "PostgreSQL is not installed"
    return ""


def asterisk_root() -> Path | None:
    """The root folder of the system with Asterisk: what the environment says, or this one."""
    named = os.environ.get(INSTALLED)
    if named:
        return Path(named) if (Path(named) / "usr" / "sbin" / "asterisk").exists() else None
    return Path("/") if shutil.which("asterisk") else None


def installation(second: bool) -> list[str]:
    """The manual's commands that put the files in their places; those for the second Asterisk
    too."""
    manual = (ROOT / "docs" / "operations.txt").read_text()
    part = manual[manual.index("  Two Asterisks\n") : manual.index("  Two forwarders\n")]
    files = re.findall(r"^ +((?:cp|cat) .*/etc/.*)$", part, re.MULTILINE)
    changes = re.findall(r"^ +(sed -i .*/etc/.*)$", part, re.MULTILINE)
    assert len(files) == len(changes) == 2, "the manual has other commands than before"
    return [*files, *(changes if second else [])]


def _postgres(program: str) -> str:
    """Debian keeps PostgreSQL's own programs out of the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))
    return shutil.which(program) or (str(found[-1]) if found else "")


def await_(condition, note=lambda: "", within: float = SOON):
    """The condition's value as soon as that is true."""
    return wait_until(condition, within, note)


class Asterisk:
    """One of the two: a root folder with the example's files in it, and the program."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self._folder = name, folder / name
        for part in ("upper", "work", "root"):
            (self._folder / part).mkdir(parents=True)
        self._program: Process | None = None
        self._asking: subprocess.Popen[bytes] | None = None
        self._install()

    def _install(self) -> None:
        """Does what the manual tells, by its own lines. `upper`: what differs from the system that
        Asterisk is installed in."""
        etc = self._folder / "upper" / "etc"
        (etc / "asterisk").mkdir(parents=True)
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {self.name}\n")
        for line in installation(second=self.name == "asterisk2"):
            command = line.replace("/etc/", f"{etc}/")
            subprocess.run(["sh", "-ec", command], cwd=EXAMPLE, check=True, timeout=SOON)

    def start(self) -> None:
        installed = asterisk_root()
        root = self._folder / "root"
        layers = f"lowerdir={installed},upperdir={self._folder}/upper,workdir={self._folder}/work"
        script = " && ".join(
            [
                f"hostname {self.name}",
                f"mount -t overlay overlay -o {layers} {root}",
                f"mount -t proc proc {root}/proc",
                f"mount --rbind /dev {root}/dev",
                f"mkdir -p {root}/run/asterisk",
                f"exec chroot {root} /usr/sbin/asterisk -f -n",
            ]
        )
        log = self._folder / "log"
        argv = in_host(self.name, "unshare", "--mount", "--uts", "sh", "-c", script)
        self._program = Process(self.name, argv, log)
        await_(
            lambda: "fully booted" in self.cli("core waitfullybooted"),
            lambda: self.said[-3000:],
            OPENING,
        )

    @property
    def said(self) -> str:
        return self._program.said if self._program else ""

    def cli(self, command: str) -> str:
        """What Asterisk's own console says to it."""
        done = subprocess.run(self._console(command), capture_output=True, text=True, timeout=SOON)
        return done.stdout + done.stderr

    def stop_gracefully(self) -> None:
        """Its console does not come back before it is done."""
        quiet = subprocess.DEVNULL
        self._asking = subprocess.Popen(
            self._console("core stop gracefully"), stdin=quiet, stdout=quiet, stderr=quiet
        )

    def _console(self, command: str) -> list[str]:
        assert self._program
        enter = ["nsenter", f"--target={self._program.pid}", "--mount"]
        return [*enter, "chroot", str(self._folder / "root"), "/usr/sbin/asterisk", "-rx", command]

    def kill(self) -> None:
        assert self._program
        self._program.kill()

    def freeze(self) -> None:
        assert self._program
        self._program.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._program
        self._program.signal(signal.SIGCONT)

    @property
    def runs(self) -> bool:
        return self._program is not None and self._program.status is None

    def stop(self) -> None:
        if self._program:
            self._program.kill()
        if self._asking:
            self._asking.wait(SOON)


class Caller(Owner):
    """One of our phones."""

    def __init__(self, user: str, **options) -> None:
        listen = (HOSTS["phones"], 0)
        with entered("phones"):
            super().__init__(
                user, FORWARDER, True, PASSWORDS[user], listen, domain=DOMAIN, **options
            )

    @property
    def calls(self) -> tuple[CallView, ...]:
        return self.phone.snapshot().calls

    def is_in(self, state: CallState) -> bool:
        return bool(self.calls) and self.calls[-1].state is state


class Office:
    """Entered, all of it runs: the forwarder with both Asterisks UP, and the database."""

    def __init__(self, *lines: str) -> None:
        """`lines`: more of servers.properties."""
        self._lines = lines
        self._stack = contextlib.ExitStack()
        self.asterisks: dict[str, Asterisk] = {}

    def __enter__(self) -> Office:
        with contextlib.ExitStack() as stack:
            self.folder = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix=f"failover-{os.getpid()}-"))
            )
            self.folder.chmod(0o755)  # PostgreSQL is not root's
            stack.enter_context(Network(HOSTS))
            self.database = Database(self.folder / "database")
            stack.callback(self.database.stop)
            self.database.start()
            for name in ("asterisk1", "asterisk2"):
                asterisk = self.asterisks[name] = Asterisk(name, self.folder)
                stack.callback(asterisk.stop)
                asterisk.start()
            self._forwarder(stack)
            await_(
                lambda: [each["state"] for each in self.status["servers"]] == ["UP", "UP"],
                lambda: self.told(),
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *failure: object) -> None:
        if failure[0]:
            print(self.told())
        self._stack.close()

    def told(self) -> str:
        logs = [self.folder / name / "log" for name in self.asterisks] + [
            self.folder / "forwarder.log"
        ]
        return "\n".join(
            f"--- {log}\n{log.read_text(errors='replace')[-4000:]}" for log in logs if log.exists()
        )

    def _forwarder(self, stack: contextlib.ExitStack) -> None:
        lines = [f"server{n}={HOSTS[f'asterisk{n}']}:5060" for n in (1, 2)]
        lines += [
            "forwarder.listen={}:{}".format(*FORWARDER),
            "admin.listen=127.0.0.1:8060",
            *self._lines,
        ]
        file = self.folder / "servers.properties"
        file.write_text("\n".join(lines))
        argv = in_host("forwarder", *FORWARDER_ARGV, str(file), "-v")
        self.forwarder = Process("forwarder", argv, self.folder / "forwarder.log")
        stack.callback(self.forwarder.stop)
        self.forwarder.wait_until_ready()

    def ask(self, path: str):
        """What the forwarder's page says."""
        with (
            entered("forwarder"),
            urllib.request.urlopen(f"http://127.0.0.1:8060{path}", timeout=5) as answer,
        ):
            return json.load(answer)

    @property
    def status(self):
        return self.ask("/status")

    @contextlib.contextmanager
    def phones(self, *users: str, **options) -> Iterator[list[Caller]]:
        """Our phones of these users, registered."""
        with contextlib.ExitStack() as stack:
            phones = []
            for user in users:
                phones.append(Caller(user, **options))
                stack.callback(phones[-1].stop)
            await_(lambda: all(phone.registered for phone in phones), self.told)
            yield phones


class Database:
    """A PostgreSQL with the example's table, on the host that odbc.ini names."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._data = folder, folder / "data"
        self._program: Process | None = None
        folder.mkdir()
        shutil.chown(folder, "postgres")
        self._as_postgres(
            _postgres("initdb"), "-D", str(self._data), "-A", "trust", "-N", "-E", "UTF8"
        )
        with (self._data / "pg_hba.conf").open("a") as rules:
            rules.write("host asterisk asterisk 10.0.0.0/24 scram-sha-256\n")

    def start(self) -> None:
        settings = {
            "listen_addresses": HOSTS["database"],
            "unix_socket_directories": self._folder,
            "fsync": "off",
        }
        argv = [_postgres("postgres"), "-D", str(self._data)]
        argv += [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        first = self._program is None
        # setpriv takes the place of its parent, so that a signal reaches PostgreSQL itself.
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        log = self._folder.parent / "database.log"
        self._program = Process("database", in_host("database", *user, *argv), log, self._folder)
        await_(lambda: self._try("postgres", "SELECT 1"), lambda: self._program.said)
        if first:
            password = re.search(
                r"^password=(.+)$", (EXAMPLE / "res_odbc.conf").read_text(), re.MULTILINE
            )
            assert password, "of the database's user"
            self.sql("postgres", f"CREATE ROLE asterisk LOGIN PASSWORD '{password[1]}'")
            self.sql("postgres", "CREATE DATABASE asterisk OWNER asterisk")
            self.sql("asterisk", f"SET ROLE asterisk; {(EXAMPLE / 'contacts.sql').read_text()}")

    def sql(self, database: str, text: str) -> list[str]:
        return run(*self._psql(database), text).splitlines()

    def bindings(self) -> list[str]:
        """Whose there are, and at which Asterisk they registered."""
        return self.sql(
            "asterisk", "SELECT endpoint || ' at ' || reg_server FROM ps_contacts ORDER BY 1"
        )

    def stop(self) -> None:
        if self._program:
            self._program.signal(signal.SIGQUIT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._program.wait(5)
            self._program.kill()

    def _psql(self, database: str) -> list[str]:
        return [
            "psql",
            "-h",
            str(self._folder),
            "-U",
            "postgres",
            "-Atq",
            "-v",
            "ON_ERROR_STOP=1",
            database,
            "-c",
        ]

    def _try(self, database: str, text: str) -> bool:
        try:
            return bool(self.sql(database, text))
        except OSError:
            return False

    @staticmethod
    def _as_postgres(*argv: str) -> None:
        run("runuser", "-u", "postgres", "--", *argv)
