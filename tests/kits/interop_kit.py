"""Somebody else's phones as programs that a story tells what to do: baresip and linphonec, each
with a tone for a voice and a file for an ear; and ours beside them."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import wave
from array import array
from pathlib import Path

from parties_kit import DOMAIN, MEDIA, Scene, absent
from phone_kit import Owner
from process_kit import free_port, wait_until

from plumbing.address import format_address
from softphone.media.tone_generator import ToneSource
from softphone.ua.events import CallChanged, CallState, DigitPassed, MessagePassed

PASSWORDS = {"alice": "wonderland", "bob": "builder", "carol": "christmas"}
LOUD = 1000  # of 32,767: a tone, and no noise of a codec
PLACES = map(Path, ("/usr/lib/baresip/modules", "/usr/local/lib/baresip/modules"))
MODULES = next((path for path in PLACES if path.is_dir()), None)
BARESIP = """module_path {modules}
module g711.so
module aubridge.so
module ausine.so
module sndfile.so
module_app presence.so
module_app account.so
module_app menu.so
module_app ctrl_tcp.so
ctrl_tcp_listen 127.0.0.1:{control}
audio_source ausine,440
audio_player aubridge,sink
ausrc_srate 48000
ausrc_channels 2

snd_path {folder}
call_max_calls 1
net_interface 127.0.0.1
sip_listen 127.0.0.1:{port}
"""
LINPHONE = """[sip]
sip_port={port}
sip_tcp_port=0
sip_tls_port=0
use_ipv6=0
default_proxy=0
[net]
firewall_policy=0
[rtp]
audio_rtp_port={media}
[video]
enabled=0
[misc]
max_calls=1
[proxy_0]
reg_proxy=<sip:{proxy}>
reg_route=<sip:{proxy};lr>
reg_identity="{name}" <sip:{user}@{domain}>
reg_expires=60
reg_sendregister=1
publish={publish}
[auth_info_0]
username={user}
passwd={password}
realm={domain}
"""
FRIEND = """[friend_0]
url="Friend" <sip:{friend}@{domain}>
pol=accept
subscribe=1
"""


def no_baresip() -> str:
    """Why a test with it must be skipped; empty if nothing is missing."""
    return absent("baresip") or ("" if MODULES else "baresip's modules are not installed")


class Ear:
    """An AudioSink that counts blocks with a tone in them."""

    loud = 0

    def write(self, samples: array[int]) -> None:
        self.loud += bool(samples) and max(samples) > LOUD


class Ours(Owner):
    """A phone of ours, with a tone for a voice."""

    def __init__(self, user: str, proxy: tuple[str, int]) -> None:
        self.ear = Ear()
        sound = (ToneSource(), self.ear)
        super().__init__(user, proxy, True, PASSWORDS[user], domain=DOMAIN, sound=sound)

    def forgets(self) -> None:
        """Forget the calls before."""
        self.phone.snapshot()  # what came of them has been told
        self.events.clear()

    def calls(self, user: str) -> None:
        self.forgets()
        self.phone.call(user)

    def comes(self, state: CallState, timeout: float = 10.0) -> None:
        """Returns once its call is in this state."""
        wait_until(lambda: self.state is state, timeout, lambda: self.seen)

    def sees(self, condition, timeout: float = 10.0) -> None:
        wait_until(lambda: condition(self.call), timeout, lambda: self.seen)

    @property
    def digits(self) -> str:
        return "".join(event.digit for event in self.told(DigitPassed) if not event.sent)

    @property
    def seen(self) -> list[str]:
        calls = [f"{e.call.state.value}: {e.call.sentence}" for e in self.told(CallChanged)]
        return calls[-6:] + [event.summary for event in self.told(MessagePassed)][-12:]

    def hears(self) -> None:
        """Returns once a tone of a fifth of a second has come from now on."""
        before = self.ear.loud
        wait_until(
            lambda: self.ear.loud > before + 10, note=lambda: (self.seen, self.phone.media_stats())
        )


class Theirs:
    """A foreign phone: the orders and questions that every kind takes. `said` is all of its output. `proxy`: where
    it registers and sends everything; without one it is called at its own address."""

    rejects = "declined the call"

    def __init__(
        self,
        scene: Scene,
        proxy: tuple[str, int] | None,
        user: str = "bob",
        password: str = PASSWORDS["bob"],
        **options: object,
    ) -> None:
        self.user, self.password = user, password
        self.folder = scene.new_folder(type(self).__name__.lower())
        self.port = free_port()
        self._since = 0
        self._start(scene, format_address(proxy) if proxy else "", **options)

    def _start(self, scene: Scene, proxy: str) -> None:
        raise NotImplementedError

    @property
    def uri(self) -> str:
        return f"sip:{self.user}@127.0.0.1:{self.port}"

    @property
    def said(self) -> str:
        raise NotImplementedError

    def mark(self) -> None:
        """What it says from now on is news."""
        self._since = len(self.said)

    def says(self, pattern: str, timeout: float = 10.0) -> None:
        """Returns once it has said this since the last mark."""
        wait_until(
            lambda: re.search(pattern, self.said[self._since :]), timeout, lambda: self.said[-2500:]
        )

    def _recordings(self) -> list[Path]:
        raise NotImplementedError

    def hears(self) -> None:
        """Returns once a tone of a fifth of a second has come to its ear from now on."""
        before = {file: file.stat().st_size for file in self._recordings()}

        def loud() -> bool:
            return sum(_loud(file, before.get(file, 0)) for file in self._recordings()) > 300

        wait_until(loud, note=lambda: (before, self.said[-1500:]))

    def hears_again(self) -> None:
        """The same after a hold."""
        self.hears()


def _loud(file: Path, start: int) -> int:
    """How many samples beyond this octet of a recording are loud. One that is shorter by now was
    begun anew."""
    heard = array("h")
    data = file.read_bytes()
    data = data[start if start <= len(data) else 0 :][
        44 if start == 0 else 0 :
    ]  # 44: the header of a wav file
    heard.frombytes(data[: len(data) // 2 * 2])
    return sum(sample > LOUD for sample in heard)


class Baresip(Theirs):
    """baresip, told over its control port and telling its events there."""

    rejects = "is busy"  # its way to decline is 486

    def _start(self, scene: Scene, proxy: str, expires: int = 60) -> None:
        control = free_port()
        text = BARESIP.format(modules=MODULES, control=control, port=self.port, folder=self.folder)
        self.folder.joinpath("config").write_text(text)
        account = f'"{self.user.capitalize()}" <{self.uri}>;regint=0'
        if proxy:
            account = f'"{self.user.capitalize()}" <sip:{self.user}@{DOMAIN}>;regint={expires}'
            account += f';outbound="sip:{proxy}";auth_pass="{self.password}"'
        self.folder.joinpath("accounts").write_text(account + "\n")
        self.folder.joinpath("contacts").write_text("")
        self._said = ""
        self.process = scene.start(
            "baresip", ["baresip", "-4", "-f", str(self.folder)], self.folder
        )
        wait_until(lambda: "baresip is ready" in self.process.said, note=lambda: self.process.said)
        self._control = socket.create_connection(("127.0.0.1", control))
        self._control.setblocking(False)

    @property
    def said(self) -> str:
        with contextlib.suppress(BlockingIOError):
            while data := self._control.recv(65536):
                self._said += data.decode(errors="replace")
        return self._said

    def stop(self) -> None:
        """It takes its leave of its registrar."""
        self._control.close()
        self.process.stop()

    def _tell(self, command: str, parameters: str = "") -> None:
        message = json.dumps({"command": command, "params": parameters}).encode()
        self._control.setblocking(True)
        self._control.sendall(b"%d:%s," % (len(message), message))
        self._control.setblocking(False)

    def registers(self) -> None:
        wait_until(lambda: "200 OK" in self.process.said, note=lambda: self.process.said)

    def call(self, target: str) -> None:
        """A user, or an address."""
        self.mark()
        self._tell("dial", target if target.startswith("sip:") else f"sip:{target}@{DOMAIN}")

    def rings(self) -> None:
        self.says("CALL_INCOMING")

    def answer(self) -> None:
        self._tell("accept")

    def hang_up(self) -> None:
        self._tell("hangup")

    decline = cancel = hang_up

    def hold(self) -> None:
        self._tell("hold")

    def resume(self) -> None:
        self._tell("resume")

    def dial(self, digit: str) -> None:
        self._tell("sndcode", digit)

    def gets_digit(self, digit: str) -> None:
        self.says(rf'CALL_DTMF_START"[^}}]*"param":"{re.escape(digit)}"')

    def talks(self) -> None:
        self.says("CALL_ESTABLISHED")

    def is_free(self) -> None:
        self.says("CALL_CLOSED")

    def is_told(self, status: int) -> None:
        self.says(rf'CALL_CLOSED"[^}}]*"param":"{status}')

    def _recordings(self) -> list[Path]:
        return list(self.folder.glob("dump-*-dec.wav"))

    def hears_again(self) -> None:
        """baresip 1.0 does not go on recording after a hold, so its count of RTP packets stands
        in for its ear."""
        before = self._packets()
        wait_until(lambda: self._packets() > before + 10, note=lambda: self.said[-1500:])

    def _packets(self) -> int:
        start = len(self.said)
        self._tell("audio_debug")
        found = wait_until(
            lambda: re.search(r"psent=\d+ rcvd=(\d+)", self.said[start:]),
            note=lambda: self.said[start:],
        )
        return int(found[1])


class Linphone(Theirs):
    """linphonec, told on its standard input, with wav files in place of a sound card."""

    def _start(self, scene: Scene, proxy: str, friend: str = "") -> None:
        """`friend`: a user whose presence it subscribes to; it publishes its own then."""
        self._wav = self.folder / "tone.wav"
        tone, data = ToneSource(), array("h")
        for _ in range(400):
            data += tone.read(160)
        with wave.open(str(self._wav), "wb") as opened:
            opened.setnchannels(1)
            opened.setsampwidth(2)
            opened.setframerate(8000)
            opened.writeframes(data.tobytes())
        file = self.folder / "linphonerc"
        self.folder.joinpath(".local/share/linphone").mkdir(parents=True)
        text = LINPHONE.format(
            port=self.port,
            media=free_port(MEDIA),
            proxy=proxy,
            domain=DOMAIN,
            name=self.user.capitalize(),
            user=self.user,
            password=self.password,
            publish=int(bool(friend)),
        )
        file.write_text(text + (FRIEND.format(friend=friend, domain=DOMAIN) if friend else ""))
        self._calls = self._over = 0
        self._log = self.folder / "log"
        self._log.touch()
        arguments = ["linphonec", "-c", str(file), "-d", "4", "-l", str(self._log)]
        self.process = scene.start(
            "linphonec", arguments, self.folder, input=True, environ={"HOME": str(self.folder)}
        )
        self._tell("soundcard use files")
        for line in ("codec disable all", "codec enable 3", "codec enable 4"):  # PCMU, PCMA
            self._tell(line)

    @property
    def said(self) -> str:
        return self.process.said

    @property
    def logged(self) -> str:
        return self._log.read_text(errors="replace")

    def messages(self, start: str) -> list[str]:
        """The SIP messages, sent and received, whose first line begins so."""
        return re.findall(rf"(?ms)^{re.escape(start)}.*?^\s*$", self.logged)

    def stop(self) -> None:
        with contextlib.suppress(OSError):  # it has ended
            self._tell("quit")
        self.process.stop()

    def _tell(self, line: str) -> None:
        self.process.tell(line)

    def registers(self) -> None:
        wait_until(lambda: "LinphoneRegistrationOk" in self.logged, note=lambda: self.said)

    def call(self, user: str) -> None:
        self.mark()
        self._log_since = len(self.logged)
        self._tell(f"call sip:{user}@{DOMAIN}")

    def rings(self) -> None:
        self.says("Receiving new incoming call")

    def answer(self) -> None:
        self._tell("answer")

    def hang_up(self) -> None:
        self._tell("terminate")

    decline = cancel = hang_up

    def hold(self) -> None:
        self._tell("pause")
        self.says("is now paused")

    def resume(self) -> None:
        self._tell("resume")

    def dial(self, digit: str) -> None:
        self._tell(digit)

    def gets_digit(self, digit: str) -> None:
        self.says(f"Receiving tone {re.escape(digit)}")

    def talks(self) -> None:
        self.says("Media streams established")
        self._calls += 1
        self._tell(f"play {self._wav}")
        self._tell(f"record {self.folder}/heard{self._calls}.wav")

    def is_free(self) -> None:
        self._over += 1
        self.says(r"Call \d+ with .* ended|error")
        wait_until(
            lambda: self.logged.count("to LinphoneCallReleased") == self._over,
            note=lambda: self.said,
        )

    def is_told(self, status: int) -> None:
        told = rf"SIP/2\.0 {status} (?:.+\n)*CSeq: \d+ INVITE"
        wait_until(
            lambda: re.search(told, self.logged[self._log_since :]), note=lambda: self.said[-1500:]
        )

    def _recordings(self) -> list[Path]:
        return list(self.folder.glob("heard*.wav"))
