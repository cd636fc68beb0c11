"""Run: supervise local worker processes until a campaign has ended, repairing what breaks on the way.

The supervisor only looks on (files, processes, launchpad); the work is done by ``worker.py`` in processes of its own,
so that a crash of one costs its task and nothing else, and a kill of this process ends them all.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

from aldriver.core.errors import AldriverError
from aldriver.workflow import control
from aldriver.workflow.campaign import CANCEL_FILE, Campaign, lock, open_campaign, promoted
from aldriver.workflow.devices import gpu_of
from aldriver.workflow.environments import pythons
from aldriver.workflow.events import EventPump
from aldriver.workflow.launchpad import connect
from aldriver.workflow.progress import of_process, running
from aldriver.workflow.stages import cores_here
from aldriver.workflow.worker import TROUBLE

if TYPE_CHECKING:
    from fireworks import LaunchPad

OnEvent = Callable[[dict[str, Any]], None]
TICK_S, LOOK_S, EVENTS_S = 0.2, 1.0, 0.5
OTHERS_S = 10.0
"""How long workers that seem to be at work are given to end before this run works along with them."""
PATIENCE_S = 120.0
"""How long an unreachable launchpad is waited for."""
SUBMIT_S = 15.0
"""How often the queue is looked at."""
MAX_REPAIRS = 3
"""Repairs in a row without anything published in between; then the cause is not chance."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended: `state`, why, the last generation, the best potential's bundle (or None) and the wall time."""

    state: Literal["finished", "cancelled", "failed"]
    reason: str
    generation: int
    promoted: Path | None
    seconds: float


def run(
    root: str | Path,
    *,
    workers: int | None = None,
    launchpad: Path | None = None,
    on_event: OnEvent | None = None,
) -> Outcome:
    """Work on a campaign until it ends, from wherever its files say it is.

    Parameters
    ----------
    workers
        Local worker processes; default: the recipe's. As many more do what needs a Python of its own.
    launchpad
        Launchpad file; see ``launchpad.connection``.
    on_event
        Gets ledger entries, progress and warnings as they come (see the package's docstring).

    Raises
    ------
    CampaignBusyError
        When another process runs it.
    InputError
        When the potential needs a Python of its own and none is configured.
    AldriverError
        When the launchpad cannot be reached at the start.
    """
    campaign = open_campaign(root)
    others = pythons(campaign.recipe)
    started = time.monotonic()
    with lock(campaign) as descriptor:
        supervisor = _Supervisor(
            campaign=campaign,
            count=workers or campaign.recipe.resources.workers,
            launchpad_file=launchpad,
            descriptor=descriptor,
            events=EventPump(campaign, on_event),
            pythons={"": Path(sys.executable), **others},
        )
        state, reason = supervisor.supervise()
    generation, _ = campaign.frontier()
    return Outcome(
        state=state,
        reason=reason,
        generation=generation,
        promoted=promoted(campaign),
        seconds=time.monotonic() - started,
    )


End = tuple[Literal["finished", "cancelled", "failed"], str]


@dataclass(kw_only=True)
class _Supervisor:
    campaign: Campaign
    count: int
    launchpad_file: Path | None
    descriptor: int
    events: EventPump
    pythons: dict[str, Path]
    launchpad: LaunchPad | None = None
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)
    categories: dict[int, str] = field(default_factory=dict)
    repairs: int = 0
    repaired_at: int = -1
    idle_looks: int = 0
    lost_looks: int = 0
    submitted: float = -SUBMIT_S
    began: float = field(default_factory=time.time)
    deaths: dict[tuple[str, int, int], int] = field(default_factory=dict)

    def supervise(self) -> End:
        """Start, watch and finally end the workers."""
        (self.campaign.root / CANCEL_FILE).unlink(missing_ok=True)
        try:
            with _terminate_tidily():
                self._open()
                self._rebuild(first=True)
                return self._watch()
        finally:
            self._end_children()
            if self.launchpad is not None:
                self.launchpad.connection.close()
            self.events.pump(final=True)

    def _watch(self) -> End:
        looked = shown = 0.0
        while True:
            now = time.monotonic()
            trouble = self._reap()
            if now - shown >= EVENTS_S:
                self.events.pump()
                shown = now
            end = self._ended()
            if end is not None:
                return end
            if trouble:
                end = self._repair(trouble)
            elif now - looked >= LOOK_S:
                end = self._look()
                looked = now
            if end is not None:
                return end
            self._fill()
            time.sleep(TICK_S)

    def _ended(self) -> End | None:
        if self.campaign.cancelled:
            return "cancelled", "cancelled by the user"
        generation, finished = self.campaign.frontier()
        if not finished:
            return None
        self._wait_for_children(10.0)  # the last one has yet to tell the launchpad
        self._end_children()
        control.note_published(self.campaign)
        self._clear_launchpad()
        return "finished", self.campaign.decision(generation)["stop_reason"]

    def _clear_launchpad(self) -> None:
        """Leave nothing unfinished behind: a launchpad that failed in the last moment may not know of the end."""
        from pymongo.errors import PyMongoError

        with suppress(PyMongoError):
            if self.launchpad is not None and not control.live_workers(self.launchpad, self.campaign):
                control.drop_unfinished(self.launchpad, self.campaign)

    def _fill(self) -> None:
        """Keep the wanted number of workers alive, in each Python."""
        for category in self.pythons:
            alive = sum(self.categories[child.pid] == category for child in self.children)
            for number in range(alive, self.count):
                child = self._spawn(number, category)
                self.categories[child.pid] = category
                self.children.append(child)

    def _spawn(self, number: int, category: str) -> subprocess.Popen[bytes]:
        root = self.campaign.root
        threads = self.campaign.recipe.resources.threads or max(1, cores_here() // self.count)
        environment = dict(os.environ) | dict.fromkeys(THREAD_VARIABLES, str(threads))
        environment |= gpu_of(number, self.campaign.recipe.resources.device)
        python = str(self.pythons[category])
        command = [python, "-m", "aldriver.workflow.worker", str(root), "--parent", str(os.getpid())]
        if category:
            command += ["--category", category]
        if self.launchpad_file is not None:
            command += ["--launchpad", str(Path(self.launchpad_file).resolve())]
        elif Path("launchpad.yaml").is_file():  # the worker runs in the campaign's directory
            environment.setdefault("ALDRIVER_LAUNCHPAD", str(Path("launchpad.yaml").resolve()))
        (root / "logs").mkdir(exist_ok=True)
        name = f"worker-{category}-{number}.log" if category else f"worker-{number}.log"
        with (root / "logs" / name).open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(self.descriptor,),  # the campaign stays locked as long as a worker lives
                process_group=0,  # Ctrl-C is for the supervisor alone
            )

    def _reap(self) -> str:
        """Remove workers that ended; a sentence when one ended badly."""
        trouble = ""
        for child in list(self.children):
            status = child.poll()
            if status is None:
                continue
            self.children.remove(child)
            if status == TROUBLE:
                trouble = "a worker lost the launchpad"
            elif status != 0:
                how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
                doing = self._was_doing(child.pid)
                trouble = f"a worker was ended {how}{doing}"
        return trouble

    def _was_doing(self, pid: int) -> str:
        """What a dead worker was doing, from its progress file; counts deaths of one task."""
        state = of_process(self.campaign.root, pid)
        if state is None:
            return ""
        key = (str(state["stage"]), int(state["generation"]), int(state["index"] or 0))
        self.deaths[key] = self.deaths.get(key, 0) + 1
        which = "" if state["index"] is None else f" {key[2]}"
        return f" during {key[0]}{which} of generation {key[1]}"

    def _look(self) -> End | None:
        """Look at the launchpad: is it there, and is there anything to do or being done?"""
        from pymongo.errors import PyMongoError

        self._end_overdue()
        assert self.launchpad is not None
        query = {"spec.campaign": self.campaign.id, "state": {"$in": ["READY", "RESERVED", "RUNNING"]}}
        try:
            self._submit()
            active = self.launchpad.fireworks.count_documents(query, limit=1)
            # between a task and what follows from it there is a moment with nothing to do
            self.idle_looks = 0 if active else self.idle_looks + 1
            lost = control.lost_tasks(self.launchpad, self.campaign) if active else []
            self.lost_looks = self.lost_looks + 1 if lost else 0
            if self.lost_looks >= 3:
                self.lost_looks = 0
                return self._repair(f"a worker is gone ({'; '.join(lost)})")
            if self.idle_looks < 3:
                return None
            self.idle_looks = 0
            reason = self._failure()
        except PyMongoError:
            # back on its port, it is found again by the workers: what they do now need not be interrupted
            self.events.warn("the launchpad does not answer; connecting again")
            try:
                self._open()
            except AldriverError as error:
                return "failed", str(error)
            return None
        return ("failed", reason) if reason else self._repair("nothing is left to do though the campaign has not ended")

    def _submit(self) -> None:
        """Submit jobs for the tasks that go to a queue; trouble with it is said once and tried again."""
        now = time.monotonic()
        if not self.campaign.recipe.resources.queue or now - self.submitted < SUBMIT_S:
            return
        self.submitted = now
        from aldriver.workflow import cluster

        assert self.launchpad is not None
        try:
            jobs = cluster.keep_queued(self.launchpad, self.campaign, launchpad_file=self.launchpad_file)
        except AldriverError as error:
            self.events.warn(f"tasks wait for the queue: {error}", once=True)
            return
        problem = cluster.out_of_reach(self.launchpad_file) if jobs["jobs"] else ""
        if problem:
            self.events.warn(problem, once=True)
        for name in jobs["recovered"]:
            self.events.warn(f"the job of a task is gone, it gets another: {name}")

    def _end_overdue(self) -> None:
        """A stage that takes longer than the recipe's walltime hangs: its process is ended."""
        limit = self.campaign.recipe.resources.walltime_s
        mine = {child.pid: child for child in self.children}
        for state in running(self.campaign.root):
            if state["pid"] in mine and time.time() - state["started"] > limit:
                self.events.warn(f"{state['stage']} took longer than resources.walltime_s ({limit:g} s)")
                mine[state["pid"]].kill()

    def _failure(self) -> str:
        """Why the campaign cannot go on: the reason of the stage that failed; empty when none did."""
        assert self.launchpad is not None
        query = {"spec.campaign": self.campaign.id, "state": "FIZZLED"}
        fizzled = list(self.launchpad.fireworks.find(query, {"fw_id": 1, "spec.stage": 1, "spec.generation": 1}))
        failures = [e for e in self.campaign.ledger.find("stage_failed") if e["time"] >= self.began]
        for fw in fizzled:
            spec = fw["spec"]
            if spec.get("stage") == "label":
                continue
            noted = [e for e in failures if (e["stage"], e["generation"]) == (spec["stage"], spec["generation"])]
            reason = noted[-1]["reason"] if noted else self._traced(fw["fw_id"])
            if reason:
                return f"{spec['stage']} of generation {spec['generation']} failed: {reason}"
        return ""

    def _traced(self, task: int) -> str:
        """Error of a task that could not note it (a full disk), from its traceback; empty if the launchpad failed."""
        assert self.launchpad is not None
        where = "action.stored_data._exception._stacktrace"
        launch = self.launchpad.launches.find_one({"fw_id": task, "state": "FIZZLED"}, {where: 1}, sort=[("_id", -1)])
        with suppress(KeyError, TypeError):
            trace = str((launch or {})["action"]["stored_data"]["_exception"]["_stacktrace"])
            if "aldriver.core.errors." in trace and "pymongo" not in trace:
                return trace.strip().rpartition("aldriver.core.errors.")[2].partition(": ")[2]
        return ""

    def _repair(self, trouble: str) -> End | None:
        """Let the others finish what they do, bring the launchpad back, and put on it what the files lack."""
        published = len(self.campaign.ledger.find("published")) + len(self.campaign.ledger.find("label"))
        self.repairs = self.repairs + 1 if published == self.repaired_at else 1
        self.repaired_at = published
        self.events.warn(f"{trouble}; going on from what is published")
        if self.repairs > MAX_REPAIRS and not self._give_up_walker():
            return "failed", f"{trouble}, {MAX_REPAIRS + 1} times at the same point; see {self.campaign.root / 'logs'}"
        self._drain()
        if self.campaign.cancelled:
            return "cancelled", "cancelled by the user"
        try:
            self._open()
            self._rebuild()
        except AldriverError as error:
            return "failed", f"{trouble}: {error}"
        return None

    def _give_up_walker(self) -> bool:
        """A walker whose process dies each time ends as a walker with the reason ``error``; the others go on."""
        from aldriver.workflow.stage_explore import publish_failure

        for (stage, generation, index), count in list(self.deaths.items()):
            if stage == "explore" and count >= MAX_REPAIRS:
                del self.deaths[stage, generation, index]
                message = f"its process died {count} times; see {self.campaign.root / 'logs'}"
                publish_failure(self.campaign, generation, index, message)
                return True
        return False

    def _open(self) -> None:
        """Connect to the launchpad; an embedded one that died is started again on its data."""
        if self.launchpad is not None:
            self.launchpad.connection.close()
            self.launchpad = None
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                self.launchpad = connect(self.launchpad_file, timeout_s=2.0)
                return
            except AldriverError as error:
                if error.exit_code == 2 or time.monotonic() > deadline or self.campaign.cancelled:
                    raise
                self.events.warn(f"{error} (trying again)")
                time.sleep(2.0)

    def _rebuild(self, *, first: bool = False) -> None:
        from pymongo.errors import PyMongoError

        assert self.launchpad is not None
        try:
            alive = self._others()
            if alive:
                self.events.warn(f"others are at work on this campaign ({'; '.join(alive)}); working along")
                control.join(self.launchpad, self.campaign)
            else:
                control.rebuild(self.launchpad, self.campaign)
        except PyMongoError as error:
            raise AldriverError(f"the launchpad failed while the campaign was put on it ({error})") from error
        except Exception as error:
            if first or isinstance(error, AldriverError):
                raise
            raise AldriverError(f"the campaign could not be put on the launchpad ({error})") from error

    def _others(self) -> list[str]:
        """Who else is at work; workers of a killed run get a moment to be gone."""
        deadline = time.monotonic() + OTHERS_S
        while True:
            assert self.launchpad is not None
            alive = control.live_workers(self.launchpad, self.campaign)
            if not alive or time.monotonic() > deadline:
                return alive
            time.sleep(0.5)

    def _drain(self) -> None:
        """Workers end after the task in progress: what they do is published, so nothing of it is lost."""
        for child in self.children:
            with suppress(ProcessLookupError):
                child.send_signal(signal.SIGUSR1)
        while self.children and not self.campaign.cancelled:
            self.children = [c for c in self.children if c.poll() is None]
            self.events.pump()
            time.sleep(TICK_S)

    def _end_children(self) -> None:
        for child in self.children:
            with suppress(ProcessLookupError):
                child.terminate()
        self._wait_for_children(10.0)
        for child in self.children:
            child.kill()
            child.wait()
        self.children = []

    def _wait_for_children(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while self.children and time.monotonic() < deadline:
            self.children = [c for c in self.children if c.poll() is None]
            time.sleep(0.05)


@contextmanager
def _terminate_tidily() -> Iterator[None]:
    """SIGTERM ends the run like Ctrl-C does: workers first (main thread only)."""

    def end(_signum: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        previous = signal.signal(signal.SIGTERM, end)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
