"""Real parties as processes: our forwarder and servers, SIPp phones, two Kamailios with the
configuration of examples/.

A `Scene` starts them on free ports of 127.0.0.1 and ends them, each by its own process group.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path

from process_kit import FORWARDER, ROOT, Process, free_port, is_taken, server_argv, wait_until

SCENARIOS = ROOT / "tests" / "parties"
KAMAILIO = ROOT / "examples" / "kamailio"
DOMAIN = "failover.test"  # as in examples/kamailio/this-server.cfg
# as in examples/kamailio/kamailio.cfg
PASSWORDS = {"alice": "alice's password", "bob": "bob's password"}
BUILT_IN = ("uac", "uas")
MEDIA = range(25_400, 26_000, 4)  # a SIPp takes the first and the third of such four


class Sipp:
    """One SIPp: a phone of `calls` calls, whose figures are read when it has ended."""

    def __init__(
        self,
        scene,
        scenario,
        remote,
        port,
        calls,
        rate=0,
        pause=0,
        user="bob",
        caller="caller@elsewhere.test",
        more=(),
    ):
        self.scenario, self.calls = scenario, calls
        self._folder = scene.new_folder(scenario)
        source = (
            ["-sn", scenario]
            if scenario in BUILT_IN
            else ["-sf", str(SCENARIOS / f"{scenario}.xml")]
        )
        arguments = [
            "sipp",
            remote,
            *source,
            "-nostdin",
            "-i",
            "127.0.0.1",
            "-ci",
            "127.0.0.1",
            "-mi",
            "127.0.0.1",
            "-p",
            str(port),
            "-cp",
            str(free_port()),
            "-mp",
            str(free_port(MEDIA)),
            "-s",
            user,
            "-d",
            str(pause),
            "-key",
            "domain",
            DOMAIN,
            "-key",
            "caller",
            caller,
            # An INVITE again is one with the branch of before, even if another server's Via stands
            # in it.
            "-rtcheck",
            "loose",
            "-trace_err",
            "-error_file",
            "errors",
            "-trace_stat",
            "-stf",
            "figures",
            "-fd",
            "1",
            "-trace_counts",
            *(["-m", str(calls)] if calls else []),
            *(["-r", str(rate)] if rate else []),
            *more,
        ]
        self.process = Process(scenario, arguments, self._folder / "screen", self._folder)

    def end(self, timeout=30.0):
        """Waits until its calls are over. It must have found nothing wrong with any."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{self.scenario} has not ended: {self.figures} {self.said}"
            ) from None
        assert status == 0, f"{self.scenario} ended with {status}: {self.figures} {self.said}"
        assert self["SuccessfulCall"] == self.calls and self["FailedCall"] == 0, self.figures

    def __getitem__(self, name) -> int:
        return int(self._last("figures")[f"{name}(C)"])

    @property
    def retransmissions(self) -> int:
        """Messages that it sent again: because nothing came, or because it was asked again."""
        return self["Retransmissions"]

    @property
    def heard_again(self) -> dict[str, int]:
        """Messages that came more than once, and how often."""
        counts = self._last(next(self._folder.glob("*_counts.csv")).name)
        heard = {name[: -len("_Recv")] for name in counts if name.endswith("_Recv")}
        return {
            name: int(counts[f"{name}_Retrans"]) for name in heard if int(counts[f"{name}_Retrans"])
        }

    @property
    def figures(self) -> dict[str, str]:
        wanted = re.compile(
            r"(Outgoing|Incoming|Successful|Failed|Retrans|OutOfCall|DeadCall).*\(C\)"
        )
        return {
            name: value
            for name, value in self._last("figures").items()
            if wanted.match(name) and value != "0"
        }

    @property
    def said(self) -> str:
        errors = self._folder / "errors"
        return (
            errors.read_text(errors="replace")[:3000]
            if errors.exists()
            else self.process.said[-500:]
        )

    def _last(self, name) -> dict[str, str]:
        file = self._folder / name
        rows = (
            list(csv.reader(file.read_text().splitlines(), delimiter=";")) if file.exists() else []
        )
        return dict(zip(rows[0], rows[-1], strict=False)) if rows else {}


class Scene:
    """Who plays. `folder` is empty and ours. Ends all it started, last one first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports: dict[str, int] = {
            name: free_port() for name in ("forwarder", "admin", "server1", "server2")
        }
        self.processes: dict[str, Process] = {}
        self.phones: set[str] = set()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes.values()):
            process.stop()

    def new_folder(self, name) -> Path:
        n = sum(1 for each in self.folder.iterdir() if each.name.startswith(name))
        folder = self.folder / (f"{name}{n}" if n else name)
        folder.mkdir()
        return folder

    def start(self, name, arguments, folder=None, **more) -> Process:
        log = self.folder / f"{name}.{len(self.processes)}.log"
        started = Process(name, arguments, log, folder or self.folder, **more)
        before = self.processes.pop(name, None)
        if before:
            self.processes[f"{name} before {len(self.processes)}"] = before
        self.processes[name] = started
        return started

    # -- the forwarder -----------------------------------------------------------------------------

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.ports['forwarder']}"

    def write(self, *lines, servers=("server1", "server2")) -> Path:
        """The forwarder's file, which names these servers."""
        file = self.folder / "servers.properties"
        servers = [f"{name}=127.0.0.1:{self.ports[name]}" for name in servers]
        own = [f"forwarder.listen={self.address}", f"admin.listen=127.0.0.1:{self.ports['admin']}"]
        file.write_text("\n".join([*servers, *own, *lines]))
        return file

    def forwarder(self, *lines, options=()) -> None:
        """Runs, with server1 and server2 in its list."""
        argv = [*FORWARDER, str(self.write(*lines)), *options]
        self.start("forwarder", argv).wait_until_ready()

    @property
    def status(self):
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.ports['admin']}/status", timeout=5
        ) as answer:
            return json.load(answer)

    def up(self, *names) -> None:
        """Returns once these servers answer their heartbeats with 200: alive, and wanting calls."""
        wait_until(
            lambda: self.all_up(*names),
            note=lambda: [self.processes[name].said[-2000:] for name in names],
        )

    def all_up(self, *names) -> bool:
        """Do all of these answer their heartbeats with 200 now?"""
        servers = [server for server in self.status["servers"] if server["name"] in names]
        return all(
            server["state"] == "UP" and "with 503" not in server["why"] for server in servers
        )

    # -- servers -----------------------------------------------------------------------------------

    def mock(self, name, *options, management="") -> None:
        """One of our servers; those of one scene share a store."""
        listen, store = f"127.0.0.1:{self.ports[name]}", self.folder / "cluster.db"
        argv = server_argv(name, listen, self.address, store, management, *options)
        self.start(name, argv, ROOT)

    def kamailio(self, name, **changed) -> None:
        """The Kamailio of examples/, at the addresses of this scene; `changed`: other lines of
        this-server.cfg."""
        peer = "server2" if name == "server1" else "server1"
        for each in ("server1", "server2"):
            self.ports.setdefault(f"{each} dmq", free_port())
        values = {
            "SELF_IP": "127.0.0.1",
            "SELF_PORT": self.ports[name],
            "SELF_DMQ_PORT": self.ports[f"{name} dmq"],
            "PEER_IP": "127.0.0.1",
            "PEER_DMQ_PORT": self.ports[f"{peer} dmq"],
            "FORWARDER_IP": "127.0.0.1",
            "FORWARDER_PORT": self.ports["forwarder"],
            "SECONDS_TO_SYNC": 2,
            **changed,
        }
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        (folder / "kamailio.cfg").write_bytes((KAMAILIO / "kamailio.cfg").read_bytes())
        text = (KAMAILIO / "this-server.cfg").read_text()
        for key, value in values.items():
            text, count = re.subn(rf'(?m)^(#!substdef "!{key}!)[^!]*', rf"\g<1>{value}", text)
            assert count == 1, f"{key} does not stand in this-server.cfg once"
        (folder / "this-server.cfg").write_text(text)
        self.start(
            name,
            [
                "kamailio",
                "-DD",
                "-E",
                "-f",
                str(folder / "kamailio.cfg"),
                "-w",
                str(folder),
                "-Y",
                str(folder),
                "-m",
                "64",
                "-M",
                "8",
            ],
        )

    def kamcmd(self, name, *command) -> str:
        return subprocess.run(
            ["kamcmd", "-s", f"unix:{self.folder / name / 'kamailio_ctl'}", *command],
            capture_output=True,
            text=True,
            timeout=5,
        ).stdout

    def know_each_other(self) -> None:
        """Returns once both Kamailios send each other what is registered."""
        wait_until(
            lambda: all(
                self.kamcmd(name, "dmq.list_nodes").count("status: active") == 2
                for name in ("server1", "server2")
            )
        )

    # -- phones ------------------------------------------------------------------------------------

    def no_phone_stays(self) -> None:
        for process in self.processes.values():
            if process.name in self.phones:
                process.stop()

    def sipp(self, scenario, calls=1, *, port=0, remote="", **options) -> Sipp:
        """A SIPp that talks to the forwarder, or to `remote`."""
        there = remote or self.address
        phone = Sipp(self, scenario, there, port or free_port(), calls, **options)
        self.processes[f"sipp {len(self.processes)}"] = phone.process
        self.phones.add(phone.process.name)
        return phone

    def callee(self, scenario, calls, **options) -> tuple[Sipp, int]:
        """A SIPp that waits for calls, and its port: the same for all of a scene, so that its
        binding stays one."""
        port = self.ports.setdefault("callee", free_port())
        phone = self.sipp(scenario, calls, port=port, **options)
        wait_until(lambda: is_taken(port), note=lambda: phone.said)
        assert phone.process.status is None, phone.said
        return phone, port

    def register(self, port, user="bob", digest=False, pause=0) -> Sipp:
        """The phone at that port, by a SIPp that speaks for it."""
        more = ["-key", "contact_port", str(port)]
        if digest:
            more += ["-au", user, "-ap", PASSWORDS[user], "-auth_uri", DOMAIN]
        return self.sipp(
            "digest_register" if digest else "register", user=user, pause=pause, more=more
        )

    def play(
        self, caller, callee, calls, *, rate=20, ring=0, talk=0, digest=False, more=()
    ) -> tuple[Sipp, Sipp]:
        """A registered callee, and a caller who has begun to call it."""
        called, port = self.callee(callee, calls, pause=ring)
        self.register(port, digest=digest).end()
        return self.sipp(caller, calls, rate=rate, pause=talk, more=more), called


def absent(*programs) -> str:
    """Why a test must be skipped; empty if nothing is missing."""
    missing = [program for program in programs if not shutil.which(program)]
    return f"{', '.join(missing)} is not installed" if missing else ""
