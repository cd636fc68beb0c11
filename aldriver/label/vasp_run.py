"""Runs VASP in the current folder, with custodian's help where it needs any; started by ``vasp.py`` as a script.

Owns the way custodian is used: only handlers that help the electrons converge, none that changes what they converge to.
Before each further run and at the end the inputs are compared with those intended; a handler that changed the physics
ends the label. What became of it is written to ``run.json``; whether the results are a label is ``vasp.py``'s business.

Custodian takes seconds to load. It does so while VASP runs, or when a run that ended is handed over (``resume``), so
that a short run that ends well does not pay for it. For the same reason nothing but the standard library is imported up
here.
"""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from custodian import Custodian
    from custodian.vasp.jobs import VaspJob

REQUEST, ANSWER = "request.json", "run.json"
STDOUT, STDERR = "vasp.out", "std_err.txt"
ORIGINAL = "inputs.json"
_INPUTS = ("INCAR", "KPOINTS", "POSCAR")
_POLL_S = 0.5
_ALONE_S = 30.0


class SettingsDriftError(Exception):
    """A handler changed what decides the numbers."""


def main() -> int:
    """Entry point; the exit status is 0 whenever there is an answer."""
    running: dict[str, subprocess.Popen[bytes]] = {}

    def stop(_signum: int, _frame: FrameType | None) -> None:
        # VASP has a session of its own (so that custodian can end it with its ranks): nobody else will tell it
        if "vasp" in running:
            end(running["vasp"])
        sys.exit(143)

    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, stop)
    request = json.loads(Path(REQUEST).read_text())
    if not request["resume"]:
        Path(ORIGINAL).write_text(json.dumps({name: Path(name).read_text() for name in _INPUTS}))
        running["vasp"] = start(request["command"])
        ended = _wait(running["vasp"], min(_ALONE_S, request["silence_s"]))
        if ended is not None:
            return _answer("crashed" if ended else "done", f"exit status {ended}" if ended else "", [])
    return _answer(*_with_custodian(request, running))


def start(command: list[str]) -> subprocess.Popen[bytes]:
    """Start VASP in a session of its own."""
    with Path(STDOUT).open("wb") as out, Path(STDERR).open("wb") as err:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)


def end(process: subprocess.Popen[bytes], *, grace_s: float = 3.0) -> None:
    """End VASP and all of its session: SIGTERM, then SIGKILL."""
    import os

    for signum in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        try:
            os.killpg(process.pid, signum)
            process.wait(grace_s)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _answer(ending: str, message: str, corrections: list[dict[str, Any]]) -> int:
    Path(ANSWER).write_text(json.dumps({"ending": ending, "message": message, "corrections": corrections}))
    return 0


def _with_custodian(
    request: dict[str, Any], running: dict[str, subprocess.Popen[bytes]]
) -> tuple[str, str, list[dict[str, Any]]]:
    """Go on under custodian; how it ended (see :func:`_run`), in words, and the corrections."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    original = json.loads(Path(ORIGINAL).read_text())
    runner = _custodian(_job(request, original, running), request, running)
    ending, message = _run(runner, original)
    return ending, message, _corrections(runner)


def _job(request: dict[str, Any], original: dict[str, str], running: dict[str, subprocess.Popen[bytes]]) -> VaspJob:
    from custodian.vasp.jobs import VaspJob

    class Job(VaspJob):
        """A VASP job that is under way already, and refuses to start again with other physics than was asked for."""

        begun = False

        def run(self, directory: str = "./") -> Any:
            """The run under way (None when it has ended); later ones are started."""
            if not self.begun:
                self.begun = True
                self._vasp_process = running.get("vasp")  # type: ignore[assignment]
                return self._vasp_process
            check_inputs(original)
            running["vasp"] = self._vasp_process = start(request["command"])
            return self._vasp_process

    return Job(
        request["command"],
        output_file=STDOUT,
        stderr_file=STDERR,
        backup=False,
        auto_gamma=False,
        terminate_timeout=3.0,
    )


def _custodian(job: VaspJob, request: dict[str, Any], running: dict[str, subprocess.Popen[bytes]]) -> Custodian:
    from custodian import Custodian
    from custodian.vasp.handlers import FrozenJobErrorHandler, StdErrHandler, UnconvergedErrorHandler, VaspErrorHandler

    class Silent(FrozenJobErrorHandler):
        """A run that writes nothing; custodian would also ask it about one that has ended a while ago."""

        def check(self, directory: str = "./") -> bool:
            """Whether VASP runs and has written nothing for too long."""
            process = running.get("vasp")
            return process is not None and process.poll() is None and bool(super().check(directory))

    silence = float(request["silence_s"])
    return Custodian(
        [VaspErrorHandler(), UnconvergedErrorHandler(), StdErrHandler(), Silent(timeout=silence)],
        [job],
        max_errors=int(request["corrections"]) + 1,  # the last error ends the run, it is not corrected in vain
        polling_time_step=_POLL_S,
        monitor_freq=max(1, min(20, int(silence / 4 / _POLL_S))),
    )


def _run(runner: Custodian, original: dict[str, str]) -> tuple[str, str]:
    """Run; how it ended (``done``, ``crashed``, ``drift``, ``silent``, ``unconverged``, ``gave up``), in words."""
    from custodian.custodian import CustodianError, ReturnCodeError

    try:
        runner.run()
    except SettingsDriftError as error:
        return "drift", str(error)
    except ReturnCodeError as error:
        return "crashed", str(error)
    except CustodianError as error:
        return _given_up(runner, str(error))
    except Exception as error:  # a handler that stumbles must not lose a result that VASP may have finished
        return "done", f"custodian stopped with {type(error).__name__}: {error}"
    last = _corrections(runner)[-1:]
    if last and not last[0]["actions"]:
        return _given_up(runner, "no further correction is known")
    try:
        check_inputs(original)
    except SettingsDriftError as error:
        return "drift", str(error)
    return "done", ""


def _given_up(runner: Custodian, message: str) -> tuple[str, str]:
    errors = [word for correction in _corrections(runner)[-1:] for word in correction["errors"]]
    if "Frozen job" in errors:
        return "silent", message
    if "Unconverged" in errors:
        return "unconverged", message
    return "gave up", f"{', '.join(errors)}: {message}" if errors else message


def _corrections(runner: Custodian) -> list[dict[str, Any]]:
    """Errors met, and what was changed for each."""
    return [
        {"errors": [str(e) for e in found["errors"]], "actions": found["actions"] or []}
        for job in runner.run_log
        for found in job["corrections"]
    ]


def check_inputs(original: dict[str, str]) -> None:
    """Compare the inputs in this folder with the intended ones.

    Raises
    ------
    SettingsDriftError
        When a tag that decides the numbers, the k grid or the structure has changed.
    """
    from pymatgen.io.vasp.inputs import Incar

    from aldriver.label.vasp_input import drift

    changed = drift(dict(Incar.from_str(original["INCAR"])), dict(Incar.from_file("INCAR")))
    if changed:
        raise SettingsDriftError(changed)
    for name in ("KPOINTS", "POSCAR"):
        if Path(name).read_text().split() != original[name].split():
            raise SettingsDriftError(f"{name} was changed")


if __name__ == "__main__":
    sys.exit(main())
