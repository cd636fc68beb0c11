"""A labeler in the place of a potential: the benchmark measured with DFT itself, by the same protocols.

Each energy asked for is a label of the label store, so that a run that was killed repeats none that was finished. How
labels are made is the label room's business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from ase import Atoms
from ase.data import chemical_symbols

from aldriver.core.errors import AldriverError, InputError
from aldriver.core.frames import bare
from aldriver.core.recipe_label import Label as LabelBlock
from aldriver.label import Labeler, LabelLimits, LabelSpec, label_frame, make_labeler
from aldriver.potentials.base import Potential, Prediction


class LabelledPotential(Potential):
    """Energies, forces and stresses by a labeler.

    Parameters
    ----------
    limits
        Of the gate: a label it refuses is no value.
    """

    family = "label"

    def __init__(self, labeler: Labeler, spec: LabelSpec, labels: Path, *, limits: LabelLimits | None = None) -> None:
        self.labeler, self.spec, self.labels, self.limits = labeler, spec, labels, limits
        self.name = spec.level
        self.elements = frozenset(chemical_symbols[1:])  # the engine says itself what it lacks
        self.fingerprint = hashlib.sha256(f"{spec.digest()} {labeler.code_id}".encode()).hexdigest()[:16]

    def evaluate(
        self,
        frames: Sequence[Atoms],
        *,
        stress: bool = True,
        features: bool = False,
        batch_atoms: int | None = None,
    ) -> list[Prediction]:
        """Label each frame, or read its label.

        Raises
        ------
        AldriverError
            When a label has no value, or no stress where one is asked for.
        """
        return [self._predict(bare(frame), stress) for frame in frames]

    def _predict(self, frame: Atoms, stress: bool) -> Prediction:
        label = label_frame(frame, self.labeler, self.spec, self.labels, limits=self.limits)
        if not label.ok or label.energy is None or label.forces is None:
            raise AldriverError(f"no label of {frame.get_chemical_formula()}: {label.status}: {label.reason}")
        if stress and label.stress is None:
            raise AldriverError(f"{self.name} gives no stress, which this property needs")
        return Prediction(energy=label.energy, forces=label.forces, stress=label.stress, magmoms=label.magmoms)


def labelled_potential(block: LabelBlock, elements: Sequence[str], labels: Path, *, threads: int) -> LabelledPotential:
    """The labeler of a recipe's label block, ready to measure.

    Raises
    ------
    InputError
        When something it needs is missing here.
    """
    labeler, spec = make_labeler(block, elements, threads=threads)
    problems = labeler.preflight()
    if problems:
        raise InputError("; ".join(problems))
    return LabelledPotential(labeler, spec, labels, limits=LabelLimits.of(block))
