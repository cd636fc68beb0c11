from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.units import GPa

import aldriver
from aldriver.benchmark.evaluate import (
    composition,
    errors,
    errors_by_element,
    errors_by_group,
    evaluate,
    predict,
    reference_energy,
)
from aldriver.core.errors import InputError
from aldriver.core.frames import with_labels


@pytest.fixture
def frames(fe):
    """Six rattled cells of 2 to 16 atoms labelled by the potential itself."""
    found = []
    for i, size in enumerate([(1, 1, 1), (2, 1, 1), (2, 2, 2)] * 2):
        atoms = bulk("Fe", "bcc", a=2.87, cubic=True).repeat(size)
        atoms.rattle(0.05, seed=i)
        p = fe.evaluate([atoms])[0]
        found.append(with_labels(atoms, energy=p.energy, forces=p.forces, stress=p.stress))
    return found


def test_own_labels_have_no_error(fe, frames):
    metrics = evaluate(fe, frames)
    assert (metrics["n_frames"], metrics["n_atoms"], metrics["n_stress"]) == (6, 44, 6)
    for key in ("energy_mae_meV_atom", "energy_rmse_meV_atom", "forces_mae_meV_A", "forces_rmse_meV_A"):
        assert metrics[key] == pytest.approx(0, abs=1e-6)
    assert metrics["stress_rmse_GPa"] == pytest.approx(0, abs=1e-8)


def test_known_errors_come_back(fe, changed, frames):
    """Errors put in by hand, in the units of the report."""

    def off(atoms, p):
        forces = p.forces.copy()
        forces[0, 0] += 0.3  # one component of one atom
        energy = p.energy + 0.002 * len(atoms)
        return dataclasses.replace(p, energy=energy, forces=forces, stress=p.stress + 0.5 * GPa)

    metrics = evaluate(changed(fe, off), frames)
    components = 3 * 44
    assert metrics["energy_mae_meV_atom"] == pytest.approx(2)
    assert metrics["energy_rmse_meV_atom"] == pytest.approx(2)
    assert metrics["forces_mae_meV_A"] == pytest.approx(300 * 6 / components)
    assert metrics["forces_rmse_meV_A"] == pytest.approx(300 * np.sqrt(6 / components))
    assert metrics["forces_max_meV_A"] == pytest.approx(300)
    assert metrics["stress_mae_GPa"] == pytest.approx(0.5)
    assert metrics["stress_rmse_GPa"] == pytest.approx(0.5)


def test_e0_shift_moves_the_labels(fe, frames):
    moved = [with_labels(f, energy=f.get_potential_energy() + 3456.0 * len(f), forces=f.get_forces()) for f in frames]
    assert evaluate(fe, moved)["energy_mae_meV_atom"] == pytest.approx(3456e3, rel=1e-6)
    metrics = evaluate(fe, moved, e0_shift={"Fe": -3456.0, "Cu": 17.0})
    assert metrics["energy_mae_meV_atom"] == pytest.approx(0, abs=1e-5)
    mixed = with_labels(Atoms("Fe2Cu", positions=np.eye(3)), energy=1.0, forces=np.zeros((3, 3)))
    assert reference_energy(mixed, {"Fe": 10.0, "Cu": 100.0}) == pytest.approx(121.0)


def test_frames_without_stress(fe, frames):
    bare = [with_labels(f, energy=f.get_potential_energy(), forces=f.get_forces()) for f in frames]
    metrics = evaluate(fe, bare)
    assert (metrics["n_stress"], metrics["stress_mae_GPa"], metrics["stress_rmse_GPa"]) == (0, None, None)
    mixed = evaluate(fe, [*bare[:3], *frames[3:]])
    assert mixed["n_stress"] == 3
    assert mixed["stress_rmse_GPa"] == pytest.approx(0, abs=1e-8)


def test_one_bad_frame_takes_all_numbers_away(fe, changed, frames):
    broken = changed(fe, lambda a, p: dataclasses.replace(p, forces=p.forces * np.nan) if len(a) == 4 else p)
    metrics = evaluate(broken, frames)
    assert metrics["n_not_finite"] == 2
    assert all(value is None for key, value in metrics.items() if not key.startswith("n_"))


def test_progress_reaches_the_end(fe, frames, monkeypatch):
    seen = []
    monkeypatch.setattr("aldriver.benchmark.evaluate.CHUNK", 4)
    metrics = evaluate(fe, frames, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(4, 6), (6, 6)]
    assert metrics["n_frames"] == 6


def test_frames_that_cannot_be_compared_are_refused(fe, frames):
    with pytest.raises(InputError, match="no frames"):
        evaluate(fe, [])
    with pytest.raises(InputError, match=r"frame 1 .* has no energy"):
        evaluate(fe, [frames[0], bulk("Fe", cubic=True)])
    energy_only = bulk("Fe", cubic=True)
    energy_only.calc = SinglePointCalculator(energy_only, energy=1.0)
    with pytest.raises(InputError, match="no forces"):
        evaluate(fe, [energy_only])
    with pytest.raises(InputError, match="not finite"):
        evaluate(fe, [with_labels(bulk("Fe", cubic=True), energy=np.nan, forces=np.zeros((2, 3)))])
    copper = with_labels(bulk("Cu"), energy=0.0, forces=np.zeros((1, 3)))
    with pytest.raises(InputError, match="does not know the element Cu"):
        evaluate(fe, [copper])


def test_the_larger_force_error_of_the_untouched_network(chgnet020, fe, frames):
    """CHGNet 0.2.0 against the EAM stand-in: wrong by much more than the label noise, energies by an offset."""
    metrics = evaluate(chgnet020, frames)
    assert 50 < metrics["forces_rmse_meV_A"] < 2000
    assert metrics["energy_mae_meV_atom"] > 1000
    found = chgnet020.evaluate(frames)
    offsets = [(p.energy - f.get_potential_energy()) / len(f) for p, f in zip(found, frames, strict=True)]
    shifted = evaluate(chgnet020, frames, e0_shift={"Fe": float(np.mean(offsets))})
    assert shifted["energy_rmse_meV_atom"] < 100


@pytest.fixture
def alloy():
    """An Al-Cu potential and frames of three compositions, labelled by itself."""
    potential = aldriver.load("eam:AlCu.eam.alloy")
    found = []
    for i, symbols in enumerate(["Al4", "AlCu3", "Al2Cu2", "Cu2Al2"]):
        atoms = bulk("Cu", "fcc", a=3.8, cubic=True)
        atoms.set_chemical_symbols(Atoms(symbols).get_chemical_symbols())
        atoms.rattle(0.05, seed=i)
        p = potential.evaluate([atoms])[0]
        found.append(with_labels(atoms, energy=p.energy, forces=p.forces, stress=p.stress))
    return potential, found


def test_force_errors_belong_to_the_element_they_are_on(alloy, changed):
    """A known error on copper atoms alone; the force errors of the elements add up to the overall one."""
    potential, frames = alloy

    def off(atoms, p):
        forces = p.forces + 0.001
        forces[atoms.numbers == 29] += 0.099
        return dataclasses.replace(p, forces=forces)

    found = predict(changed(potential, off), frames)
    by = errors_by_element(frames, found)
    assert list(by) == ["Al", "Cu"] and (by["Al"]["n_atoms"], by["Cu"]["n_atoms"]) == (9, 7)
    assert by["Al"]["forces_rmse_meV_A"] == pytest.approx(1.0, rel=1e-6)
    assert by["Cu"]["forces_mae_meV_A"] == pytest.approx(100.0, rel=1e-6)
    total = np.sqrt(sum(m["n_atoms"] * m["forces_rmse_meV_A"] ** 2 for m in by.values()) / 16)
    assert errors(frames, found)["forces_rmse_meV_A"] == pytest.approx(total)


def test_errors_by_group_and_composition(alloy, changed):
    potential, frames = alloy
    worse = changed(potential, lambda a, p: dataclasses.replace(p, energy=p.energy + 0.04 * (29 in a.numbers)))
    found = predict(worse, frames)
    by = errors_by_group(frames, found, [composition(a) for a in frames])
    assert {name: m["n_frames"] for name, m in by.items()} == {"Al": 1, "AlCu3": 1, "AlCu": 2}
    assert by["Al"]["energy_mae_meV_atom"] == pytest.approx(0.0, abs=1e-6)
    assert by["AlCu"]["energy_mae_meV_atom"] == pytest.approx(10.0)
    shift = {"Al": -0.005, "Cu": 0.015}  # undoes it for AlCu: 0.04 eV over two Al and two Cu is 0.01 eV/atom
    by = errors_by_group(frames, found, ["a", "a", "b", "b"], e0_shift={k: 2 * v for k, v in shift.items()})
    assert by["b"]["energy_rmse_meV_atom"] == pytest.approx(0.0, abs=1e-6)
    assert by["a"]["n_frames"] == 2


def test_an_element_with_a_force_that_is_not_finite_has_no_mean(alloy, changed):
    potential, frames = alloy

    def off(atoms, p):
        forces = p.forces.copy()
        forces[atoms.numbers == 13] = np.nan
        return dataclasses.replace(p, forces=forces)

    by = errors_by_element(frames, predict(changed(potential, off), frames))
    assert by["Al"]["forces_rmse_meV_A"] is None and by["Cu"]["forces_rmse_meV_A"] == pytest.approx(0.0, abs=1e-6)
