"""Somebody else's phones as processes: baresip and Linphone, each with one account."""

from __future__ import annotations

import math
import os
import re
import socket
import subprocess
import wave
from pathlib import Path

from parties_kit import DOMAIN, MEDIA, PASSWORDS, absent
from process_kit import free_port, wait_until

MODULES = next(
    (
        path
        for path in map(Path, ("/usr/lib/baresip/modules", "/usr/local/lib/baresip/modules"))
        if path.is_dir()
    ),
    None,
)

BARESIP = """module_path {modules}
module g711.so
module aubridge.so
module ausine.so
module cons.so
module_app presence.so
module_app account.so
module_app menu.so
audio_source ausine,440
audio_player aubridge,sink
ausrc_srate 48000
ausrc_channels 2
net_interface 127.0.0.1
sip_listen 127.0.0.1:{port}
cons_listen 127.0.0.1:{console}
"""

LINPHONE = """[sip]
sip_port={port}
sip_tcp_port=0
sip_tls_port=0
default_proxy=0
contact=sip:{user}@127.0.0.1
media_encryption=none
[net]
enable_rtcp=1
[rtp]
audio_rtp_port={media}
[sound]
remote_ring=
[video]
enabled=0
[proxy_0]
reg_proxy=<sip:{forwarder};transport=udp>
reg_route=<sip:{forwarder};transport=udp;lr>
reg_identity="{user}" <sip:{user}@{domain}>
reg_expires=60
reg_sendregister=1
publish=1
[auth_info_0]
username={user}
passwd={password}
realm={domain}
[friend_0]
url="Friend" <sip:{friend}@{domain}>
pol=accept
subscribe=1
"""


def missing() -> str:
    """Why a test with these phones must be skipped; empty if nothing is missing."""
    return absent("linphonec", "baresip") or (
        "" if MODULES else "baresip's modules are not installed"
    )


class PhoneProcess:
    """A phone of one user behind the scene's forwarder, ended with the scene's other processes."""

    def __init__(self, scene, user: str) -> None:
        self.user, self.port = user, free_port()
        self.folder = scene.new_folder(user)
        self.output = self.folder / "output"

    def start(self, arguments, stdin=subprocess.DEVNULL) -> None:
        # A home of its own, so that nothing of the user who runs the tests is read or written.
        places = dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"), str(self.folder))
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                arguments,
                cwd=self.folder,
                env={**os.environ, **places},
                stdin=stdin,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(3.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(3.0)


class Baresip(PhoneProcess):
    """Answers by itself, and says a tone."""

    def __init__(self, scene, user: str) -> None:
        super().__init__(scene, user)
        console = free_port()
        config = BARESIP.format(modules=MODULES, port=self.port, console=console)
        (self.folder / "config").write_text(config)
        account = f'<sip:{user}@{DOMAIN}>;outbound="sip:{scene.address}";auth_pass="{PASSWORDS[user]}";regint=60'
        (self.folder / "accounts").write_text(f"{account};answermode=auto\n")
        (self.folder / "contacts").write_text("")
        self.start(["baresip", "-4", "-f", str(self.folder)])
        wait_until(lambda: "baresip is ready" in self.said, 15.0, lambda: self.said)
        self._console = socket.socket(type=socket.SOCK_DGRAM)
        self._console.connect(("127.0.0.1", console))

    def tell(self, command: str) -> None:
        self._console.send(f"/{command}\n".encode())

    def stop(self) -> None:
        self._console.close()
        super().stop()

    def call(self, user: str) -> None:
        self.tell(f"dial sip:{user}@{DOMAIN}")

    def hang_up(self) -> None:
        self.tell("hangup")

    @property
    def registered(self) -> bool:
        return "200 OK" in self.said

    @property
    def talks(self) -> bool:
        return "Call established" in self.said

    @property
    def hears(self) -> bool:
        """Octets of audio come in."""
        return bool(re.search(r"audio=[1-9][0-9]*/[1-9]", self.said))

    @property
    def ended(self) -> bool:
        return "terminated (duration" in self.said


class Linphone(PhoneProcess):
    """linphonec, which reads commands from its standard input, and tells all it does in its log."""

    def __init__(self, scene, user: str, friend: str) -> None:
        super().__init__(scene, user)
        config = LINPHONE.format(
            port=self.port,
            user=user,
            media=free_port(MEDIA),
            forwarder=scene.address,
            domain=DOMAIN,
            password=PASSWORDS[user],
            friend=friend,
        )
        (self.folder / "linphonerc").write_text(config)
        (self.folder / ".local" / "share" / "linphone").mkdir(parents=True)
        self._log = self.folder / "log"
        arguments = [
            "linphonec",
            "-c",
            str(self.folder / "linphonerc"),
            "-d",
            "6",
            "-l",
            str(self._log),
            "-a",
        ]
        self.start(arguments, subprocess.PIPE)
        wait_until(
            lambda: self._log.exists() and "linphonec>" in self.said, 15.0, lambda: self.said
        )
        self.tell("soundcard use files")
        tone = self.folder / "tone.wav"
        with wave.open(str(tone), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            samples = (int(8000 * math.sin(n / 3)) for n in range(16_000))
            file.writeframes(
                b"".join(sample.to_bytes(2, "little", signed=True) for sample in samples)
            )
        self.tell(f"play {tone}")

    def tell(self, command: str) -> None:
        self.process.stdin.write(f"{command}\n".encode())
        self.process.stdin.flush()

    def call(self, user: str) -> None:
        self.tell(f"call sip:{user}@{DOMAIN}")

    def hang_up(self) -> None:
        self.tell("terminate")

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def has_network(self) -> bool:
        return "SIP network reachability state is now [UP]" in self.log

    def messages(self, start: str) -> list[str]:
        """The SIP messages, sent and received, whose first line begins so."""
        return re.findall(rf"(?ms)^{re.escape(start)}.*?^\s*$", self.log)

    @property
    def registered(self) -> bool:
        return "to [LinphoneRegistrationOk]" in self.log

    @property
    def talks(self) -> bool:
        return "to LinphoneCallStreamsRunning" in self.log

    @property
    def ended(self) -> bool:
        return "to LinphoneCallEnd" in self.log

    def stop(self) -> None:
        self.process.stdin.close()
        super().stop()
