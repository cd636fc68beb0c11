"""One side of the MD bench: a process that runs one potential on one cell and tells what a step took, and its memory.

``python -m aldriver.testing.md_side SIDE MODEL ATOMS`` reads numbers of steps from its standard input, and answers each
with a line of JSON. A process a side, so that neither has the other's memory, nor its allocator. Who is compared with
whom is ``bench_md.py``'s business.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import bulk

Times = tuple[float, float]
"""CPU seconds of a number of steps, and of the model within them (NaN where that is not told apart)."""
REPEATS = {108: (3, 3, 3), 432: (3, 6, 6), 1000: (5, 5, 10)}
"""Cells of four fcc atoms along each axis."""


def copper(n: int) -> Atoms:
    """fcc Cu at 600 K, or thereabouts."""
    from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary

    atoms = bulk("Cu", "fcc", a=3.66, cubic=True) * REPEATS[n]
    atoms.rattle(0.05, seed=1)
    MaxwellBoltzmannDistribution(atoms, temperature_K=600, rng=np.random.default_rng(0))
    Stationary(atoms)
    return atoms


class ModelClock:
    """CPU time inside the calls it has been put around."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, owner: Any, method: str) -> None:
        """Measure a method of an object from now on."""
        inner = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.process_time()
            try:
                return inner(*args, **kwargs)
            finally:
                self.seconds += time.process_time() - began

        setattr(owner, method, timed)


def ours(model: str, precision: str, atoms: Atoms, steps: int) -> Callable[[], Times]:
    """A walker of aldriver in LAMMPS; the model is the network's pass over a graph that is there.

    `precision` is ``float32`` or ``float64`` for torch, or ``symmetrix``.
    """
    from aldriver import load
    from aldriver.explore.engine import Watcher
    from aldriver.explore.lammps import lammps_samples
    from aldriver.explore.protocol import MDProtocol
    from aldriver.potentials.network import NetworkPotential

    clock = ModelClock()
    keep: list[Any] = []
    made = Watcher.__init__

    def watched(self: Watcher, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)
        stepper: Any = self._stepper
        keep.append(stepper)
        if hasattr(stepper, "native"):
            clock.around(stepper._calculator, "_compute_mace")  # without symmetrix' own neighbour list
        else:
            clock.around(stepper.potential, "predict_graphs")

    Watcher.__init__ = watched  # type: ignore[method-assign]
    potential = load(model)
    assert isinstance(potential, NetworkPotential)
    if precision == "float32":
        potential.native_stepper = lambda atoms: None  # type: ignore[method-assign]
    real = "float32" if precision == "symmetrix" else precision
    protocol = MDProtocol(ensemble="nve", steps=10**9, sample_every=steps, precision=real)
    run = lammps_samples(potential, atoms, protocol)
    next(run)
    if hasattr(keep[0], "native") != (precision == "symmetrix"):
        raise SystemExit("symmetrix is not in use")

    def go() -> Times:
        began, model_before = time.process_time(), clock.seconds
        next(run)
        return time.process_time() - began, clock.seconds - model_before

    return go


def native(model: str, precision: str, atoms: Atoms, steps: int) -> Callable[[], Times]:
    """LAMMPS alone, with a potential that it has; the model is what LAMMPS says its pair style took."""
    import tempfile
    from pathlib import Path

    from ase.io import write

    from aldriver import load
    from aldriver.potentials.classical import LammpsPotential
    from aldriver.potentials.lammps_library import new_lammps

    potential = load(model)
    assert isinstance(potential, LammpsPotential)
    kept = tempfile.TemporaryDirectory()
    folder = Path(kept.name)
    write(folder / "cell.data", atoms, format="lammps-data", specorder=potential.symbols, masses=True, velocities=True)
    lmp = new_lammps()
    lmp.commands_string(
        f"""log {folder}/log.lammps
        units metal
        atom_modify map yes
        read_data {folder}/cell.data
        pair_style {potential.pair_style}
        pair_coeff {potential.pair_coeff}
        timestep 0.001
        fix 1 all nve
        thermo {steps}"""
    )

    def go() -> Times:
        began = time.process_time()
        lmp.command(f"run {steps}")
        seconds = time.process_time() - began
        text = (Path(kept.name) / "log.lammps").read_text()  # the folder lives as long as this function
        loop = float(re.findall(r"^Loop time of (\S+)", text, re.MULTILINE)[-1])
        pair = float(re.findall(r"^Pair\s*\|\s*(\S+)", text, re.MULTILINE)[-1])
        return seconds, seconds * pair / loop

    return go


def theirs(model: str, precision: str, atoms: Atoms, steps: int) -> Callable[[], Times]:
    """ASE's velocity Verlet with the vendor's own calculator."""
    from ase.md.verlet import VelocityVerlet

    atoms.calc = _vendor(model, precision)
    md = VelocityVerlet(atoms, timestep=units.fs)
    atoms.get_forces()

    def go() -> Times:
        began = time.process_time()
        for _ in range(steps):
            md.step()
        return time.process_time() - began, float("nan")

    return go


def _vendor(model: str, precision: str) -> Any:
    with contextlib.redirect_stdout(io.StringIO()):
        if model.startswith("chgnet:"):
            from chgnet.model import CHGNet
            from chgnet.model.dynamics import CHGNetCalculator

            network = CHGNet.load(model_name=model.partition(":")[2], use_device="cpu", verbose=False)
            return CHGNetCalculator(network, use_device="cpu")
        if precision == "native":
            return _lammpslib(model)
        from aldriver.potentials.mace_library import mace_library

        with mace_library():
            from mace.calculators import MACECalculator

            return MACECalculator(model_paths=model, device="cpu", default_dtype=precision)


def _lammpslib(model: str) -> Any:
    """ASE's own way to a potential that LAMMPS has."""
    from ase.calculators.lammpslib import LAMMPSlib

    from aldriver import load
    from aldriver.potentials.classical import LammpsPotential
    from aldriver.potentials.lammps_library import import_lammps

    import_lammps()
    potential = load(model)
    assert isinstance(potential, LammpsPotential)
    commands = [f"pair_style {potential.pair_style}", f"pair_coeff {potential.pair_coeff}"]
    types = {symbol: k + 1 for k, symbol in enumerate(potential.symbols)}
    return LAMMPSlib(lmpcmds=commands, atom_types=types, keep_alive=True)


def peak_MB() -> float:
    """Largest memory of this process so far."""
    from aldriver.train.memory import _status_GB

    return 1024.0 * _status_GB("VmHWM")


def main(argv: list[str]) -> int:
    """Answer each line until there are no more."""
    side, model, precision, n, steps = argv[0], argv[1], argv[2], int(argv[3]), int(argv[4])
    out = sys.stdout
    sys.stdout = sys.stderr  # libraries print
    import torch

    torch.set_num_threads(1)
    make = {"ours": ours, "native": native, "theirs": theirs}[side]
    go = make(model, precision, copper(n), steps)
    for _ in sys.stdin:
        total, model_s = go()
        answer = {"step_ms": 1e3 * total / steps, "model_ms": 1e3 * model_s / steps, "peak_MB": peak_MB()}
        print(json.dumps(answer), file=out, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
