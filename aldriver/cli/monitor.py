"""``aldriver monitor``: the detector of a bundle beside somebody else's run, or inside one's own LAMMPS input."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aldriver.cli.common import Device, Json, console, emit, log
from aldriver.core.errors import InputError

if TYPE_CHECKING:
    from aldriver.monitor.judge import Judge
    from aldriver.monitor.record import Feed, Recorder
    from aldriver.potentials import Potential

app = typer.Typer(help="The detector beside a run: where does the potential guess?", no_args_is_help=True)

OUTSIDE = 3
"""Exit code of a run that did not stay inside."""


class Precision(StrEnum):
    """Of a network that moves atoms."""

    float32 = "float32"
    float64 = "float64"


class OnAlarm(StrEnum):
    """What a run does when an alarm begins."""

    log = "log"
    slow = "slow"
    stop = "stop"


Bundle = Annotated[
    Path, typer.Option("--bundle", help="What `aldriver export` wrote: the potential and its detector/.")
]
Out = Annotated[Path, typer.Option("--out", help="Folder of looks.jsonl, flagged.extxyz, scores.png and summary.json.")]
Elements = Annotated[
    str | None, typer.Option("--elements", help="Chemical symbol of each LAMMPS atom type, e.g. 'Fe Cu'.")
]
Patience = Annotated[int, typer.Option("--patience", min=1, help="Frames in a row outside that make an alarm.")]
FeedTo = Annotated[
    Path | None, typer.Option("--feed", help="Campaign whose next generation gets the flagged frames to choose from.")
]
Command = Annotated[
    str | None, typer.Option("--on-alarm", metavar="CMD", help="Run when an alarm begins; JSON on its standard input.")
]
Webhook = Annotated[str | None, typer.Option("--webhook", metavar="URL", help="JSON is posted there on an alarm.")]


@app.command()
def follow(
    dump: Annotated[
        str,
        typer.Argument(help="LAMMPS dump (text, .gz, .zst), 'dump.*' for one that rotates, extended XYZ or ASE .traj."),
    ],
    bundle: Bundle,
    out: Out = Path("monitor"),
    elements: Elements = None,
    every: Annotated[int, typer.Option("--every", min=1, help="Judge each so many-th frame.")] = 1,
    once: Annotated[bool, typer.Option("--once", help="Judge what is there, then end.")] = False,
    idle: Annotated[
        float | None, typer.Option("--idle", min=0.0, help="End when nothing came for so many seconds.")
    ] = None,
    patience: Patience = 1,
    feed: FeedTo = None,
    on_alarm: Command = None,
    webhook: Webhook = None,
    json_to: Json = None,
    device: Device = "cpu",
) -> None:
    """Judge the frames of a trajectory that grows; goes on where it left off. Exit code 3: the run did not stay inside.

    Ends with Ctrl-C, --once or --idle.
    """
    from aldriver.monitor.follow import follow as follow_source
    from aldriver.monitor.sources import open_source

    symbols = elements.split() if elements is not None else None
    open_source(dump, symbols).close()  # what is wrong with it is said before the potential is loaded
    source_name = str(Path(dump).absolute())
    with _recorder(
        bundle, out, source_name, patience=patience, feed=feed, command=on_alarm, webhook=webhook, device=device,
        resume=True,
    ) as (recorder, view, _):  # fmt: skip
        source = open_source(dump, symbols, recorder.journal.state.get("position"))
        if recorder.journal.state:
            view.note(f"going on after {recorder.journal.state.get('seen', 0)} frames")
        with _ended_by_signal():
            follow_source(source, recorder, every=every, once=once, idle_s=idle, on_note=view.note)
    _end(recorder.finish(), json_to, view)


@app.command()
def run(
    script: Annotated[Path, typer.Argument(metavar="IN.LAMMPS", help="Your LAMMPS input; it runs in this folder.")],
    bundle: Bundle,
    out: Out = Path("monitor"),
    elements: Elements = None,
    var: Annotated[
        list[str] | None, typer.Option("--var", metavar="NAME=VALUE", help="A variable of the input; repeat it.")
    ] = None,
    action: Annotated[
        OnAlarm,
        typer.Option("--action", help="On an alarm: log; slow (half the time step, each step looked at); stop."),
    ] = OnAlarm.log,
    cost: Annotated[
        float, typer.Option("--cost", min=0.001, max=0.9, help="Most of the run's time that looking may take.")
    ] = 0.05,
    precision: Annotated[
        Precision, typer.Option("--precision", help="Of a network; float32 is checked against float64 first.")
    ] = Precision.float32,
    patience: Patience = 1,
    feed: FeedTo = None,
    on_alarm: Command = None,
    webhook: Webhook = None,
    json_to: Json = None,
    device: Device = "cpu",
) -> None:
    """Run a LAMMPS input with the guard. Exit code 3: the run did not stay inside.

    The bundle's potential moves the atoms where the input has a `fix ID all external pf/callback`; else the input's
    own pair style does, and the guard looks on.
    """
    from aldriver.monitor.drive import drive
    from aldriver.monitor.live import LiveGuard

    if not script.is_file():
        raise InputError(f"{script}: no such LAMMPS input")
    variables = dict(_pair(one) for one in var or [])
    symbols = elements.split() if elements is not None else None
    with _recorder(
        bundle, out, str(script.absolute()), patience=patience, feed=feed, command=on_alarm, webhook=webhook,
        device=device, resume=False,
    ) as (recorder, view, potential):  # fmt: skip
        recorder.journal.commit()  # from now on nothing else may write there
        guard = LiveGuard(recorder, share=cost, action=action.value)
        driven = None
        try:
            driven = drive(
                script,
                potential,
                guard,
                log=out / "log.lammps",
                elements=symbols,
                variables=variables,
                precision=precision.value,
            )
        finally:
            facts = {"steps": driven.steps, "native": driven.native, "stopped": driven.stopped} if driven else {}
            summary = recorder.finish(**facts, every=guard.every, share=guard.pace.measured)
    _end(summary, json_to, view)


@contextmanager
def _recorder(
    bundle: Path,
    out: Path,
    source: str,
    *,
    patience: int,
    feed: Path | None,
    command: str | None,
    webhook: str | None,
    device: str,
    resume: bool,
) -> Iterator[tuple[Recorder, Any, Potential]]:
    """All that watches, with the live table shown while it does; the folder belongs to this process meanwhile."""
    from aldriver.cli.monitor_view import View
    from aldriver.core.store import disk_errors, exclusive
    from aldriver.monitor.alarms import Alarms
    from aldriver.monitor.journal import Journal
    from aldriver.monitor.record import Recorder
    from aldriver.monitor.watch import Watch

    alarms = Alarms(command=command, webhook=webhook)
    handing = _feeding(feed)
    potential, judge = load_judge(bundle, device)
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    with exclusive(out / ".lock", what=str(out)):
        about = {"source": source, "fingerprint": potential.fingerprint}
        journal = Journal(out, about=about, resume=resume)
        saved = journal.state.get("watch")
        watch = Watch.of(saved, patience=patience) if saved else Watch(patience=patience)
        view = View(watch, judge)
        recorder = Recorder(
            judge,
            watch,
            journal,
            group=f"monitor-{Path(source).name}",
            alarms=alarms,
            feed=handing,
            on_look=view.look,
        )
        with view:
            yield recorder, view, potential


def load_judge(bundle: Path, device: str) -> tuple[Potential, Judge]:
    """The potential of a bundle, and a judge with its detector.

    Raises
    ------
    InputError
        When there is no potential or no detector, or they do not belong together.
    """
    if not (bundle / "config.json").is_file():
        raise InputError(f"{bundle}: no bundle (config.json is missing); `aldriver export CAMPAIGN DIR` writes one")
    if not (bundle / "detector").is_dir():
        raise InputError(
            f"{bundle}: holds a potential without a detector. Export a campaign's potential, or fit one: "
            f"aldriver detector fit {bundle} FRAMES --calibrate FRAMES --out {bundle / 'detector'}"
        )
    from aldriver.detect import Detector
    from aldriver.monitor.judge import Judge
    from aldriver.potentials import load

    potential = load(bundle, device=device)
    return potential, Judge(Detector.load(bundle / "detector", potential), potential)


def _feeding(campaign: Path | None) -> Feed | None:
    if campaign is None:
        return None
    from aldriver.workflow.inbox import Inbox

    return Inbox(campaign).put


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name.isidentifier():
        raise InputError(f"--var {text}: write NAME=VALUE")
    return name, value


@contextmanager
def _ended_by_signal() -> Iterator[None]:
    """Ctrl-C and SIGTERM end following as `--once` does."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before: Callable[..., Any] | int | None = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(summary: dict[str, Any], json_to: str | None, view: Any) -> None:
    if not emit(summary, json_to):
        console.print(view.verdict(summary), markup=False, highlight=False, soft_wrap=True)
    log.print(f"written to {summary['out']}", markup=False, highlight=False, soft_wrap=True)
    if not summary["inside"]:
        raise typer.Exit(OUTSIDE)
