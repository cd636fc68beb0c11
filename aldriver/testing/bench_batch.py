"""Many small cells at once against one after the other. Run by ``aldriver.testing.bench``."""

from __future__ import annotations

from typing import Any

from ase import Atoms
from ase.build import bulk

from aldriver.testing.bench import BenchResult, bench, paired


def small_cells(n: int = 40) -> list[Atoms]:
    """Distorted fcc Cu cells of 4 and 8 atoms."""
    cells = []
    for k in range(n):
        atoms = bulk("Cu", "fcc", a=3.61, cubic=True) * (1 + k % 2, 1, 1)
        atoms.rattle(0.05, seed=k)
        cells.append(atoms)
    return cells


def _batched(name: str, what: str, potential: Any, repeats: int, target: float | None) -> BenchResult:
    cells = small_cells()
    ratios, baseline_ms, ours_ms = paired(
        lambda k: potential.evaluate(cells, batch_atoms=1), lambda k: potential.evaluate(cells), repeats
    )
    return BenchResult(
        name=name,
        what=f"40 cells of 4 and 8 Cu atoms, {what}: one after the other / evaluate()",
        ratios=ratios,
        baseline_ms=baseline_ms,
        ours_ms=ours_ms,
        target=target,
    )


@bench("mace_batches")
def mace_batches(repeats: int = 7) -> BenchResult:
    """A small MACE network, whose layers cost less than calling them."""
    from aldriver.testing.small_mace import small_mace

    return _batched("mace_batches", "MACE 16x0e+16x1o", small_mace(("Cu",)), repeats, 2.0)


@bench("chgnet_batches")
def chgnet_batches(repeats: int = 7) -> BenchResult:
    """CHGNet, which a few atoms keep busy already."""
    from aldriver.potentials.chgnet import CHGNetPotential

    return _batched("chgnet_batches", "CHGNet 0.3.0", CHGNetPotential.foundation("0.3.0"), repeats, None)
