"""What a step of MD costs here and with the vendors' calculators: ``python -m aldriver.testing.bench_md --json PATH``.

One table: ns/day of 1 fs steps on one core, the share of a step that is not the model (coupling: neighbour list, graph,
LAMMPS, all of Python), the vendor's ASE calculator in the same run, and the peak memory of both processes. CPU times,
the two sides in turn. What a side does is ``md_side.py``'s business.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aldriver.core.errors import AldriverError
from aldriver.core.records import dumps
from aldriver.core.store import atomic_write
from aldriver.testing.bench import Skipped

SIZES = (108, 432, 1000)
FS_PER_DAY = 86400.0 * 1e3 * 1e-6
"""ns/day of a step of 1 fs that takes one ms."""
MP_SMALL: dict[str, Any] = {
    "hidden_irreps": "128x0e",
    "correlation": 3,
    "max_ell": 3,
    "r_max": 6.0,
    "num_bessel": 10,
    "radial_MLP": [64, 64, 64],
    "MLP_irreps": "16x0e",
    "avg_num_neighbors": 60.0,
}
"""Shape of the small MACE-MP-0 (Batatia et al., arXiv:2401.00096)."""
COUPLING = 0.05
MEMORY = 1.1
SYMMETRIX = 5.0


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A row of the table: a potential, how it runs, and the vendor's calculator it stands beside (file, precision).

    `quick` is how many times as many steps as of a network are worth measuring.
    """

    name: str
    model: str
    precision: str
    quick: int = 1
    side: str = "ours"
    vendor: tuple[str, str] | None = None

    def steps(self, atoms: int) -> int:
        """In a measurement; more where a step is short."""
        return self.quick * (3 if atoms == SIZES[0] else 1)


class Side:
    """A process of ``md_side.py``."""

    def __init__(self, side: str, model: str, precision: str, atoms: int, steps: int) -> None:
        command = [sys.executable, "-m", "aldriver.testing.md_side", side, model, precision, str(atoms), str(steps)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in close()
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True
        )

    def ask(self) -> dict[str, float]:
        """Run its steps once more."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
            answer: dict[str, float] = json.loads(self.process.stdout.readline())
        except (OSError, ValueError) as error:
            self.process.wait()
            self.log.seek(0)
            said = self.log.read().strip().splitlines() or ["nothing"]
            raise AldriverError(f"a side of the bench ended: {said[-1]}") from error
        return answer

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()


def measure(contender: Contender, atoms: int, *, repeats: int, with_vendor: bool = True) -> dict[str, Any]:
    """One row: medians, and the smallest and largest of what each repeat gave."""
    ours = Side(contender.side, contender.model, contender.precision, atoms, contender.steps(atoms))
    vendor = contender.vendor if with_vendor else None
    steps = contender.steps(atoms) if contender.side == "native" else (3 if atoms == SIZES[0] else 1)
    theirs = None if vendor is None else Side("theirs", *vendor, atoms, steps)
    sides = [ours] if theirs is None else [ours, theirs]
    try:
        for side in sides:
            side.ask()  # TorchScript and the allocator settle
        found: dict[int, list[dict[str, float]]] = {k: [] for k in range(len(sides))}
        for repeat in range(repeats):
            for k in (0, 1) if repeat % 2 else (1, 0):
                if k < len(sides):
                    found[k].append(sides[k].ask())
    finally:
        for side in sides:
            side.close()
    return _row(contender.name, atoms, found[0], found.get(1))


def _row(name: str, atoms: int, mine: list[dict[str, float]], other: list[dict[str, float]] | None) -> dict[str, Any]:
    step = statistics.median(one["step_ms"] for one in mine)
    shares = [1.0 - one["model_ms"] / one["step_ms"] for one in mine]
    row: dict[str, Any] = {
        "name": name,
        "atoms": atoms,
        "step_ms": step,
        "ns_per_day": FS_PER_DAY / step,
        "coupling": spread(shares),
        "peak_MB": mine[-1]["peak_MB"],
    }
    if other is not None:
        row |= {
            "vendor_step_ms": statistics.median(one["step_ms"] for one in other),
            "vendor_ns_per_day": FS_PER_DAY / statistics.median(one["step_ms"] for one in other),
            "times_faster": spread([t["step_ms"] / o["step_ms"] for o, t in zip(mine, other, strict=True)]),
            "vendor_peak_MB": other[-1]["peak_MB"],
            "memory_ratio": mine[-1]["peak_MB"] / other[-1]["peak_MB"],
        }
    return row


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, min and max."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def trained_mace(folder: Path) -> tuple[str, dict[str, str]]:
    """A network of the shape of MACE-MP-0 small that has learnt from Cu, and mace's own files of it by precision."""
    from aldriver.potentials.bundle import save_bundle
    from aldriver.potentials.mace_vendor import save_vendor
    from aldriver.testing.small_mace import taught_mace

    potential = taught_mace(copper_labels(), epochs=3, **MP_SMALL)
    save_bundle(potential, folder / "mace")
    files = {p: str(save_vendor(potential.astype(p), folder / f"{p}.model")) for p in ("float32", "float64")}
    return str(folder / "mace"), files


def fitted_pod(folder: Path) -> str:
    """An ML-POD potential of the default shape, fitted to Cu."""
    from aldriver.export.fitpod import fit_pod
    from aldriver.potentials.bundle import save_bundle
    from aldriver.testing.bench_mace import copper_frames

    save_bundle(fit_pod(copper_frames(12), folder / "fit", name="pod"), folder / "pod")
    return str(folder / "pod")


def copper_labels() -> list[Any]:
    """Published DFT cells of up to 60 atoms where they are, else an EAM potential's."""
    from aldriver.testing.bench_mace import copper_frames
    from aldriver.testing.vendors import published

    try:
        frames = [a for a in published("Cu_test") if len(a) <= 60]
    except Skipped:
        frames = []
    return frames[:16] or copper_frames(12)


def contenders(folder: Path, names: Sequence[str] = ()) -> list[Contender]:
    """All rows there can be here, or those of these families."""
    import importlib.util

    found = []
    if not names or "chgnet" in names:
        chgnet = "chgnet:0.3.0"
        found.append(Contender(name="CHGNet 0.3.0", model=chgnet, precision="float32", vendor=(chgnet, "float32")))
    if (not names or "mace" in names) and importlib.util.find_spec("mace") is not None:
        ours, files = trained_mace(folder)
        shape = "MACE 128x0e"
        for precision in ("float32", "float64"):
            vendor = (files[precision], precision)
            found.append(Contender(name=f"{shape}, torch {precision}", model=ours, precision=precision, vendor=vendor))
        if importlib.util.find_spec("symmetrix") is not None:
            vendor = (files["float32"], "float32")
            found.append(
                Contender(name=f"{shape}, symmetrix", model=ours, precision="symmetrix", vendor=vendor, quick=10)
            )
    if not names or "pod" in names:
        pod = fitted_pod(folder)
        vendor = (pod, "native")
        found.append(
            Contender(name="ML-POD, LAMMPS", model=pod, precision="native", quick=50, side="native", vendor=vendor)
        )
    return found


def missed(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What falls short of the targets: coupling, memory, and symmetrix beside our own torch."""
    found = []
    by = {(row["name"], row["atoms"]): row for row in rows}
    for row in rows:
        where = f"{row['name']}, {row['atoms']} atoms"
        if row["coupling"]["median"] > COUPLING:
            found.append(f"{where}: coupling is {100 * row['coupling']['median']:.1f} % of a step")
        if row.get("memory_ratio", 0.0) > MEMORY:
            found.append(f"{where}: {row['memory_ratio']:.2f} times the vendor's memory")
        torch = by.get((row["name"].replace("symmetrix", "torch float32"), row["atoms"]))
        if "symmetrix" in row["name"] and torch is not None:
            row["times_torch_float32"] = torch["step_ms"] / row["step_ms"]
            if row["atoms"] == SIZES[0] and row["times_torch_float32"] < SYMMETRIX:
                found.append(f"{where}: {row['times_torch_float32']:.1f} times as fast as torch")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, write it as JSON; 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m aldriver.testing.bench_md")
    parser.add_argument("names", nargs="*", help="chgnet, mace, pod (default: all)")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), choices=SIZES)
    parser.add_argument("--json", type=Path, help="write the numbers here")
    parser.add_argument("--repeats", type=int, default=5, help="of small cells; 1000 atoms take fewer")
    options = parser.parse_args(argv)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for contender in contenders(Path(folder), options.names):
            for atoms in sorted(options.sizes):
                fits = _vendor_fits(rows, contender.name, atoms)
                repeats = max(2, options.repeats * SIZES[0] // atoms)
                rows.append(measure(contender, atoms, repeats=repeats, with_vendor=fits))
                print(f"{contender.name}, {atoms} atoms: {rows[-1]['step_ms']:.1f} ms/step", flush=True)
                if not fits:
                    print("  the vendor's calculator needs more memory than there is", flush=True)
                _write(options.json, rows)
    short = missed(rows)
    _print(rows)
    for line in short:
        print(f"missed: {line}")
    return 1 if short else 0


def _vendor_fits(rows: Sequence[dict[str, Any]], name: str, atoms: int) -> bool:
    """Whether the vendor's process, as large as its smaller cells let expect, takes less than half of what is free."""
    import psutil

    known = [r["vendor_peak_MB"] * atoms / r["atoms"] for r in rows if r["name"] == name and "vendor_peak_MB" in r]
    return not known or known[-1] * 1024**2 < psutil.virtual_memory().available / 2


def _write(path: Path | None, rows: Sequence[dict[str, Any]]) -> None:
    if path is None:
        return
    short = missed(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    machine = platform.processor() or platform.machine()
    atomic_write(path, dumps({"machine": machine, "rows": rows, "missed": short}))


def _print(rows: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("potential", "atoms", "ns/day", "coupling", "vendor ns/day", "times faster", "peak MB", "vendor's")
    for r in rows:
        faster = r.get("times_faster", {"median": math.nan, "min": math.nan, "max": math.nan})
        table.add_row(
            r["name"],
            str(r["atoms"]),
            f"{r['ns_per_day']:.4f}",
            f"{100 * r['coupling']['median']:.1f} %",
            f"{r.get('vendor_ns_per_day', math.nan):.4f}",
            f"{faster['median']:.2f} ({faster['min']:.2f}-{faster['max']:.2f})",
            f"{r['peak_MB']:.0f}",
            f"{r.get('vendor_peak_MB', math.nan):.0f}",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    sys.exit(main())
