"""The gate every label passes: finite, complete, balanced, within caps. It never changes a value, only the status.

Convergence is the engine's business (it knows its own words for it); errors of potentials are ``benchmark/gate.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from ase import Atoms

from aldriver.core import recipe_label
from aldriver.core.units import EV_A3_TO_GPA
from aldriver.label.base import Label
from aldriver.label.energy_reference import MAX_OFFSET_EV_ATOM, EnergyReference
from aldriver.label.spin import moment_problem

TETRAHEDRA = (
    "the tetrahedron method in a metal: its energy is not variational in the occupations, so the forces are not its "
    "derivatives; smear instead (Gaussian, Methfessel-Paxton, Marzari-Vanderbilt)"
)
"""Why such labels are refused. With Bloechl's corrections pw.x gives Al2 (15 Ry, 4 and 6 points an axis, an atom out of
place) forces of -0.10 and -0.09 eV/A where the energy falls by 0.16 and 0.15 eV/A; smeared they agree to 1e-4."""


@dataclass(frozen=True, kw_only=True)
class LabelLimits:
    """Limits of the gate.

    Attributes
    ----------
    max_force_eV_A
        Largest force on an atom; beyond it the frame teaches nothing but the repulsive wall.
    max_net_force_eV_A
        Largest |ΣF| / √N. Forces must add up to zero; low cutoffs and egg-box errors show here (0.74 eV/Å in all
        for four water molecules at a 250 Ry grid).
    max_stress_GPa
        Largest stress component.
    moments
        element: (least, greatest) mean |moment|, µB. A non-magnetic solution of bcc Fe gives a vacancy formation
        energy of −5.9 eV without any other sign of trouble.
    need_stress
        Refuse labels without stress instead of training on them with weight 0.
    second_start
        element: starting moment, in the engine's own unit, of the one further run that a label outside `moments` gets.
    reference
        The energy reference that all labels share (``energy_reference.fit_energies``), or None while there is none.
    max_offset_eV_atom
        Largest distance of an energy from that reference.
    """

    max_force_eV_A: float = 100.0
    max_net_force_eV_A: float = 0.05
    max_stress_GPa: float = 2000.0
    moments: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    need_stress: bool = False
    second_start: Mapping[str, float] = field(default_factory=dict)
    reference: EnergyReference | None = None
    max_offset_eV_atom: float = MAX_OFFSET_EV_ATOM

    @classmethod
    def of(cls, label: recipe_label.Label) -> LabelLimits:
        """Limits of a recipe's label block."""
        g = label.limits
        return cls(
            max_force_eV_A=g.max_force_eV_A,
            max_net_force_eV_A=g.max_net_force_eV_A,
            max_stress_GPa=g.max_stress_GPa,
            need_stress=g.need_stress,
            moments=dict(g.moments),
            second_start=dict(g.second_start),
            reference=EnergyReference(dict(g.energies_eV)) if g.energies_eV else None,
            max_offset_eV_atom=g.max_offset_eV_atom,
        )


def check_label(label: Label, frame: Atoms, limits: LabelLimits | None = None) -> Label:
    """The label itself when it is good (or was not ok before); otherwise a copy with status ``rejected`` and why."""
    if not label.ok:
        return label
    limits = limits or LabelLimits()
    reason = (
        _shape_problem(label, frame, limits)
        or _value_problem(label, limits)
        or moment_problem(label, frame, limits.moments)
        or _energy_problem(label, frame, limits)
    )
    return replace(label, status="rejected", reason=reason) if reason else label


def _shape_problem(label: Label, frame: Atoms, limits: LabelLimits) -> str:
    n = len(frame)
    if label.energy is None or not np.isfinite(label.energy):
        return "the energy is missing or not a finite number"
    if label.free_energy is not None and not np.isfinite(label.free_energy):
        return "the free energy is not a finite number"
    if label.forces is None or np.shape(label.forces) != (n, 3):
        have = "missing" if label.forces is None else f"of shape {np.shape(label.forces)}"
        return f"the forces are {have}; expected ({n}, 3)"
    if label.stress is None and limits.need_stress:
        return "the stress is missing"
    if label.stress is not None and np.shape(label.stress) != (6,):
        return f"the stress has shape {np.shape(label.stress)}; expected (6,)"
    if label.magmoms is not None and np.shape(label.magmoms) != (n,):
        return f"the magnetic moments have shape {np.shape(label.magmoms)}; expected ({n},)"
    for name in ("forces", "stress", "magmoms"):
        value = getattr(label, name)
        if value is not None and not np.isfinite(value).all():
            return f"the {name} hold numbers that are not finite"
    return ""


def _value_problem(label: Label, limits: LabelLimits) -> str:
    assert label.forces is not None
    sizes = np.linalg.norm(label.forces, axis=1)
    worst = int(sizes.argmax())
    if sizes[worst] > limits.max_force_eV_A:
        return f"the force on atom {worst} is {sizes[worst]:.1f} eV/Å, above the cap of {limits.max_force_eV_A:g}"
    net = float(np.linalg.norm(label.forces.sum(axis=0)))
    allowed = limits.max_net_force_eV_A * np.sqrt(len(sizes))
    if net > allowed:
        return f"the forces add up to {net:.3f} eV/Å instead of zero (allowed: {allowed:.3f}); raise the cutoff or grid"
    if label.stress is not None:
        stress = float(np.abs(label.stress).max()) * EV_A3_TO_GPA
        if stress > limits.max_stress_GPa:
            return f"a stress component is {stress:.0f} GPa, above the cap of {limits.max_stress_GPa:g}"
    return ""


def _energy_problem(label: Label, frame: Atoms, limits: LabelLimits) -> str:
    if limits.reference is None or label.energy is None:
        return ""
    return limits.reference.problem(frame, label.energy, most=limits.max_offset_eV_atom)
