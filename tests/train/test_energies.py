from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aldriver.core.errors import InputError
from aldriver.core.frames import with_labels
from aldriver.potentials.base import Potential, Prediction
from aldriver.train import fit_e0_shift, shifted_energy
from aldriver.train.energies import AUTO_THRESHOLD_EV_ATOM, isolated_atom_shift, refuse_mixed_levels


class Pairwise(Potential):
    """Energy that depends on the structure but carries no element reference."""

    name, family, elements, fingerprint = "pairwise", "test", frozenset({"Fe", "Cr", "Ni"}), "0" * 16

    def evaluate(self, frames, *, stress=True, features=False, batch_atoms=None):
        energies = [0.01 * float(np.sum(a.positions)) - 3.0 * len(a) for a in frames]
        return [Prediction(energy=e, forces=np.zeros((len(a), 3))) for e, a in zip(energies, frames, strict=True)]


def alloy(formulas: list[str], true: dict[str, float], *, noise: float = 0.0, seed: int = 0) -> list[Atoms]:
    """Frames whose reference lies `true` (eV/atom by element) below the potential's scale."""
    rng = np.random.default_rng(seed)
    frames = []
    for formula in formulas:
        atoms = Atoms(formula)
        atoms.positions = rng.uniform(0, 3, (len(atoms), 3))
        energy = Pairwise().evaluate([atoms])[0].energy - sum(true[s] for s in atoms.get_chemical_symbols())
        energy += len(atoms) * rng.normal(0, noise)
        frames.append(with_labels(atoms, energy=energy, forces=np.zeros((len(atoms), 3))))
    return frames


def test_a_known_shift_is_recovered():
    true = {"Fe": -4.2, "Cr": 1.3, "Ni": 0.7}
    shift = fit_e0_shift(alloy(["Fe4", "Fe3Cr", "Fe2Cr2", "Fe2CrNi", "FeNi3"], true), Pairwise())
    assert shift == pytest.approx(true, abs=1e-5)


def test_noise_averages_out():
    true = {"Fe": -4.2, "Cr": 1.3}
    formulas = ["Fe4", "Fe3Cr", "Fe2Cr2", "Cr4"] * 50
    shift = fit_e0_shift(alloy(formulas, true, noise=0.02), Pairwise())
    assert shift == pytest.approx(true, abs=0.01)


def test_shifted_energies_lie_on_the_potentials_scale():
    frames = alloy(["Fe4", "Fe3Cr", "Cr2"], {"Fe": 2.0, "Cr": -1.0})
    shift = fit_e0_shift(frames, Pairwise(), mode="always")
    for atoms in frames:
        expected = Pairwise().evaluate([atoms])[0].energy
        assert shifted_energy(atoms, atoms.get_potential_energy(), shift) == pytest.approx(expected, abs=1e-4)
    assert shifted_energy(frames[0], -1.5, None) == -1.5


def test_one_composition_gets_the_shift_of_least_norm():
    frames = alloy(["Fe2Cr2"] * 4, {"Fe": 3.0, "Cr": 1.0})
    assert fit_e0_shift(frames, Pairwise()) == pytest.approx({"Fe": 2.0, "Cr": 2.0}, abs=1e-5)


@pytest.mark.parametrize(("offset", "expected"), [(0.9, None), (1.1, AUTO_THRESHOLD_EV_ATOM * 1.1)])
def test_auto_shifts_beyond_the_threshold(offset: float, expected: float | None):
    frames = alloy(["Fe4"] * 3, {"Fe": offset * AUTO_THRESHOLD_EV_ATOM})
    shift = fit_e0_shift(frames, Pairwise())
    assert (None if shift is None else shift["Fe"]) == (None if expected is None else pytest.approx(expected, abs=1e-5))


def test_modes():
    frames = alloy(["Fe4"] * 3, {"Fe": 0.01})
    assert fit_e0_shift(frames, Pairwise(), mode="never") is None
    assert fit_e0_shift(frames, Pairwise(), mode="always") == pytest.approx({"Fe": 0.01}, abs=1e-5)
    assert fit_e0_shift([], Pairwise()) is None
    with pytest.raises(InputError, match="e0_shift"):
        fit_e0_shift(frames, Pairwise(), mode="sometimes")  # type: ignore[arg-type]


def test_predictions_known_already_are_used():
    frames = alloy(["Fe4"] * 2, {"Fe": 1.0})
    predicted = [a.get_potential_energy() + 4 * 0.5 for a in frames]
    assert fit_e0_shift(frames, Pairwise(), predicted=predicted) == pytest.approx({"Fe": 0.5})


@pytest.mark.parametrize("mode", ["never", "auto", "always"])
def test_mixed_references_are_refused(mode):
    # bcc iron appears at −8.4 eV/atom (VASP) and −3460.9 eV/atom (another code) in public data
    cell = bulk("Fe", "bcc", a=2.83, cubic=True)
    frames = [with_labels(cell, energy=2 * e, forces=np.zeros((2, 3))) for e in (-8.45, -8.31, -3460.9)]
    with pytest.raises(InputError, match=r"frames of Fe .*frame 2: -3460.900, frame 1: -8.310.*energy references"):
        fit_e0_shift(frames, Pairwise(), mode=mode)


def test_supercells_count_as_one_composition_and_other_compositions_do_not():
    def frame(formula: str, per_atom: float) -> Atoms:
        n = len(Atoms(formula))
        return with_labels(Atoms(formula, positions=np.zeros((n, 3))), energy=n * per_atom, forces=np.zeros((n, 3)))

    fit_e0_shift([frame("Fe2", -8.4), frame("Cr2", -3.0), frame("FeCr", -5.8)], Pairwise())
    with pytest.raises(InputError, match="CrFe"):
        fit_e0_shift([frame("FeCr", -8.4), frame("Fe2Cr2", -3.0)], Pairwise())


def test_a_frame_without_energy_is_named():
    with pytest.raises(InputError, match=r"frame 0 \(Fe2\) has no finite energy"):
        fit_e0_shift([Atoms("Fe2")], Pairwise())


def test_an_element_outside_the_shift_is_refused():
    with pytest.raises(InputError, match="without Ni"):
        shifted_energy(Atoms("FeNi"), -10.0, {"Fe": 1.0})


# ---- isolated atoms and levels of theory -----------------------------------------------------------------------------


def test_isolated_atoms_meet(eam_fe):
    frames = alloy(["Fe4"], {"Fe": 0.0})
    own = eam_fe.evaluate([Atoms("Fe", cell=[12.0] * 3, pbc=True)])[0].energy
    shift = isolated_atom_shift(frames, eam_fe, {"Fe": -3.3})
    assert shift["Fe"] == pytest.approx(own + 3.3, abs=1e-6)


def test_isolated_atom_energies_must_cover_all_elements(eam_fe):
    with pytest.raises(InputError, match="isolated atom for Cr"):
        isolated_atom_shift(alloy(["FeCr"], {"Fe": 0.0, "Cr": 0.0}), eam_fe, {"Fe": -3.3})


def test_chgnet_knows_no_isolated_atoms_and_says_so(chgnet020):
    with pytest.raises(InputError, match="least-squares"):
        isolated_atom_shift(alloy(["Fe2"], {"Fe": 0.0}), chgnet020, {"Fe": -3.3})


def labelled(levels: list[str | None], heads: list[str] | None = None) -> list[Atoms]:
    frames = []
    for k, level in enumerate(levels):
        atoms = Atoms("Fe", positions=[[k, 0, 0]])
        atoms.info |= {} if level is None else {"level": level}
        atoms.info |= {"head": heads[k]} if heads else {}
        frames.append(atoms)
    return frames


@pytest.mark.parametrize("levels", [[None, None], ["PBE", "PBE"], []])
def test_one_level_of_theory_passes(levels):
    refuse_mixed_levels(labelled(levels))


@pytest.mark.parametrize(
    ("levels", "counts"),
    [(["PBE", "PBE", "r2SCAN"], "2 frames: PBE, 1 frames: r2SCAN"), (["PBE", None], "1 frames: not stated")],
)
def test_mixed_levels_are_refused_with_their_numbers(levels, counts):
    with pytest.raises(InputError, match=counts):
        refuse_mixed_levels(labelled(levels))


def test_levels_may_differ_between_heads():
    refuse_mixed_levels(labelled(["PBE", "r2SCAN"], ["a", "b"]))
    with pytest.raises(InputError, match="in head 'a'"):
        refuse_mixed_levels(labelled(["PBE", "r2SCAN"], ["a", "a"]))
