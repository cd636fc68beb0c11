"""Contract tests every implementation must pass, run against all of them. They assert physics, not stored numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aldriver.core.errors import InputError
from aldriver.core.units import voigt_to_matrix
from aldriver.potentials.base import Potential, Prediction

VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


def check_potential(
    potential: Potential,
    frames: Sequence[Atoms],
    *,
    noise: float = 0.0,
    unknown: str | None = None,
    finite_differences: bool = True,
) -> None:
    """Assert that a potential keeps the contract of ``potentials/base.py``.

    Parameters
    ----------
    frames
        Small periodic cells, one of them at least with two atoms; sheared ones test the most.
    noise
        Relative noise of its arithmetic: about 1e-6 for single precision, 0 for double.
    unknown
        A symbol the potential does not know.
    finite_differences
        Compare forces and stress with differences of energies (wants double precision to be sharp).

    Raises
    ------
    AssertionError
        Saying which part of the contract is broken.
    """
    tight = 1e-9 + 100 * noise
    single = [potential.evaluate([a])[0] for a in frames]
    for atoms, p in zip(frames, single, strict=True):
        check_shapes(potential, atoms, p)
    _check_same(single, potential.evaluate(frames), tight, "a batch differs from single frames")
    _check_same(single, potential.evaluate(frames, batch_atoms=1), tight, "the batch size changes the result")
    again = [potential.evaluate([a])[0] for a in frames]
    assert all(
        a.energy == b.energy and np.array_equal(a.forces, b.forces) for a, b in zip(single, again, strict=True)
    ), "the same frame gives another result the second time"
    without = potential.evaluate(frames, stress=False)
    assert all(p.stress is None for p in without), "stress was not asked for"
    for atoms, p in zip(frames, single, strict=True):
        check_symmetries(potential, atoms, p, tight)
        check_calculator(potential, atoms, p, tight)
        check_stepper(potential, atoms, tight)
    if finite_differences:
        for atoms in frames:
            check_derivatives(potential, atoms, noise)
    if unknown is not None:
        _check_unknown(potential, frames[0], unknown)


def check_shapes(potential: Potential, atoms: Atoms, p: Prediction) -> None:
    """Shapes, types and finiteness of one prediction; features where the family has them."""
    n = len(atoms)
    assert isinstance(p.energy, float) and np.isfinite(p.energy), "energy must be one finite float"
    assert p.forces.shape == (n, 3) and p.forces.dtype == np.float64 and np.isfinite(p.forces).all(), "forces"
    assert p.stress is not None and p.stress.shape == (6,) and np.isfinite(p.stress).all(), "stress must be Voigt 6"
    assert p.magmoms is None or p.magmoms.shape == (n,), "magmoms must be one number per atom"
    assert len(potential.fingerprint) == 16 and int(potential.fingerprint, 16) >= 0, "fingerprint: 16 hex characters"
    if potential.has_features:
        rows = potential.features([atoms])[0]
        assert rows.ndim == 2 and len(rows) == n and np.isfinite(rows).all(), "features must be (N, D)"
    else:
        assert p.features is None


def check_symmetries(potential: Potential, atoms: Atoms, p: Prediction, tight: float) -> None:
    """Translation, wrapping, permutation, rotation (proper and improper), and another cell of the same crystal."""
    scale = max(1.0, abs(p.energy))
    moved = atoms.copy()
    moved.positions += [0.37, -1.2, 2.6]
    moved.positions[0] += np.array([2, -1, 3]) @ np.asarray(atoms.cell)
    oblique = atoms.copy()
    oblique.set_cell(np.array([[1, 0, 0], [-1, 1, 0], [2, -1, 1]]) @ np.asarray(atoms.cell))
    order = np.random.default_rng(5).permutation(len(atoms))
    rng = np.random.default_rng(7)
    for kind, q_atoms, q_order, turn in (
        ("translation and wrapping", moved, np.arange(len(atoms)), np.eye(3)),
        ("another cell of the same crystal", oblique, np.arange(len(atoms)), np.eye(3)),
        ("permutation", atoms[order], order, np.eye(3)),
        ("rotation", None, np.arange(len(atoms)), _rotation(rng, 1.0)),
        ("reflection", None, np.arange(len(atoms)), _rotation(rng, -1.0)),
    ):
        other = q_atoms if q_atoms is not None else _turned(atoms, turn)
        q = potential.evaluate([other])[0]
        assert abs(q.energy - p.energy) < tight * scale, f"{kind} changes the energy"
        np.testing.assert_allclose(q.forces, p.forces[q_order] @ turn, atol=10 * tight, err_msg=f"{kind}: forces")
        assert p.stress is not None and q.stress is not None
        turned = turn.T @ voigt_to_matrix(p.stress) @ turn
        np.testing.assert_allclose(voigt_to_matrix(q.stress), turned, atol=10 * tight, err_msg=f"{kind}: stress")


def check_derivatives(potential: Potential, atoms: Atoms, noise: float, *, step: float = 1e-3) -> None:
    """Forces are −dE/dx and the stress is (1/V) dE/dε, by central differences of fourth order."""
    p = potential.evaluate([atoms], stress=True)[0]
    floor = 2e-6 + noise * max(1.0, abs(p.energy)) / step  # truncation, and what the energies cannot resolve
    rng = np.random.default_rng(11)
    directions = [rng.normal(size=(len(atoms), 3)) for _ in range(2)]
    single = np.zeros((len(atoms), 3))
    single[-1, 1] = 1.0
    for d in [*directions, single]:
        d = d / np.linalg.norm(d)
        slope = _slope(potential, [_displaced(atoms, h * d) for h in _steps(step)], step)
        assert abs(slope + (p.forces * d).sum()) < floor, (
            f"force is not −dE/dx: {slope} against {-(p.forces * d).sum()}"
        )
    assert p.stress is not None
    volume = atoms.get_volume()
    for component, (a, b) in enumerate(VOIGT):
        strain = np.zeros((3, 3))
        strain[a, b] += 0.5
        strain[b, a] += 0.5
        slope = _slope(potential, [_strained(atoms, h * strain) for h in _steps(step)], step) / volume
        assert abs(slope - p.stress[component]) < floor, (
            f"stress component {component} (Voigt) is not dE/dε/V: {slope} against {p.stress[component]}"
        )


def check_calculator(potential: Potential, atoms: Atoms, p: Prediction, tight: float) -> None:
    """The ASE calculator says what ``evaluate`` says, in any order of questions."""
    other = atoms.copy()
    other.calc = potential.calculator()
    forces = other.get_forces()
    stress = other.get_stress()
    assert abs(other.get_potential_energy() - p.energy) <= tight * max(1.0, abs(p.energy)), "calculator: energy"
    np.testing.assert_allclose(forces, p.forces, atol=tight, err_msg="calculator: forces")
    assert p.stress is not None
    np.testing.assert_allclose(stress, p.stress, atol=tight, err_msg="calculator: stress")


def check_stepper(potential: Potential, atoms: Atoms, tight: float, *, steps: int = 6) -> None:
    """A stepper along a random walk, cell changes and wrap jumps included, says what fresh evaluations say."""
    rng = np.random.default_rng(13)
    stepper = potential.stepper(atoms)
    walker = atoms.copy()
    for step in range(steps):
        walker.set_cell(np.asarray(walker.cell) @ (np.eye(3) + rng.normal(0, 0.003, (3, 3))), scale_atoms=True)
        walker.positions += rng.normal(0, 0.03, walker.positions.shape)
        if step % 2:
            walker.wrap()
        p = stepper(walker.positions, np.asarray(walker.cell))
        _check_same([potential.evaluate([walker])[0]], [p], tight, f"the stepper differs at step {step}")


def _check_unknown(potential: Potential, atoms: Atoms, symbol: str) -> None:
    strange = atoms.copy()
    strange.symbols[0] = symbol
    try:
        potential.evaluate([strange])
    except InputError as error:
        assert symbol in str(error), f"the error does not name {symbol}: {error}"
    else:
        raise AssertionError(f"{symbol} is unknown to {potential.name}, but was evaluated")


def _check_same(expected: Sequence[Prediction], got: Sequence[Prediction], tight: float, message: str) -> None:
    assert len(expected) == len(got), message
    for e, g in zip(expected, got, strict=True):
        assert abs(e.energy - g.energy) <= tight * max(1.0, abs(e.energy)), f"{message}: {e.energy} and {g.energy} eV"
        np.testing.assert_allclose(g.forces, e.forces, atol=tight, err_msg=message)
        if e.stress is not None and g.stress is not None:
            np.testing.assert_allclose(g.stress, e.stress, atol=tight, err_msg=message)


def _steps(step: float) -> tuple[float, ...]:
    return (step, -step, 2 * step, -2 * step)


def _slope(potential: Potential, frames: Sequence[Atoms], step: float) -> float:
    """dE/dh from energies at ±h and ±2h."""
    e = [p.energy for p in potential.evaluate(frames, stress=False)]
    return (8 * (e[0] - e[1]) - (e[2] - e[3])) / (12 * step)


def _displaced(atoms: Atoms, d: NDArray[np.float64]) -> Atoms:
    out = atoms.copy()
    out.positions += d
    return out


def _strained(atoms: Atoms, strain: NDArray[np.float64]) -> Atoms:
    out = atoms.copy()
    out.set_cell(np.asarray(atoms.cell) @ (np.eye(3) + strain), scale_atoms=True)
    return out


def _turned(atoms: Atoms, turn: NDArray[np.float64]) -> Atoms:
    return Atoms(
        numbers=atoms.numbers, positions=atoms.positions @ turn, cell=np.asarray(atoms.cell) @ turn, pbc=atoms.pbc
    )


def _rotation(rng: np.random.Generator, determinant: float) -> NDArray[np.float64]:
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    q = np.asarray(q, dtype=np.float64)
    q[:, 0] *= determinant * np.linalg.det(q)
    return q
