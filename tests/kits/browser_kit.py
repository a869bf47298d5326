"""Debian's chromium without a screen, driven through chromedriver's WebDriver protocol (W3C) with
the standard library.

Skips where there is none. Everything stays on 127.0.0.1, and no process outlives the fixture.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import urllib.error
import urllib.request

import pytest
from process_kit import wait_until

PATIENCE = 30.0  # seconds a browser may take for one thing on a busy computer
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key under which WebDriver names an element
KEYS = {"Tab": "\ue004", "Enter": "\ue007"}


def arguments(profile):
    return [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--hide-scrollbars",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
        "--disable-extensions",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        f"--user-data-dir={profile}",
    ]


class Browser:
    """One window. `port`: a free one, for chromedriver; `folder`: for the profile and the drivers'
    words."""

    def __init__(self, port, folder):
        driver, chromium = shutil.which("chromedriver"), shutil.which("chromium")
        if not driver or not chromium:
            pytest.skip(
                "there is no chromium here with its chromedriver (apt-get install chromium "
                "chromium-driver)"
            )
        self._root = f"http://127.0.0.1:{port}"
        self._session = ""
        # A session of its own: what chromedriver starts, and leaves if it is killed, is found by
        # that.
        with (folder / "chromedriver.log").open("wb") as log:
            self._process = subprocess.Popen(
                [driver, f"--port={port}", "--allowed-ips=127.0.0.1"],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "HOME": str(folder), "TMPDIR": str(folder)},
            )
        try:
            self._wait_for_driver()
            options = {"args": arguments(folder / "profile"), "binary": chromium}
            wishes = {
                "browserName": "chrome",
                "goog:chromeOptions": options,
                "goog:loggingPrefs": {"browser": "ALL"},
            }
            self._session = self._call(
                "POST", "/session", {"capabilities": {"alwaysMatch": wishes}}
            )["sessionId"]
        except BaseException:
            self.close()
            raise

    def open(self, url):
        self._do("POST", "/url", {"url": url})

    def run(self, script, *given):
        """The value that a function with this body returns; `given` are its arguments."""
        return self._do("POST", "/execute/sync", {"script": script, "args": list(given)})

    def find(self, css):
        return self._do("POST", "/element", {"using": "css selector", "value": css})[ELEMENT]

    def text(self, css="body"):
        """As it is shown."""
        return self._do("GET", f"/element/{self.find(css)}/text")

    def click(self, css):
        self._do("POST", f"/element/{self.find(css)}/click", {})

    def press(self, key):
        steps = [{"type": kind, "value": KEYS[key]} for kind in ("keyDown", "keyUp")]
        self._do(
            "POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": steps}]}
        )

    def screen(self, width, height, scale=1.0, mobile=False):
        self._devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=mobile,
        )

    def phone(self):
        self.screen(360, 640, 2.0, mobile=True)

    def prefer(self, **media):
        """prefer(color_scheme="dark", reduced_motion="reduce"): what the system asks pages for."""
        features = [
            {"name": f"prefers-{name.replace('_', '-')}", "value": value}
            for name, value in media.items()
        ]
        self._devtools("Emulation.setEmulatedMedia", features=features)

    def picture(self, path, whole=False):
        """A PNG of what is seen, or of the page from top to bottom."""
        more = {}
        if whole:
            more = {
                "captureBeyondViewport": True,
                "clip": {
                    "x": 0,
                    "y": 0,
                    "scale": 1,
                    "width": self.run("return innerWidth"),
                    "height": self.run("return document.documentElement.scrollHeight"),
                },
            }
        shot = self._devtools("Page.captureScreenshot", format="png", **more)
        path.write_bytes(base64.b64decode(shot["data"]))

    def complaints(self):
        """What the console was told since it was asked last: errors of scripts, what the policy
        forbade."""
        return [
            each["message"]
            for each in self._do("POST", "/se/log", {"type": "browser"})
            if each["level"] != "INFO"
        ]

    def close(self):
        with contextlib.suppress(OSError, AssertionError):
            if self._session:
                self._do("DELETE", "")
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(PATIENCE)

    def _devtools(self, command, **params):
        return self._do("POST", "/goog/cdp/execute", {"cmd": command, "params": params})

    def _wait_for_driver(self):
        def is_ready():
            with contextlib.suppress(OSError):
                return self._call("GET", "/status")["ready"]

        wait_until(is_ready, PATIENCE, lambda: "chromedriver did not start")

    def _do(self, method, path, body=None):
        return self._call(method, f"/session/{self._session}{path}", body)

    def _call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._root + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            told = json.load(error)["value"]
            raise AssertionError(f"{told['error']}: {told['message']}") from None
