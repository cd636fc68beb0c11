"""Headless Chromium over the DevTools protocol's pipe: open a page at a given width and scheme, ask it, photograph it.

Also a command: ``python tests/report/report_browser.py REPORT.html OUT.png [WIDTH] [dark]``.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-extensions",
    "--hide-scrollbars",
)


def find() -> str | None:
    """The browser's executable, or None where there is none."""
    return next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)


class Browser:
    """One browser with one page; a context manager."""

    def __init__(self, executable: str, timeout: float = 60.0) -> None:
        self.timeout, self.count, self.buffer = timeout, 0, b""
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.profile = tempfile.TemporaryDirectory(prefix="aldriver-chromium-", ignore_cleanup_errors=True)
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        # the protocol's pipe is file descriptor 3 (commands) and 4 (answers) of the browser
        script = f'exec 3<&{theirs_in} 4>&{theirs_out}; exec "$0" "$@"'
        flags = [*FLAGS, "--remote-debugging-pipe", f"--user-data-dir={self.profile.name}", "about:blank"]
        self.process = subprocess.Popen(
            ["bash", "-c", script, executable, *flags],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.reader, self.writer, self.session = ours_in, ours_out, ""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.reader)
        os.close(self.writer)
        self.profile.cleanup()

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a protocol method and wait for its answer, noting console errors and requests on the way."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.writer, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + self.timeout
        while True:
            answer = self._read(deadline)
            if answer.get("id") == self.count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._event(answer)

    def _read(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.reader], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(self.reader, 1 << 20) if ready else b""
            if not chunk:
                raise TimeoutError("the browser does not answer")
            self.buffer += chunk
        text, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(text)

    def _event(self, message: dict[str, Any]) -> None:
        method, params = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"].get("exception", params["exceptionDetails"])))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.errors.append(str([a.get("value", a.get("description")) for a in params["args"]]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def open(self, page: Path, *, width: int, height: int = 900, scheme: str = "light") -> None:
        """Show a page in a window of this width (a real layout width, also below 500 px) until it is drawn."""
        self.errors.clear()
        self.requests.clear()
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.send("Page.navigate", url=page.resolve().as_uri())
        deadline = time.monotonic() + self.timeout
        while self.ask("document.documentElement?.dataset.ready ?? ''") != scheme:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{page} is not drawn after {self.timeout} s; console: {self.errors}")
            time.sleep(0.1)

    def ask(self, expression: str) -> Any:
        """Value of a JavaScript expression in the page."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def photograph(self, out: Path, *, full: bool = True) -> Path:
        """Save a PNG of the whole page, or of the window."""
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=full)
        out.write_bytes(base64.b64decode(shot["data"]))
        return out


if __name__ == "__main__":
    page, out, *rest = sys.argv[1:]
    width = next((int(a) for a in rest if a.isdigit()), 1280)
    with Browser(find() or "chromium") as browser:
        browser.open(Path(page), width=width, scheme="dark" if "dark" in rest else "light")
        browser.photograph(Path(out))
        print(browser.errors, browser.requests[1:])
