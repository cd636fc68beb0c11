"""A worker process in another Python, and messages with it. What is said is its users' business.

The worker ends with this process however that ends, because it ends with its standard input (``wire.take_pipes``).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from aldriver.core import errors
from aldriver.core.config import required_python
from aldriver.core.errors import AldriverError, InputError
from aldriver.potentials.families import PACKAGES
from aldriver.potentials.wire import PROTOCOL, Arrays, receive, send

INSIDE = "ALDRIVER_WORKER"
"""Environment variable of workers: the family they were started for."""
LAST_WORDS = 12
"""Lines of a dead worker's standard error that are shown."""


class OtherPython:
    """A running worker process.

    Parameters
    ----------
    family
        Of potentials; decides which Python (``core/config.py``).
    module
        What is run there, with `arguments`; it begins with ``wire.take_pipes``.

    Raises
    ------
    InputError
        When no Python is configured, or this process is itself such a worker.
    AldriverError
        When it cannot be started.
    """

    def __init__(self, family: str, module: str, arguments: tuple[str, ...] = ()) -> None:
        self.python = python_for(family)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        environment = dict(os.environ) | {INSIDE: family}
        if (threads := threads_here()) is not None:
            environment["OMP_NUM_THREADS"] = environment["MKL_NUM_THREADS"] = str(threads)
        try:
            self._process = subprocess.Popen(
                [str(self.python), "-m", module, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=environment,
                process_group=0,  # Ctrl-C is for this process: the worker ends with its pipe
            )
        except OSError as error:
            self._errors.close()
            raise AldriverError(f"{self.python}: cannot be started ({error})") from error
        self.owner = os.getpid()
        self.close = weakref.finalize(self, _end, self._process, self._errors, self.owner)
        hello = self.receive("starting; it needs aldriver and the family's package")[0]
        if hello.get("protocol") != PROTOCOL:
            self.close()
            raise AldriverError(f"{self.python}: has another version of aldriver; install this one there")

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def send(self, body: Mapping[str, Any], arrays: Arrays | None = None) -> None:
        """Say something; a worker that is gone is noticed when it is listened to."""
        try:
            send(self._process.stdin, body, arrays)  # type: ignore[arg-type]
        except OSError:
            pass
        except BaseException:
            self.close()
            raise

    def receive(self, doing: str) -> tuple[dict[str, Any], Arrays]:
        """What the worker says next.

        Raises
        ------
        AldriverError
            What the worker raised; or that it ended while `doing` something, with its last words.
        """
        try:
            body, arrays = receive(self._process.stdout)  # type: ignore[arg-type]
        except (OSError, EOFError, ValueError) as error:
            raise self._obituary(doing) from error
        except BaseException:  # interrupted half-way: what comes next would be misunderstood
            self.close()
            raise
        if "error" in body:
            kind = getattr(errors, str(body["error"]), AldriverError)
            raise kind(body["message"])
        return body, arrays

    def _obituary(self, doing: str) -> AldriverError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5.0)
        status = self._process.poll()
        self._errors.seek(0)
        words = self._errors.read().decode(errors="replace").strip().splitlines()[-LAST_WORDS:]
        self.close()
        said = "; it said:\n" + "\n".join(words) if words else ", without a word"
        return AldriverError(f"the worker process in {self.python} ended while {doing} (exit status {status}){said}")


def python_for(family: str) -> Path:
    """The Python in which a family runs when it cannot in this one.

    Raises
    ------
    InputError
        When none is configured, or this process was started as that Python: it has not what it should have.
    """
    if os.environ.get(INSIDE) == family:
        raise InputError(
            f"{sys.executable}: is configured for the family '{family}' but lacks the package {PACKAGES[family]}; "
            "install it there, or configure another Python"
        )
    return required_python(family)


def threads_here() -> int | None:
    """CPU threads of this process, where torch has been told; a worker uses as many."""
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch is not None else None


def _end(process: subprocess.Popen[bytes], errors_file: IO[bytes], owner: int) -> None:
    """Close the pipes, which ends the worker at once."""
    if os.getpid() != owner:  # a fork of the owner: the worker is not ours
        return
    for stream in (process.stdin, process.stdout, errors_file):
        with suppress(OSError):
            stream.close()  # type: ignore[union-attr]
    try:
        process.wait(5.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
