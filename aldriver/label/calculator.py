"""CalculatorLabeler: any aldriver potential as a stand-in for DFT, for closed-loop tests where the truth is known.

Its labels say that they are a stand-in. Real DFT is ``espresso.py``.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from ase import Atoms

from aldriver.core import recipe_label
from aldriver.core.errors import AldriverError, InputError
from aldriver.core.frames import bare
from aldriver.label.base import Label, Labeler, LabelSpec

if TYPE_CHECKING:
    from aldriver.potentials.base import Potential


def make(
    settings: recipe_label.Label, elements: tuple[str, ...], *, threads: int = 1
) -> tuple[CalculatorLabeler, LabelSpec]:
    """Labeler and spec of a recipe's label block."""
    if settings.reference is None:
        raise InputError("label.engine 'calculator' needs label.reference, e.g. eam:Fe_mm.eam.fs")
    spec = LabelSpec.of(settings, f"stand-in {settings.reference}", {"reference": settings.reference})
    return CalculatorLabeler(settings.reference, spec, elements=elements), spec


class CalculatorLabeler(Labeler):
    """Labels with a potential, in this process.

    Parameters
    ----------
    reference
        As for ``aldriver.load`` (e.g. ``eam:Fe_mm.eam.fs``), or a loaded potential.
    spec
        From ``make_labeler``.
    elements
        Those that must be known.
    """

    def __init__(self, reference: str | Potential, spec: LabelSpec, *, elements: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.spec = spec
        self.elements = elements
        self._reference = reference if isinstance(reference, str) else reference.name
        self._potential: Potential | None = None if isinstance(reference, str) else reference

    @property
    def potential(self) -> Potential:
        """The reference potential, loaded on first use."""
        if self._potential is None:
            from aldriver.potentials import load

            self._potential = load(self._reference)
        return self._potential

    @property
    def code_id(self) -> str:
        """Fingerprint of the potential; a fixed text when it cannot be loaded."""
        try:
            return f"calculator:{self.potential.fingerprint}"
        except (AldriverError, OSError, ImportError):
            return "calculator:unavailable"

    def preflight(self) -> list[str]:
        """Whether the potential loads and knows the elements."""
        try:
            potential = self.potential
        except (AldriverError, OSError, ImportError) as error:
            return [f"label.reference '{self._reference}' cannot be loaded: {error}"]
        unknown = sorted(set(self.elements) - potential.elements)
        if unknown:
            names = ", ".join(unknown)
            return [f"label.reference '{self._reference}' does not know {names}; choose one that knows all elements"]
        return []

    def label(self, frame: Atoms, workdir: Path) -> Label:
        """Energy, forces and stress of the frame by the potential."""
        if self.cancelled:
            return Label(status="cancelled", reason="cancelled")
        start, cpu = time.monotonic(), time.process_time()
        provenance = {
            "code": "aldriver calculator",
            "reference": self._reference,
            "stand_in": True,
            "note": f"a stand-in reference ({self._reference}), not DFT",
            "energy": "potential energy",
        }
        try:
            potential = self.potential
            provenance |= {"fingerprint": potential.fingerprint, "family": potential.family}
            potential.check_elements([frame])
            prediction = potential.evaluate([bare(frame)], stress=True)[0]
        except (AldriverError, OSError, ImportError, RuntimeError, ValueError, ArithmeticError) as error:
            return Label(
                status="failed",
                reason=f"{type(error).__name__}: {error}",
                provenance=provenance,
                seconds=time.monotonic() - start,
                cpu_s=time.process_time() - cpu,
            )
        return Label(
            status="ok",
            energy=float(prediction.energy),
            free_energy=float(prediction.energy),
            forces=prediction.forces,
            stress=prediction.stress,
            magmoms=prediction.magmoms,
            provenance=provenance,
            seconds=time.monotonic() - start,
            cpu_s=time.process_time() - cpu,
        )
