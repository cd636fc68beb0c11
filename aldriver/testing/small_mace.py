"""Small MACE networks for tests: made in a second without data, or taught by a few labelled frames."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers

from aldriver.core.errors import AldriverError
from aldriver.potentials.mace import MACEPotential
from aldriver.potentials.mace_arch import E0, SCALE, SHIFT, build_module
from aldriver.potentials.mace_vendor import save_vendor


def small_mace(
    elements: Sequence[str] = ("Fe",),
    *,
    seed: int = 0,
    atomic_energies: Mapping[str, float] | None = None,
    heads: Sequence[str] = ("Default",),
    head: str | None = None,
    dtype: str = "float32",
    **changes: Any,
) -> MACEPotential:
    """A MACE network with random weights: smooth, of a physical scale, and of no chemical meaning.

    Parameters
    ----------
    atomic_energies
        E0 by element, eV; −3 eV where not given.
    changes
        Of the architecture (``mace_arch.KINDS``).
    """
    energies = dict.fromkeys(elements, -3.0) | dict(atomic_energies or {})
    numbers = sorted(atomic_numbers[symbol] for symbol in energies)
    by_number = {atomic_numbers[symbol]: energy for symbol, energy in energies.items()}
    arch: dict[str, Any] = {
        "r_max": 4.5,
        "num_bessel": 6,
        "num_polynomial_cutoff": 5,
        "max_ell": 2,
        "interaction_cls": "RealAgnosticResidualInteractionBlock",
        "interaction_cls_first": "RealAgnosticResidualInteractionBlock",
        "num_interactions": 2,
        "hidden_irreps": "16x0e+16x1o",
        "MLP_irreps": "8x0e",
        "gate": "silu",
        "avg_num_neighbors": 2.0,
        "atomic_numbers": numbers,
        "correlation": 2,
        "radial_type": "bessel",
        "radial_MLP": [16, 16],
        "heads": list(heads),
    } | changes
    references = {
        E0: torch.tensor([[by_number[z] for z in numbers]] * len(heads), dtype=torch.float64),
        SCALE: torch.full((len(heads),), 3.0, dtype=torch.float64),
        SHIFT: torch.zeros(len(heads), dtype=torch.float64),
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = build_module(arch, references, only_references=True)
    return MACEPotential(module, head=head, name="mace:small", dtype=dtype)


def taught_mace(frames: Sequence[Atoms], *, epochs: int = 30, seed: int = 0, **small: Any) -> MACEPotential:
    """A small MACE that has learnt from labelled frames (the last quarter validates): forces that mean something.

    Parameters
    ----------
    small
        As in :func:`small_mace`; E0 is by default the mean energy of an atom in `frames`.
    """
    from aldriver.core.frames import label_of
    from aldriver.core.recipe_train import Replay, Train
    from aldriver.train import train

    elements = sorted({symbol for atoms in frames for symbol in atoms.get_chemical_symbols()})
    mean = float(np.mean([label_of(atoms, "energy") / len(atoms) for atoms in frames]))
    start = small_mace(elements, **{"atomic_energies": dict.fromkeys(elements, mean), "seed": seed, **small})
    settings = Train(
        epochs=epochs,
        learning_rate=1e-2,
        batch_size=2,
        ema_decay=0.9,
        e0_shift="never",
        ewc=0.0,
        replay=Replay(source="none"),
    )
    known = max(1, len(frames) * 3 // 4)
    with tempfile.TemporaryDirectory() as folder:
        result = train(start, frames[:known], frames[known:], settings, Path(folder), seed=seed, name=start.name)
    if not result.accepted:
        raise AldriverError(f"the small MACE has learnt nothing: {result.reason}")
    assert isinstance(result.potential, MACEPotential)
    return result.potential


def write_pickled(path: Path, potential: MACEPotential | None = None) -> Path:
    """A ``.model`` file as users have them."""
    return save_vendor(potential or small_mace(), path)
