"""Telling somebody: a command or a webhook when an alarm begins. That it fails is noted, and never ends a monitor."""

from __future__ import annotations

import shlex
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from aldriver.core.errors import InputError
from aldriver.core.records import dumps

TIMEOUT_S = 20.0


class Alarms:
    """Tells of alarms in the background.

    Parameters
    ----------
    command
        Words of a command line; it gets the alarm as JSON on its standard input.
    webhook
        http(s) address that the JSON is posted to. Only its host is ever shown: the rest may hold a token.

    Attributes
    ----------
    problems
        What went wrong, in words; the caller empties it.

    Raises
    ------
    InputError
        When the command cannot be split into words, or the address is no http(s) address.
    """

    def __init__(self, *, command: str | None = None, webhook: str | None = None, timeout_s: float = TIMEOUT_S) -> None:
        try:
            self._command = shlex.split(command) if command else []
        except ValueError as error:
            raise InputError(f"--on-alarm: cannot be split into words ({error})") from error
        self._webhook, self._timeout_s = webhook, timeout_s
        self._host = ""
        if webhook is not None:
            parts = urllib.parse.urlsplit(webhook)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise InputError("--webhook: not an address that begins with http:// or https://")
            self._host = parts.hostname
        self._threads: list[threading.Thread] = []
        self.problems: list[str] = []

    def tell(self, facts: dict[str, Any]) -> None:
        """Start telling; returns at once."""
        text = dumps(facts)
        for wanted, target in ((self._command, self._run), (self._webhook, self._post)):
            if wanted:
                thread = threading.Thread(target=target, args=(text,), daemon=True)
                thread.start()
                self._threads.append(thread)

    def wait(self) -> None:
        """Wait for what is still being told, not longer than its time limit."""
        for thread in self._threads:
            thread.join(self._timeout_s + 5.0)
        self._threads.clear()

    def _run(self, text: str) -> None:
        try:
            done = subprocess.run(
                self._command, input=text.encode(), capture_output=True, timeout=self._timeout_s, check=False
            )
        except (OSError, subprocess.SubprocessError) as error:
            why = "took too long" if isinstance(error, subprocess.TimeoutExpired) else str(error)
            self.problems.append(f"the command of --on-alarm ({self._command[0]}) failed: {why}")
            return
        if done.returncode:
            self.problems.append(f"the command of --on-alarm ({self._command[0]}) ended with {done.returncode}")

    def _post(self, text: str) -> None:
        assert self._webhook is not None
        request = urllib.request.Request(
            self._webhook, data=text.encode(), headers={"Content-Type": "application/json"}, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as answer:
                answer.read(1024)
        except urllib.error.HTTPError as error:
            self.problems.append(f"the webhook at {self._host} answered {error.code}")
        except Exception as error:  # names, sockets, TLS, time: their words may quote the address
            self.problems.append(f"the webhook at {self._host} failed ({type(error).__name__})")
