"""The audio of one call: two sockets and one thread around a Stream.

    session = MediaSession("127.0.0.1", source, sink, on_digit)
    session.port         # can be offered
    session.apply(plan)  # once agreed, and after each re-INVITE
    session.stop()

One thread makes, applies and stops it; `mute`, `dtmf` and `stats` may be called by any.
Only the media thread touches the stream, but for the queue of digits.
"""

from __future__ import annotations

import errno
import logging
import random
import secrets
import select
import socket
import sys
import threading
import time
from array import array
from collections.abc import Callable
from dataclasses import replace
from itertools import chain

from plumbing.throttled_log import ThrottledLog
from plumbing.udp_socket import bind_udp
from sip.sdp import MediaPlan
from softphone.media.audio_interfaces import AudioSink, AudioSource
from softphone.media.g711 import BLOCK
from softphone.media.jitter_buffer import SILENCE
from softphone.media.rtp import PacketClock
from softphone.media.stream import Datagram, Stream
from softphone.media.stream import MediaStats as MediaStats

LOG = logging.getLogger("media")

# even for RTP, the next for RTCP (RFC 3550 11), below the usual ephemeral ports
PORTS = range(16384, 32768, 2)
EXPEDITED = 46 << 2  # RFC 3246, as RFC 4594 4.1 advises for telephony
DATAGRAM = 4096
RECEIVE_BUFFER = 1 << 17  # octets, more than a second of sound
# Seconds a busy thread may keep Python to itself while another waits. A tick waits for its turn
# after each system call: beside a window that draws without pause, 5 ms (the default) made gaps of
# 45 ms, this makes 27.
TURN = 0.0005
TAKEN = (errno.EADDRINUSE, errno.EACCES)  # faults of a port, not of the address


class MediaSession:
    """`host`: where to listen; OSError names it if no ports are to be had there.
    `on_digit(digit, sent)` is called in the media thread for each digit that has come or, `sent`,
    left."""

    def __init__(
        self,
        host: str,
        source: AudioSource,
        sink: AudioSink,
        on_digit: Callable[[str, bool], None],
    ) -> None:
        self._sockets = bind_pair(host)
        self.port: int = self._sockets[0].getsockname()[1]
        self._source, self._sink, self._on_digit = source, sink, on_digit
        self._thread: threading.Thread | None = None
        self._stream: Stream | None = None
        # swapped whole; the thread looks at each tick
        self._agreed: tuple[MediaPlan, bool] | None = None
        self._stats = MediaStats()
        self._muted = False
        self._answered = True
        self._stopping = False
        self._log = ThrottledLog(LOG)  # a fault comes back with every tick

    def apply(self, plan: MediaPlan, held: bool = False, answered: bool = True) -> None:
        """Follow the plan of sip.sdp.plan(), first and after each re-INVITE. `held`: we hold, so
        nothing is sent or played (RFC 3264 8.4; a direction alone cannot tell a hold from a
        listener that never speaks). Until the call is `answered`, what there is of the other side
        is heard, and silence is sent, which keeps NATs open: nobody has said yet that this person
        may be listened to."""
        self._answered = answered
        self._agreed = plan, held
        if self._thread is not None:
            return
        # RFC 7022 4.2: says nothing of the person or the computer
        cname = secrets.token_urlsafe(12)
        self._stream = Stream(
            plan, lambda: random.getrandbits(32), cname, time.monotonic(), time.time()
        )
        # a program that dies without stop() shall not hang here
        self._thread = threading.Thread(
            target=self._run, args=(self._stream,), name=f"media-{self.port}", daemon=True
        )
        self._thread.start()

    def mute(self, muted: bool) -> None:
        """Say nothing; packets of silence go on, so that the other side sees the call alive."""
        self._muted = muted

    def dtmf(self, digit: str) -> None:
        """Send a digit as telephone-event; ValueError if it is none or the other side takes
        none."""
        stream = self._stream
        if stream is None or stream.plan.telephone_event is None:
            raise ValueError("the other side takes no digits")
        stream.digits.press(digit)

    def stats(self) -> MediaStats:
        """As of the last tick; cheap, no lock."""
        return self._stats

    def stop(self, timeout: float = 1.0) -> None:
        """Say goodbye and leave no thread and no socket; twice is fine. RuntimeError if the thread
        does not end."""
        self._stopping = True
        thread = self._thread
        if thread is None:
            self._close()
            return
        thread.join(timeout)
        if thread.is_alive():
            raise RuntimeError(f"{thread.name} has not ended within {timeout} s")

    # ---- media thread only ----

    def _run(self, stream: Stream) -> None:
        sys.setswitchinterval(min(TURN, sys.getswitchinterval()))
        try:
            self._forget_what_came_early()
            # the first turn agrees: the stream's plan may be old by now
            agreed: tuple[MediaPlan, bool] | None = None
            pacer = PacketClock(time.monotonic())
            while not self._stopping:
                if self._agreed is not agreed:
                    agreed = self._agreed
                    if agreed:
                        stream.configure(*agreed)
                try:
                    self._step(stream, pacer)
                except Exception as error:  # a defect of ours must not end the call's sound
                    self._complain("a step", error)
                    time.sleep(0.02)
            self._send(1, stream.goodbye(time.monotonic()))
            self._stats = replace(self._stats, level_in=0.0, level_out=0.0)
        finally:
            self._close()

    def _step(self, stream: Stream, pacer: PacketClock) -> None:
        now = time.monotonic()
        missed, ticks = pacer.due(now)
        if missed:
            stream.pass_time(missed)
        for _ in range(ticks):
            self._tick(stream, now)
        ready, _, _ = select.select(
            self._sockets, (), (), max(pacer.deadline - time.monotonic(), 0.0)
        )
        for sock in ready:
            self._receive(stream, sock)

    def _tick(self, stream: Stream, now: float) -> None:
        self._send(0, stream.send(self._read(), now))
        for begun in stream.digits.take_begun():
            self._on_digit(begun, True)
        samples = stream.play()
        try:
            self._sink.write(samples)
        except Exception as error:
            self._complain("playing", error)
        self._send(1, stream.report(now))
        self._stats = stream.stats(now)

    def _read(self) -> array[int]:
        if not self._answered:
            return SILENCE  # and the microphone stays off
        try:
            samples = self._source.read(BLOCK)
        except Exception as error:
            self._complain("recording", error)
            return SILENCE
        if self._muted:
            return SILENCE
        return samples if len(samples) == BLOCK else samples[:BLOCK] + SILENCE[len(samples) :]

    def _send(self, index: int, datagram: Datagram | None) -> None:
        if datagram is None:
            return
        remote, data = datagram
        try:
            self._sockets[index].sendto(data, remote)
        except OSError as error:
            self._complain(f"sending to {remote[0]} port {remote[1]}", error)

    def _receive(self, stream: Stream, sock: socket.socket) -> None:
        try:
            data, source = sock.recvfrom(DATAGRAM)
        except OSError:  # nothing there after all, or (Windows) the answer to an earlier sendto
            return
        now = time.monotonic()
        if sock is not self._sockets[0]:
            stream.receive_report(data, source[:2], now)
            return
        digit = stream.receive(data, source[:2], now)
        if digit:
            self._on_digit(digit, False)

    def _forget_what_came_early(self) -> None:
        # Sound that waited in the socket since before the answer would be played late, all of it.
        for sock in self._sockets:
            for _ in range(1000):
                try:
                    sock.recvfrom(DATAGRAM)
                except OSError:
                    break

    def _complain(self, doing: str, error: Exception) -> None:
        text = f"media port {self.port}: {doing} failed: {error}"
        self._log.say(doing, logging.WARNING, text)

    def _close(self) -> None:
        for sock in self._sockets:
            sock.close()


def bind_pair(host: str) -> tuple[socket.socket, socket.socket]:
    """Sockets for RTP and, one port above, RTCP; OSError with the host in it."""
    start = random.randrange(len(PORTS))
    fault = OSError()
    for port in chain(PORTS[start:], PORTS[:start]):
        sockets: list[socket.socket] = []
        try:
            for number in (port, port + 1):
                sockets.append(bind_udp((host, number), receive_buffer=RECEIVE_BUFFER))
                if ":" not in host:
                    sockets[-1].setsockopt(socket.IPPROTO_IP, socket.IP_TOS, EXPEDITED)
            return sockets[0], sockets[1]
        except OSError as error:
            fault = error
            for sock in sockets:
                sock.close()
            if error.errno not in TAKEN:
                break
    wanted = f"two ports from {PORTS[0]} to {PORTS[-1] + 1}"
    raise OSError(fault.errno, f"no {wanted} free on {host} for sound: {fault}")
