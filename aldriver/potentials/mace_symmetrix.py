"""MACE through symmetrix, native code for this network on this machine (optional extra ``symmetrix``).

Owns the conversion and the comparison with torch along the walk. The network, its features and the fallback are
``mace.py``'s. Source of the code: symmetrix-xl, https://github.com/bonan-group/symmetrix-xl (MIT).
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import json
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aldriver.core.errors import AldriverError
from aldriver.potentials.allocator import returning_freed_memory
from aldriver.potentials.base import Prediction, Stepper
from aldriver.potentials.md import disagreement, piece
from aldriver.potentials.network import check_finite

if TYPE_CHECKING:
    from aldriver.potentials.mace import MACEPotential

CORRELATION = 3
"""The only one symmetrix computes."""
CHECKED = frozenset(10**k for k in range(12))
"""Evaluations that torch makes too: the first, the 10th, the 100th, ..."""
DISAGREE = "symmetrix and torch disagree"

log = logging.getLogger(__name__)


def symmetrix_stepper(potential: MACEPotential, atoms: Atoms) -> Stepper | None:
    """A stepper that evaluates in symmetrix, or None (with a warning where it is installed and does not do).

    The first network of a kind is compiled, which takes some ten seconds and a C++20 compiler; the result is kept in
    the user's cache.
    """
    if importlib.util.find_spec("symmetrix") is None or potential.device.type != "cpu":
        return None
    why = _cannot(potential)
    if not why:
        try:
            return SymmetrixStepper(potential, atoms)
        except Exception as error:  # whatever a foreign converter, compiler or kernel says
            why = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    log.warning("%s runs in torch, not in symmetrix: %s", potential.name, why)
    return None


def _cannot(potential: MACEPotential) -> str:
    found = potential.arch.get("correlation")
    if found != CORRELATION:
        return f"its correlation is {found}, symmetrix computes {CORRELATION}"
    return "its weights are being trained" if any(p.requires_grad for p in potential.module.parameters()) else ""


class SymmetrixStepper(Stepper):
    """Energy, forces and stress from symmetrix in single precision; features from a forward pass of torch.

    Torch evaluates the first frame too, and a piece of the 10th, the 100th, and so on, which is small enough to cost
    no more memory than torch alone would. As soon as the two disagree (:func:`md.disagreement`) there is a warning, and
    torch does the rest.

    Raises
    ------
    AldriverError
        When the two disagree on `atoms`.
    """

    def __init__(self, potential: MACEPotential, atoms: Atoms) -> None:
        self.potential, self.calls = potential, 0
        self._torch = potential.stepper(atoms)
        self._atoms = atoms.copy()
        with returning_freed_memory():
            torch_says = self._torch(atoms.positions, np.asarray(atoms.cell))
        self._calculator: Any = _calculator(potential)
        fault = disagreement(self._native(atoms), torch_says)
        if fault:
            raise AldriverError(f"{DISAGREE}: {fault}")

    @property
    def native(self) -> bool:
        """Whether symmetrix is still in use."""
        return self._calculator is not None

    def __call__(
        self, positions: NDArray[np.float64], cell: NDArray[np.float64], *, stress: bool = True, features: bool = False
    ) -> Prediction:
        """Prediction of the cell."""
        check_finite(positions, cell)
        if self._calculator is None:
            return self._torch(positions, cell, stress=stress, features=features)
        self._atoms.positions[:] = positions
        self._atoms.cell[:] = cell
        self.calls += 1
        if self.calls in CHECKED and self.calls > 1 and (fault := self._fault_now()):
            self._calculator = None
            log.warning("%s goes on in torch after %d steps: %s", self.potential.name, self.calls, fault)
            return self._torch(positions, cell, stress=stress, features=features)
        prediction = self._native(self._atoms)
        rows = self._torch.features(positions, cell) if features else None
        tensor = prediction.stress if stress else None
        return Prediction(energy=prediction.energy, forces=prediction.forces, stress=tensor, features=rows)

    def _native(self, atoms: Atoms) -> Prediction:
        self._calculator.calculate(atoms, ["energy", "forces", "stress"])
        results = self._calculator.results
        return Prediction(
            energy=float(np.sum(results["energies"], dtype=np.float64)) + self.potential.e0_sum(atoms.numbers),
            forces=np.array(results["forces"], dtype=np.float64),
            stress=np.array(results["stress"], dtype=np.float64),
        )

    def _fault_now(self) -> str:
        """Where the two disagree on a piece of this frame; empty when they agree."""
        part = piece(self._atoms)
        with returning_freed_memory():
            torch_says = self.potential.evaluate([part])[0]
        fault = disagreement(self._native(part), torch_says)
        return f"{DISAGREE}: {fault}" if fault else ""


def _calculator(potential: MACEPotential) -> Any:
    os.environ.setdefault("OMP_PROC_BIND", "false")  # the default, said aloud: else symmetrix prints advice
    with _threads_of_torch():
        from symmetrix import Symmetrix

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "network.json"
            file.write_text(_converted(potential))
            return Symmetrix(str(file), dtype="float32")


@contextlib.contextmanager
def _threads_of_torch() -> Iterator[None]:
    """symmetrix has an OpenMP of its own, which asks for its number of threads once, when it is loaded."""
    import torch

    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def _converted(potential: MACEPotential) -> str:
    """The network as symmetrix' JSON, without E0 (added in double precision here); kept with the potential."""
    if potential.symmetrix_json is None:
        from symmetrix.extract_mace_data import extract_mace_data

        from aldriver.potentials.mace_library import mace_library
        from aldriver.potentials.mace_vendor import save_vendor

        bare = potential.with_module(copy.deepcopy(potential.module)).astype("float64")
        bare.module.atomic_energies_fn.atomic_energies.zero_()  # type: ignore[union-attr, operator]
        head = potential.head if len(potential.heads) > 1 else None
        with tempfile.TemporaryDirectory() as folder, mace_library():
            logging.root.setLevel(logging.ERROR)  # it says which elements it takes: all
            file = save_vendor(bare, Path(folder) / "network.model")
            data = extract_mace_data(str(file), species=[], head=head, num_spline_points=256, radial_format="compact")
        potential.symmetrix_json = json.dumps(data)
    return potential.symmetrix_json
