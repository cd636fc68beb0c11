"""mace's own numbers."""

from __future__ import annotations

import numpy as np

from aldriver.potentials.mace_arch import build_module
from aldriver.potentials.mace_library import mace_library


def theirs(potential, frames, keys=("energy", "forces", "stress")):
    """What mace's own calculator says of each frame, with its own neighbour list."""
    arch = {k: v for k, v in potential.arch.items() if k != "head"}
    module = build_module(arch, potential.module.state_dict(), scripted=len(frames) == 1).to(potential.dtype)
    results = []
    with mace_library():
        from mace.calculators import MACECalculator

        calculator = MACECalculator(models=module, device="cpu", default_dtype=potential.precision, head=potential.head)
        for atoms in frames:
            calculator.calculate(atoms)
            results.append([np.array(calculator.results[key]) for key in keys])
    return results
