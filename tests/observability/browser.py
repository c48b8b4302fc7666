"""Headless Chromium, told what to do over its debugging pipe (chromium's DevTools protocol, a JSON message a time)."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: Quiet, and without connections of its own.
CHROMIUM = [
    *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,1800"),
]
_READS, _WRITES = 3, 4


def browse(profile: Path, *arguments: str) -> tuple[str, str]:
    """What Chromium prints, and what it complains of in the page. ``profile`` is a directory of its own."""
    done = subprocess.run(
        [*CHROMIUM, f"--user-data-dir={profile}", "--enable-logging=stderr", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


class Tab:
    """A page that is looked at."""

    def __init__(self, to: int, answers: int) -> None:
        self._to = to
        self._answers = os.fdopen(answers, "rb", buffering=0)
        self._id = 0
        self._rest = b""
        self._session: str | None = None
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._call("Page.enable")

    def open(self, address: str, width: int, *, dark: bool = False) -> None:
        """Load a page on a screen that is ``width`` pixels wide; the page's scripts would run."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._call("Page.navigate", url=address)
        while self._next().get("method") != "Page.loadEventFired":
            pass

    def value(self, expression: str) -> Any:
        """What JavaScript of ours says of the page; no policy of the page's holds for it."""
        found = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def picture(self, path: Path, most: int = 2400) -> None:
        """The page from its top on, up to ``most`` pixels, as a PNG."""
        width, height = self.value("[innerWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": width, "height": min(height, most), "scale": 1}
        shot = self._call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        """End the browser."""
        self._session = None
        self._call("Browser.close")
        self._answers.close()
        os.close(self._to)

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._id += 1
        message = {"id": self._id, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._id:
            pass
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = self._answers.read(1 << 16)
            assert part, "Chromium has ended"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        loaded: dict[str, Any] = json.loads(message)
        return loaded


@contextmanager
def browser() -> Iterator[Tab]:
    """A browser with one tab."""
    reads, to = os.pipe()
    answers, writes = os.pipe()

    def plumb() -> None:
        # Above both first: either may have the number of the other's place.
        first, second = os.dup(reads), os.dup(writes)
        os.dup2(first, _READS)
        os.dup2(second, _WRITES)

    with tempfile.TemporaryDirectory() as profile:
        process = subprocess.Popen(
            [*CHROMIUM, f"--user-data-dir={profile}", "--remote-debugging-pipe"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            close_fds=False, preexec_fn=plumb,
        )  # fmt: skip
        os.close(reads)
        os.close(writes)
        tab = Tab(to, answers)
        try:
            yield tab
        finally:
            tab.close()
            process.wait(120)


def picture(address: str, path: Path, width: int = 1280, *, dark: bool = False, opened: bool = False) -> None:
    """What a page looks like, as a PNG; ``opened``: with the first report open."""
    with browser() as tab:
        tab.open(address, width, dark=dark)
        if opened:
            tab.value("document.querySelector('details').open = true; 0")
        tab.picture(path)
