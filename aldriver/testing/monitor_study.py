"""Does the guard speak up before the forces go wrong? MD driven out of the domain a potential was refined in.

On the quickstart's iron, where an EAM potential is the exact truth. CHGNet is refined on bcc cells with and without a
vacancy at 300 to 900 K; its detector is calibrated on frames of its own MD at 300 and 600 K. Then the machinery of
``aldriver monitor run`` drives it out of that domain: heated into the melt, a vacancy hop forced at 1500 K, a melt
quenched; and runs inside it show the false alarms. The true force error of each looked-at frame is known, and never
shown to the guard. Each run is computed once; the script may be interrupted and started again, and several processes
may share the work (``--part 1/2`` and ``--part 2/2``). Results in ``docs/monitor_study.json``, tables and figure on
``docs/monitor_study.md``.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aldriver.core.errors import CampaignBusyError
from aldriver.core.store import exclusive, is_published, publish
from aldriver.monitor.live import SHARE, LiveGuard
from aldriver.testing import monitor_page, runs
from aldriver.testing.closed_loop import Loop

if TYPE_CHECKING:
    from ase import Atoms

    from aldriver.detect import Detector
    from aldriver.monitor import Look
    from aldriver.potentials import Potential, Prediction

KNOWN_K, INSIDE_K = (300.0, 600.0, 900.0), (300.0, 600.0)
"""Temperatures of the frames the potential is refined on, and of those that calibrate the detector."""
KNOWN_STEPS, KNOWN_EVERY = 200, 25
"""MD of the truth, per system and temperature, that the potential is refined on."""
HELD_STEPS, HELD_EVERY, HELD_SEEDS = 120, 20, 2
"""MD of the refined potential, per system and temperature, that calibrates the detector."""
TRAINING_STEPS = 160
DETECT = {"tolerance_meV_A": 100.0, "miss_rate": 0.1}
KINDS = {"heated": 10, "hop": 10, "quenched": 4, "inside": 12}
STEPS, INSIDE_STEPS, TIMESTEP_PS = 120, 120, 0.002
CONSTANTS = {
    "known_K": KNOWN_K,
    "inside_K": INSIDE_K,
    "known": [KNOWN_STEPS, KNOWN_EVERY],
    "held_out": [HELD_STEPS, HELD_EVERY, HELD_SEEDS],
    "training_steps": TRAINING_STEPS,
    "detect": DETECT,
    "kinds": KINDS,
    "steps": [STEPS, INSIDE_STEPS],
    "timestep_ps": TIMESTEP_PS,
}

INPUT = """\
units metal
atom_style atomic
atom_modify map array sort 0 0.0
boundary p p p
box tilt large
read_data {data}
pair_style zero 2.0 nocoeff
pair_coeff * *
fix potential all external pf/callback 1 1
neighbor 1.0 bin
neigh_modify every 1 delay 0 check yes
timestep {timestep}
thermo 1000
velocity all create {start_K} {seed} mom yes rot no dist gaussian
{motion}
run {steps}
"""
HEATED = "fix md all nvt temp 600 6000 0.02"
QUENCHED = "fix md all nvt temp 4000 300 0.05"
HOP = """\
group hopper id {atom}
group others subtract all hopper
velocity hopper set 0 0 0
fix pull hopper move linear {vx} {vy} {vz}
fix md others nvt temp 1500 1500 0.05"""
INSIDE = "fix md all nvt temp {kelvin} {kelvin} 0.2"
"""As the walks that calibrate the detector, so that the frames are exchangeable."""


def names() -> list[str]:
    """All runs; any beginning of the list holds some of each kind."""
    most = max(KINDS.values())
    return [f"{kind}-{k}" for k in range(most) for kind, count in KINDS.items() if k < count]


class Recording(LiveGuard):
    """A guard that remembers what it saw, for whoever knows the truth."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.seen: list[tuple[Atoms, np.ndarray[Any, Any], Look]] = []

    def __call__(self, step: int, atoms: Atoms, prediction: Prediction) -> str | None:
        """As :class:`LiveGuard`."""
        answer = super().__call__(step, atoms, prediction)
        assert self.recorder.latest is not None
        self.seen.append((atoms.copy(), prediction.forces.copy(), self.recorder.latest))
        return answer


def prepared(work: Path) -> tuple[Potential, Detector]:
    """The refined potential and its detector; made by the process that comes first."""
    from aldriver.detect import Detector
    from aldriver.potentials import load

    final = work / "prepared"
    work.mkdir(parents=True, exist_ok=True)
    while not is_published(final):
        try:
            with exclusive(work / ".preparing", what="the preparation"):
                if not is_published(final):
                    _prepare(final, work / "training")
        except CampaignBusyError:
            time.sleep(5.0)
    potential = load(final)
    return potential, Detector.load(final / "detector", potential)


def _prepare(final: Path, training: Path) -> None:
    from aldriver.core.recipe_detect import Detect
    from aldriver.detect import Detector
    from aldriver.potentials.bundle import save_bundle

    loop = Loop()
    shutil.rmtree(training, ignore_errors=True)
    known = _walks(loop, loop.truth, KNOWN_K, KNOWN_STEPS, KNOWN_EVERY, seeds=[1])
    refined = loop.refine(known, TRAINING_STEPS, training, seed=1).potential
    seeds = [100 + k for k in range(HELD_SEEDS)]
    heldout = _walks(loop, refined, INSIDE_K, HELD_STEPS, HELD_EVERY, seeds=seeds)
    detector = Detector.fit(known, refined, Detect.model_validate(DETECT), heldout=heldout)
    with publish(final) as folder:
        save_bundle(refined, folder)
        detector.save(folder / "detector")


def _walks(
    loop: Loop, mover: Potential, temperatures_K: Sequence[float], steps: int, every: int, *, seeds: Sequence[int]
) -> list[Atoms]:
    """Labelled frames of MD of each system; one group per walk."""
    found: list[Atoms] = []
    for k, (name, kelvin, seed) in enumerate(product(loop.systems, KNOWN_K, seeds)):
        if kelvin in temperatures_K:
            plan: dict[str, Any] = {"steps": steps, "every": every, "seed": seed + k * (steps // every)}
            group = f"{name}-{kelvin:g}-{seed}"
            found += loop.walk(
                mover, loop.systems[name], temperature_K=kelvin, group=group, ensemble="nvt", **plan
            ).frames
    return loop.labelled(found)


def compute(name: str, data: Path | None, work: Path) -> dict[str, Any]:
    """One run with the guard, and its true errors."""
    kind, _, number = name.rpartition("-")
    potential, detector = prepared(work.parent)
    loop = Loop()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    start, text = plan(loop, kind, int(number))
    facts = guarded(potential, detector, loop.truth, start, text, work)
    limit = detector.calibration
    assert limit is not None
    return {"kind": kind, "promise": limit.pooled.sentence, "calibration_frames": limit.pooled.frames, **facts}


def plan(loop: Loop, kind: str, k: int) -> tuple[Atoms, str]:
    """Start cell and LAMMPS input of the k-th run of a kind."""
    cells = list(loop.systems.values())
    start, seed = cells[k % len(cells)].copy(), 1000 + k
    settings: dict[str, Any] = {"steps": STEPS, "start_K": 1200.0, "seed": seed, "motion": HEATED}
    if kind == "inside":
        kelvin = INSIDE_K[k % len(INSIDE_K)]
        start = cells[k // len(INSIDE_K) % len(cells)].copy()
        motion = INSIDE.format(kelvin=kelvin)
        settings |= {"steps": INSIDE_STEPS, "start_K": kelvin, "motion": motion}
    elif kind == "quenched":
        hot: dict[str, Any] = {"temperature_K": 5000.0, "steps": 400, "every": 400, "ensemble": "nvt"}
        start = loop.walk(loop.truth, start, seed=seed, **hot).last
        settings |= {"start_K": 4000.0, "motion": QUENCHED}
    elif kind == "hop":
        start = loop.systems["vacancy"].copy()
        atom, path = hopper(start, k)
        speed = path / (STEPS * TIMESTEP_PS)
        vx, vy, vz = (f"{v:.8f}" for v in speed)
        settings |= {"start_K": 3000.0, "motion": HOP.format(atom=atom + 1, vx=vx, vy=vy, vz=vz)}
    return start, INPUT.format(data="structure.data", timestep=TIMESTEP_PS, **settings)


def hopper(atoms: Atoms, k: int) -> tuple[int, np.ndarray[Any, Any]]:
    """The k-th nearest neighbour of the vacancy of a bcc cell, and its way (3,) in Å into the vacancy."""
    from ase.build import bulk
    from ase.geometry import find_mic

    lattice = float(np.cbrt(atoms.get_volume() / (len(atoms) + 1) * 2.0))
    sites = (bulk("Fe", "bcc", a=lattice, cubic=True) * (2, 2, 2)).positions
    distances = np.array([find_mic(atoms.positions - s, atoms.cell, atoms.pbc)[1].min() for s in sites])
    ways, lengths = find_mic(sites[int(distances.argmax())] - atoms.positions, atoms.cell, atoms.pbc)
    atom = int(np.argsort(lengths, kind="stable")[k % 8])
    return atom, np.asarray(ways[atom])


def guarded(
    potential: Potential,
    detector: Detector,
    truth: Potential,
    start: Atoms,
    text: str,
    work: Path,
    *,
    share: float = SHARE,
) -> dict[str, Any]:
    """Run an input with the guard.

    ``trace`` holds of each look its step, score over limit, true force error (meV/Å), and whether it is outside.
    """
    from ase.data import chemical_symbols
    from ase.io import write

    from aldriver.detect.fuse import aggregated
    from aldriver.monitor.drive import drive
    from aldriver.monitor.journal import Journal
    from aldriver.monitor.judge import Judge
    from aldriver.monitor.record import Recorder
    from aldriver.monitor.watch import Watch

    symbols = sorted(set(start.get_chemical_symbols()), key=chemical_symbols.index)
    write(work / "structure.data", start, format="lammps-data", masses=True, specorder=symbols, force_skew=True)
    script = work / "in.lammps"
    script.write_text(text.replace("structure.data", f'"{work / "structure.data"}"'))
    about = {"source": work.name, "fingerprint": potential.fingerprint}
    journal = Journal(work / "monitor", about=about, resume=False)
    guard = Recording(Recorder(Judge(detector, potential), Watch(), journal, group=work.name), share=share)
    driven = drive(script, potential, guard, log=work / "log.lammps", elements=symbols)
    told = truth.evaluate([atoms for atoms, _, _ in guard.seen], stress=False)
    how = detector.settings.error
    errors = [
        1000.0 * aggregated(np.linalg.norm(p.forces - forces, axis=1), how)
        for p, (_, forces, _) in zip(told, guard.seen, strict=True)
    ]
    looks = [look for _, _, look in guard.seen]
    return {
        "steps": driven.steps,
        "share": guard.pace.measured,
        "trace": [
            [look.step, round(float(look.ratio), 4), round(float(e), 1), look.outside]
            for look, e in zip(looks, errors, strict=True)
        ],
    }


def study() -> runs.Study:
    """The study, for :func:`aldriver.testing.runs.main`."""
    return runs.Study(
        name="monitor_study",
        what=__doc__ or "",
        constants=CONSTANTS,
        runs=names(),
        compute=compute,
        summary=monitor_page.summary,
        sections=monitor_page.sections,
        figure=monitor_page.draw,
    )


if __name__ == "__main__":
    raise SystemExit(runs.main(study()))
