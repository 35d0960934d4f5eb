"""A headless browser for tests: what a page says, asks for, and how it fits a width.

Speaks the DevTools protocol over two pipes, so that no further library is needed. Skip a test without `BROWSER`.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--remote-debugging-pipe",
)  # fmt: skip
DEADLINE_S = 60.0
WIDER = """[...document.querySelectorAll('body *')].filter(e => {
  const box = e.getBoundingClientRect();
  if (!box.width || box.right <= document.documentElement.clientWidth + 1) return false;
  for (let up = e.parentElement; up; up = up.parentElement)
    if (['auto', 'scroll', 'hidden', 'clip'].includes(getComputedStyle(up).overflowX) && up !== document.body) return false;
  return true;
}).map(e => e.tagName.toLowerCase() + '.' + (e.getAttribute('class') || '') + ' ' + e.textContent.slice(0, 40))"""


@dataclass(frozen=True)
class Seen:
    """What became of a page."""

    console: tuple[str, ...]  # errors and warnings, uncaught exceptions and failed loads
    requests: tuple[str, ...]  # every address that was asked for, data: left out
    wider: tuple[
        str, ...
    ]  # elements that stick out of the window to the right, outside of a part that scrolls

    def elsewhere(self, start: str) -> list[str]:
        """The requests that do not begin with `start`."""
        return [address for address in self.requests if not address.startswith(start)]


class Browser:
    """One browser with one page, for a `with`."""

    def __init__(self, profile: Path) -> None:
        self.profile, self.count, self.events, self.rest = profile, 0, [], b""

    def __enter__(self) -> Browser:
        mine, theirs = zip(*(os.pipe() for _ in range(2)), strict=True)  # two pipes, read end and write end
        (theirs_in, mine_in), (mine_out, theirs_out) = (mine[0], theirs[0]), (mine[1], theirs[1])
        # From 10 on: the browser wants 3 and 4, and neither may be overwritten before it is used.
        given = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs_in, theirs_out)]
        words = ["bash", "-c", f'exec "$@" 3<&{given[0]} 4>&{given[1]}', "browser", str(BROWSER), *FLAGS]
        self.process = subprocess.Popen(
            [*words, f"--user-data-dir={self.profile}", "about:blank"], pass_fds=given, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for end in (theirs_in, theirs_out, *given):
            os.close(end)
        self.reading, self.writing = mine_out, mine_in
        self.session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.process.terminate()
        self.process.wait(20)
        os.close(self.reading)
        os.close(self.writing)

    def call(self, method: str, **given: Any) -> dict[str, Any]:
        """Ask the browser for something; what it answers."""
        self.count += 1
        asked = {"id": self.count, "method": method, "params": given}
        if self.session:
            asked["sessionId"] = self.session
        os.write(self.writing, json.dumps(asked).encode() + b"\0")
        while True:
            told = self._next()
            if told.get("id") == self.count:
                if "error" in told:
                    raise RuntimeError(f"{method}: {told['error']}")
                return told["result"]
            self.events.append(told)

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + DEADLINE_S
        while b"\0" not in self.rest:
            if not select.select([self.reading], [], [], max(end - time.monotonic(), 0))[0]:
                raise TimeoutError(f"the browser said nothing for {DEADLINE_S:.0f} s")
            got = os.read(self.reading, 1 << 20)
            if not got:
                raise RuntimeError("the browser ended")
            self.rest += got
        one, _, self.rest = self.rest.partition(b"\0")
        return json.loads(one)

    def look(self, address: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> Seen:
        """Open a page at a width in px, as a phone would below 500, and wait until it is quiet."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url="about:blank")
        self._until("Page.loadEventFired")
        self.events.clear()
        self.call("Page.navigate", url=address)
        self._until("Page.loadEventFired")
        self.ask(
            "new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))"
        )  # scripts that draw have drawn
        return Seen(
            console=tuple(filter(None, map(_complaint, self.events))),
            requests=tuple(_requested(self.events)),
            wider=tuple(self.ask(WIDER)),
        )

    def _until(self, method: str) -> None:
        while not any(told.get("method") == method for told in self.events):
            self.events.append(self._next())

    def ask(self, expression: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        got = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in got:
            raise RuntimeError(f"{expression[:80]}: {_thrown(got['exceptionDetails'])}")
        return got["result"].get("value")

    def picture(self, out: Path) -> Path:
        """The whole page as a PNG."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        out.write_bytes(base64.b64decode(shot["data"]))
        return out


def _complaint(told: dict[str, Any]) -> str:
    given = told.get("params", {})
    if told.get("method") == "Runtime.exceptionThrown":
        return _thrown(given["exceptionDetails"])
    if told.get("method") == "Runtime.consoleAPICalled" and given["type"] in ("error", "warning", "assert"):
        return " ".join(str(word.get("value", word.get("description"))) for word in given["args"])
    if told.get("method") == "Log.entryAdded" and given["entry"]["level"] in ("error", "warning"):
        return given["entry"]["text"]
    return ""


def _thrown(details: dict[str, Any]) -> str:
    return details.get("exception", {}).get("description") or details["text"]


def _requested(events: list[dict[str, Any]]) -> list[str]:
    sent = [
        told["params"]["request"]["url"]
        for told in events
        if told.get("method") == "Network.requestWillBeSent"
    ]
    return [address for address in sent if not address.startswith("data:")]
