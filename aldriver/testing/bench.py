"""Paired speed measurements against the libraries aldriver builds on: ``python -m aldriver.testing.bench --json PATH``.

Ratios of CPU time, the two sides in turn within one process, so that a busy machine slows both. Correctness is tested
elsewhere; a bench still refuses to compare two sides that do not agree.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk

from aldriver.core.errors import AldriverError, InputError
from aldriver.core.records import dumps, jsonable
from aldriver.core.store import atomic_write


class Skipped(AldriverError):
    """A bench that cannot be run here, and why."""


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """How many times faster (or smaller, as `what` says) than the baseline.

    Attributes
    ----------
    ratios
        Baseline over ours, one per paired repeat.
    baseline_ms, ours_ms
        Medians of CPU time, ms.
    target
        The ratio that is promised, or None.
    notes
        Further numbers, e.g. the largest difference between the two sides.
    by_mean
        Whether the mean of the ratios is compared with the target, not their median.
    """

    name: str
    what: str
    ratios: Sequence[float]
    baseline_ms: float
    ours_ms: float
    target: float | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    by_mean: bool = False

    @property
    def ratio(self) -> float:
        """Median (or mean) of the ratios."""
        return statistics.fmean(self.ratios) if self.by_mean else statistics.median(self.ratios)

    @property
    def reached(self) -> bool:
        """Whether the ratio reaches the target (True where there is none)."""
        return self.target is None or self.ratio >= self.target

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary, with median (or mean), min and max."""
        entry = jsonable(self)
        return entry | {
            "ratio": {
                "mean" if self.by_mean else "median": self.ratio,
                "min": min(self.ratios),
                "max": max(self.ratios),
            },
            "reached": self.reached,
        }


Bench = Callable[[int], BenchResult]
BENCHES: dict[str, Bench] = {}


def bench(name: str) -> Callable[[Bench], Bench]:
    """Register a function (repeats → result) as a bench."""

    def add(function: Bench) -> Bench:
        BENCHES[name] = function
        return function

    return add


def paired(
    baseline: Callable[[int], Any], ours: Callable[[int], Any], repeats: int
) -> tuple[list[float], float, float]:
    """Time two functions in turn (each gets the repeat's number); CPU ratios and the median CPU times in ms.

    The order alternates, and one unmeasured call of each comes first.
    """
    baseline(-1)
    ours(-1)
    times: list[tuple[float, float]] = []
    for k in range(repeats):
        pair = [_cpu(f, k) for f in ((baseline, ours) if k % 2 == 0 else (ours, baseline))]
        times.append((pair[0], pair[1]) if k % 2 == 0 else (pair[1], pair[0]))
    ratios = [b / o for b, o in times]
    return ratios, 1e3 * statistics.median(b for b, _ in times), 1e3 * statistics.median(o for _, o in times)


def _cpu(function: Callable[[int], Any], k: int) -> float:
    start = time.process_time()
    function(k)
    return time.process_time() - start


def rattled_copper(n: int = 3) -> Atoms:
    """fcc Cu, 4 n³ atoms, displacements of 0.05 Å."""
    atoms = bulk("Cu", "fcc", a=3.61, cubic=True) * (n, n, n)
    atoms.rattle(0.05, seed=1)
    return atoms


@bench("chgnet_joint_backward")
def chgnet_joint_backward(repeats: int = 7, version: str = "0.3.0") -> BenchResult:
    """Energy, forces and stress of 108 atoms: ours against chgnet's own ASE calculator, graphs included."""
    with contextlib.redirect_stdout(io.StringIO()):
        from chgnet.model import CHGNet
        from chgnet.model.dynamics import CHGNetCalculator

        theirs = CHGNetCalculator(CHGNet.load(model_name=version, use_device="cpu", verbose=False), use_device="cpu")
    from aldriver.potentials.chgnet import CHGNetPotential

    potential = CHGNetPotential.foundation(version)
    atoms = rattled_copper()

    def frame(k: int) -> Atoms:
        moved = atoms.copy()
        moved.rattle(0.001, seed=k + 1)
        return moved

    def run_theirs(k: int) -> Any:
        theirs.calculate(frame(k), task="efs")
        return theirs.results

    expected, got = run_theirs(0), potential.evaluate([frame(0)])[0]
    off = float(np.abs(expected["forces"] - got.forces).max())
    if off > 1e-5:
        raise AldriverError(f"forces differ from chgnet's by {off:.1e} eV/Å: nothing to compare")
    ratios, baseline_ms, ours_ms = paired(run_theirs, lambda k: potential.evaluate([frame(k)]), repeats)
    return BenchResult(
        name="chgnet_joint_backward",
        what=f"E, F and stress of 108 Cu atoms, CHGNet {version}: CHGNetCalculator / aldriver",
        ratios=ratios,
        baseline_ms=baseline_ms,
        ours_ms=ours_ms,
        target=1.6,
        notes={"max_force_difference_eV_A": off, "atoms": len(atoms)},
    )


@bench("chgnet_graph_along_a_trajectory")
def chgnet_graph_along_a_trajectory(repeats: int = 7) -> BenchResult:
    """Graph of 108 atoms at each step: ours with a skin list against chgnet's converter."""
    from chgnet.graph import CrystalGraphConverter
    from pymatgen.io.ase import AseAtomsAdaptor

    from aldriver.potentials.chgnet_graph import crystal_graph
    from aldriver.potentials.neighbours import NeighbourList

    converter = CrystalGraphConverter(atom_graph_cutoff=6, bond_graph_cutoff=3)
    atoms = rattled_copper()
    neighbours = NeighbourList(6.0, skin=1.0)

    def ours(k: int) -> Any:
        import torch

        moved = atoms.copy()
        moved.rattle(0.01, seed=k + 1)
        pairs = neighbours(moved.positions, np.asarray(moved.cell))
        return crystal_graph(moved.numbers, pairs, atom_cutoff=6.0, bond_cutoff=3.0, dtype=torch.float32)

    def theirs(k: int) -> Any:
        moved = atoms.copy()
        moved.rattle(0.01, seed=k + 1)
        return converter(AseAtomsAdaptor.get_structure(moved))

    if len(ours(0).bond_graph) != len(theirs(0).bond_graph):
        raise AldriverError("the two graphs have different numbers of angles: nothing to compare")
    ratios, baseline_ms, ours_ms = paired(theirs, ours, repeats)
    return BenchResult(
        name="chgnet_graph_along_a_trajectory",
        what="crystal graph of 108 Cu atoms, each step: CrystalGraphConverter / aldriver",
        ratios=ratios,
        baseline_ms=baseline_ms,
        ours_ms=ours_ms,
    )


@bench("feature_distance_beside_md")
def feature_distance_beside_md(repeats: int = 7) -> BenchResult:
    """An MD step of 108 atoms against scoring it with the default signal, of features that came with the forces."""
    from aldriver.core.recipe_detect import Detect
    from aldriver.detect import Detector
    from aldriver.potentials.chgnet import CHGNetPotential

    potential = CHGNetPotential.foundation("0.2.0")
    atoms = rattled_copper()
    known = []
    for seed in range(6):
        known.append(atoms.copy())
        known[-1].rattle(0.1, seed=seed)
    detector = Detector.fit(known[:3], potential, Detect(), heldout=known[3:])
    step, cell = potential.stepper(atoms), np.asarray(atoms.cell)
    features = potential.features([atoms])
    ratios, baseline_ms, ours_ms = paired(
        lambda k: step(atoms.positions, cell, stress=False, features=True),
        lambda k: detector.score([atoms], features=features),
        repeats,
    )
    return BenchResult(
        name="feature_distance_beside_md",
        what="108 Cu atoms: MD step of CHGNet 0.2.0 / scoring it by its feature distance",
        ratios=ratios,
        baseline_ms=baseline_ms,
        ours_ms=ours_ms,
        target=1 / 0.03,
    )


@bench("detector_beside_md")
def detector_beside_md(repeats: int = 7) -> BenchResult:
    """One CHGNet evaluation of 108 atoms against SOAP and the default signal on the same frame."""
    from aldriver.core.recipe_detect import Detect
    from aldriver.detect import Detector
    from aldriver.potentials.chgnet import CHGNetPotential

    potential = CHGNetPotential.foundation("0.3.0")
    atoms = rattled_copper()

    def frame(k: int) -> Atoms:
        moved = atoms.copy()
        moved.rattle(0.01, seed=k + 2)
        return moved

    known = [frame(k) for k in range(100, 106)]
    settings = Detect(signals=["soap_q", "soap_t2", "feature_distance"])
    detector = Detector.fit(known[:3], potential, settings, heldout=known[3:])
    features = potential.features([atoms])
    ratios, baseline_ms, ours_ms = paired(
        lambda k: potential.evaluate([frame(k)]), lambda k: detector.score([frame(k)], features=features), repeats
    )
    return BenchResult(
        name="detector_beside_md",
        what="108 Cu atoms: CHGNet evaluation / scoring with SOAP Q, T² and feature distance",
        ratios=ratios,
        baseline_ms=baseline_ms,
        ours_ms=ours_ms,
    )


def run(names: Sequence[str] = (), *, repeats: int = 7) -> list[BenchResult]:
    """Run the named benches (all by default), on one thread; those that cannot be run here are named and left out.

    Raises
    ------
    InputError
        When there is no such bench.
    """
    import torch

    unknown = sorted(set(names) - set(BENCHES))
    if unknown:
        raise InputError(f"no such bench: {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [found for name in (names or BENCHES) if (found := _run_one(name, repeats)) is not None]
    finally:
        torch.set_num_threads(threads)


def _run_one(name: str, repeats: int) -> BenchResult | None:
    try:
        return BENCHES[name](repeats)
    except Skipped as reason:
        print(f"{name}: skipped, {reason}")
        return None


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table of ratios, write them as JSON; 1 when a target is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m aldriver.testing.bench", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("names", nargs="*", help=f"which (default: all of {', '.join(BENCHES)})")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    parser.add_argument("--repeats", type=int, default=7, help="paired repeats (default: 7)")
    options = parser.parse_args(argv)
    results = run(options.names, repeats=options.repeats)
    _print(results)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        entries = [r.to_json() for r in results]
        atomic_write(options.json, dumps({"machine": platform.processor() or platform.machine(), "benches": entries}))
    return 0 if all(r.reached for r in results) else 1


def _print(results: Sequence[BenchResult]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("times faster", "min-max", "target", "ms: theirs", "ours", "what")
    for r in results:
        target = "-" if r.target is None else f"{r.target:.3g} {'reached' if r.reached else 'missed'}"
        digits = 3 if r.by_mean else 2
        spread = f"{min(r.ratios):.{digits}f}-{max(r.ratios):.{digits}f}"
        table.add_row(f"{r.ratio:.{digits}f}", spread, target, f"{r.baseline_ms:.1f}", f"{r.ours_ms:.1f}", r.what)
    Console().print(table)


if __name__ == "__main__":
    import sys

    # under -m this file is '__main__': run the importable module, whose registry other modules add to
    import aldriver.testing.bench_batch
    import aldriver.testing.bench_benchmark
    import aldriver.testing.bench_label
    import aldriver.testing.bench_mace
    import aldriver.testing.bench_select
    import aldriver.testing.bench_sevennet
    import aldriver.testing.bench_train  # noqa: F401
    from aldriver.testing.bench import main as entry

    sys.exit(entry())
