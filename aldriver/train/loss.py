"""The training loss: Huber terms of energy, forces, stress and moments, weighted. Stepping is ``loop.py``'s business.

With h the function of Huber (Ann. Math. Stat. 35, 73 (1964); quadratic within ±δ, linear beyond), B frames of N atoms
in all, frame weights w and m = 1 where a frame has that label, else 0:

    energy  = Σ_b w_b h(ΔE_b) / B              (E in eV/atom)
    forces  = Σ_i w_b(i) Σ_α h(ΔF_iα) / 3N     (eV/Å)
    stress  = Σ_b w_b m_b Σ_αβ h(Δσ_bαβ) / 9B  (GPa)
    magmoms = Σ_i w_b(i) m_b(i) h(Δ|µ_i|) / N  (µB)

Dividing by counts and not by the sum of the weights keeps a frame's weight meaningful also in a batch of equals, and a
frame without stress or moments contributes nothing instead of a zero to be learnt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ase import Atoms
from torch import Tensor
from torch.nn import functional

from aldriver.core.errors import InputError
from aldriver.core.frames import label_of
from aldriver.core.units import EV_A3_TO_GPA, voigt_to_matrix
from aldriver.train.base import BatchPrediction, TrainAdapter
from aldriver.train.energies import shifted_energy

if TYPE_CHECKING:
    from aldriver.core.recipe_train import LossWeights

TERMS = ("energy", "forces", "stress", "magmoms")
OPTIONAL = ("stress", "magmoms")
"""Labels a frame may lack."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One labelled frame, ready for the loop.

    Attributes
    ----------
    graph
        What the adapter reads.
    energy
        eV/atom, on the potential's scale.
    forces
        (N, 3) eV/Å.
    stress
        (3, 3) GPa, or None.
    magmoms
        (N,) absolute values, µB, or None.
    weight
        Of the frame in the loss (``info['weight']``, default 1).
    """

    graph: Any
    energy: Tensor
    forces: Tensor
    stress: Tensor | None
    weight: float
    magmoms: Tensor | None = None

    def __len__(self) -> int:
        return len(self.forces)

    def has(self, term: str) -> bool:
        """Whether the frame has this label."""
        return getattr(self, term) is not None


def make_example(adapter: TrainAdapter, atoms: Atoms, shift: Mapping[str, float] | None) -> Example:
    """Graph and labels of a frame.

    Raises
    ------
    InputError
        When energy or forces are missing, a label is not finite, or the frame's weight is not a number ≥ 0.
    """
    what = f"training frame {atoms.get_chemical_formula()} ({atoms.info.get('frame_id', 'no id')})"
    labels = {key: label_of(atoms, key) for key in TERMS}
    for key, value in labels.items():
        if value is None and key not in OPTIONAL:
            raise InputError(f"{what} has no {key}")
        if value is not None and not np.isfinite(value).all():
            raise InputError(f"{what}: {key} is not finite; remove the frame")
    weight = float(atoms.info.get("weight", 1.0))
    if not (np.isfinite(weight) and weight >= 0):
        raise InputError(f"{what}: weight {weight} must be a number of at least 0")
    parameter = next(adapter.module.parameters())
    energy = shifted_energy(atoms, labels["energy"], shift) / len(atoms)
    stress, magmoms = labels["stress"], labels["magmoms"]
    return Example(
        graph=adapter.graph(atoms),
        energy=parameter.new_tensor(energy),
        forces=parameter.new_tensor(np.asarray(labels["forces"])),
        stress=None if stress is None else parameter.new_tensor(voigt_to_matrix(stress) * EV_A3_TO_GPA),
        weight=weight,
        magmoms=None if magmoms is None else parameter.new_tensor(np.abs(np.asarray(magmoms))),
    )


def loss_sums(prediction: BatchPrediction, examples: Sequence[Example], *, delta: float) -> dict[str, Tensor]:
    """Numerators of the terms (weighted by frame, not yet divided by counts)."""
    e = prediction.energy
    weight = e.new_tensor([x.weight for x in examples])
    sizes = torch.tensor([len(x) for x in examples], device=e.device)
    atom_weight = torch.repeat_interleave(weight, sizes)
    with_stress = e.new_tensor([float(x.has("stress")) for x in examples])
    zero = e.new_zeros(3, 3)
    stress = torch.stack([zero if x.stress is None else x.stress for x in examples])
    sums = {
        "energy": (weight * _huber(e - torch.stack([x.energy for x in examples]), delta)).sum(),
        "forces": (
            atom_weight[:, None] * _huber(prediction.forces - torch.cat([x.forces for x in examples]), delta)
        ).sum(),
        "stress": ((weight * with_stress)[:, None, None] * _huber(prediction.stress - stress, delta)).sum(),
        "magmoms": e.new_zeros(()),
    }
    if prediction.magmoms is not None and any(x.has("magmoms") for x in examples):
        known = atom_weight * torch.repeat_interleave(e.new_tensor([float(x.has("magmoms")) for x in examples]), sizes)
        magmoms = torch.cat([e.new_zeros(len(x)) if x.magmoms is None else x.magmoms for x in examples])
        sums["magmoms"] = (known * _huber(prediction.magmoms - magmoms, delta)).sum()
    return sums


def counts_of(examples: Sequence[Example]) -> dict[str, float]:
    """Denominators of the terms: B, 3N, 9B, N."""
    n_frames, n_atoms = len(examples), sum(len(x) for x in examples)
    return {"energy": n_frames, "forces": 3 * n_atoms, "stress": 9 * n_frames, "magmoms": n_atoms}


def total_loss(sums: Mapping[str, Tensor], counts: Mapping[str, float], weights: LossWeights) -> Tensor:
    """Weighted sum of the terms."""
    terms = [getattr(weights, key) / counts[key] * sums[key] for key in TERMS if getattr(weights, key) > 0]
    return torch.stack(terms).sum()


def _huber(residual: Tensor, delta: float) -> Tensor:
    return functional.huber_loss(residual, torch.zeros_like(residual), reduction="none", delta=delta)
