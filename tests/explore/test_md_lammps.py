"""LAMMPS through fix external against ASE with the same potential: frames, drift, barostat, several species."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aldriver.core.units import EV_A3_TO_BAR
from aldriver.explore import HealthLimits, MDProtocol, run_walker
from aldriver.explore.commands import integrator
from aldriver.explore.health import temperature
from aldriver.explore.lammps import single_point
from aldriver.explore.perturb import rattle, strain, thermalise
from aldriver.explore.session import Session

SHEAR = np.array([[0.02, 0.05, -0.03], [0.01, -0.02, 0.06], [0.04, 0.0, 0.01]])


def variants(atoms: Atoms) -> list[Atoms]:
    """A rattled cell: as it is, sheared, sheared and unwrapped, and that arbitrarily rotated; then left-handed."""
    plain = rattle(atoms, 0.1, seed=1)
    sheared = strain(plain, SHEAR)
    away = sheared.copy()
    away.positions += np.random.default_rng(0).integers(-3, 4, (len(away), 3)) @ np.asarray(away.cell)
    rotated = away.copy()
    rotated.rotate(33, (1, 2, 3), rotate_cell=True)
    mirrored = away.copy()
    mirrored.set_cell(np.asarray(away.cell)[[1, 0, 2]], scale_atoms=False)
    return [plain, sheared, away, rotated, mirrored]


def assert_same_as_ase(potential, atoms):
    """What LAMMPS holds against ASE's calculator: 1e-5 eV, 2e-5 eV/Å, 1 bar in each stress component."""
    state = single_point(potential, atoms)
    reference = atoms.copy()
    reference.calc = potential.calculator()
    assert abs(state.energy - reference.get_potential_energy()) <= 1e-5
    assert np.abs(state.forces - reference.get_forces()).max() <= 2e-5
    assert np.abs(state.stress - reference.get_stress()).max() * EV_A3_TO_BAR <= 1.0
    assert np.abs(reference.get_stress()).max() * EV_A3_TO_BAR > 1e3  # a comparison that says something


@pytest.mark.parametrize("k", range(5))
def test_eam_frame_equals_ase(eam_fe, fe_vacancy, k):
    assert_same_as_ase(eam_fe, variants(fe_vacancy)[k])


@pytest.mark.parametrize("k", range(5))
def test_chgnet_frame_equals_ase(chgnet020, k):
    atoms = bulk("Fe", "bcc", a=2.85, cubic=True) * (2, 1, 1)
    assert_same_as_ase(chgnet020, variants(atoms)[k])


def test_chgnet_frame_equals_the_authors_calculator(chgnet020):
    """Independent of aldriver's own evaluation: CHGNet's ASE calculator (two backward passes, its own graph).

    Single precision is the limit here: from float64 both differ by as much (1e-5 eV/Å, 0.3 bar in this cell).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from chgnet.model.dynamics import CHGNetCalculator
        from chgnet.model.model import CHGNet

        atoms = variants(bulk("Fe", "bcc", a=2.85, cubic=True) * (2, 2, 2))[0]
        state = single_point(chgnet020, atoms)
        reference = atoms.copy()
        reference.calc = CHGNetCalculator(
            CHGNet.load(model_name="0.2.0", use_device="cpu", verbose=False), use_device="cpu"
        )
        assert abs(state.energy - reference.get_potential_energy()) <= 1e-5
        assert np.abs(state.forces - reference.get_forces()).max() <= 2e-5
        assert np.abs(state.stress - reference.get_stress()).max() * EV_A3_TO_BAR <= 1.0


def test_shear_components_are_in_their_places(eam_fe):
    """Engineering shear of one plane of a cubic crystal gives stress in that component alone (symmetry)."""
    for component in (3, 4, 5):
        e = np.zeros(6)
        e[component] = 0.02
        state = single_point(eam_fe, strain(bulk("Fe", "bcc", a=2.855, cubic=True), e))
        shear = np.abs(state.stress[3:])
        assert shear.argmax() == component - 3
        assert state.stress[component] > 0
        assert np.delete(shear, component - 3).max() < 0.05 * shear.max()


def test_nve_drift_equals_ase(eam_fe, fe_vacancy):
    """2000 steps of 5 fs, where the drift is resolvable: slope, fluctuation and the energies themselves agree."""
    protocol = MDProtocol(ensemble="nve", temperature_K=600, steps=2000, sample_every=20, timestep_fs=5.0, seed=3)
    energies, slopes, spreads = {}, {}, {}
    for engine in ("lammps", "ase"):
        result = run_walker(eam_fe, fe_vacancy, protocol, engine=engine)
        assert result.reason == "completed"
        energies[engine] = e = np.array([f.get_total_energy() for f in result.frames])
        t = np.arange(len(e)) * 0.1
        slope, offset = np.polyfit(t, e, 1)
        slopes[engine], spreads[engine] = slope, (e - offset - slope * t).std()
    assert abs(slopes["ase"]) > 1e-6  # eV/ps: not numerical noise
    assert slopes["lammps"] == pytest.approx(slopes["ase"], rel=0.1)
    assert spreads["lammps"] == pytest.approx(spreads["ase"], rel=0.1)
    np.testing.assert_allclose(energies["lammps"], energies["ase"], atol=1e-5)


@pytest.mark.parametrize("flexible", ["iso", "aniso", "tri"])
def test_npt_frames_are_what_the_potential_says_of_them(eam_fe, hot_vacancy, flexible):
    """Evaluated again from scratch, each frame of a moving, sheared, unwrapped cell gives its own labels."""
    protocol = MDProtocol(
        ensemble="npt", flexible=flexible, temperature_K=900, steps=400, sample_every=100, pdamp_fs=100.0, timestep_fs=2
    )
    result = run_walker(eam_fe, hot_vacancy, protocol)
    assert result.reason == "completed"
    assert abs(result.frames[-1].get_volume() / hot_vacancy.get_volume() - 1) > 1e-3
    for frame in result.frames:
        again = eam_fe.evaluate([frame])[0]
        assert again.energy == pytest.approx(frame.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(again.forces, frame.get_forces(), atol=1e-9)
        np.testing.assert_allclose(again.stress, frame.get_stress(), atol=1e-11)
    angles = np.array([f.cell.angles() for f in result.frames])
    assert bool(np.ptp(angles, axis=0).max() > 0.1) is (flexible == "tri")


def test_npt_first_steps_follow_ase(eam_fe, fe_vacancy):
    """Both integrate the same equations (MTK): cells agree closely while the chains have hardly moved."""
    protocol = MDProtocol(
        ensemble="npt", flexible="iso", temperature_K=600, steps=20, sample_every=20, pdamp_fs=500.0, seed=4
    )
    start = strain(fe_vacancy, 0.02)
    volumes = [run_walker(eam_fe, start, protocol, engine=e).last.get_volume() for e in ("lammps", "ase")]
    change = volumes[1] - start.get_volume()
    assert abs(change) > 0.005
    assert volumes[0] - start.get_volume() == pytest.approx(change, rel=0.1)


def test_two_species_and_isotopes_keep_their_own_masses(lj_alloy):
    """NVE of a mixed crystal with one heavy isotope follows ASE atom by atom."""
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True) * (2, 1, 1)
    atoms.symbols[[1, 4, 6]] = "Ar"
    masses = atoms.get_masses()
    masses[0] = 70.0
    atoms.set_masses(masses)
    atoms = rattle(atoms, 0.05, seed=2)
    protocol = MDProtocol(ensemble="nve", temperature_K=300, steps=60, sample_every=20, seed=8)
    ours, ases = (run_walker(lj_alloy[0], atoms, protocol, engine=e).frames for e in ("lammps", "ase"))
    for a, b in zip(ours, ases, strict=True):
        assert a.get_chemical_symbols() == atoms.get_chemical_symbols()
        np.testing.assert_allclose(a.get_masses(), masses)
        np.testing.assert_allclose(a.positions, b.positions, atol=1e-6)
        np.testing.assert_allclose(a.get_velocities(), b.get_velocities(), atol=1e-6)


def test_positions_stay_unwrapped(eam_fe, fe_vacancy):
    """A crystal that drifts as a whole leaves the box; frames follow it without a jump."""
    drift = thermalise(fe_vacancy, 100.0, seed=0)
    drift.set_velocities(drift.get_velocities() + np.array([1.0, 0.0, 0.0]))  # ASE units: about 0.1 Å/fs
    protocol = MDProtocol(ensemble="nve", steps=200, sample_every=10, timestep_fs=1.0)
    frames = run_walker(eam_fe, drift, protocol, health=HealthLimits(max_temperature_K=1e6)).frames
    centres = np.array([f.get_center_of_mass() for f in frames])
    np.testing.assert_allclose(np.diff(centres[:, 0]), np.diff(centres[:, 0])[0], rtol=1e-6)
    assert centres[-1, 0] - centres[0, 0] > fe_vacancy.cell[0, 0]


def test_velocities_go_through_unchanged(eam_fe, hot_vacancy):
    start = thermalise(hot_vacancy, 700.0, seed=1)
    session = Session(start)
    try:
        now = session.atoms()
    finally:
        session.close()
    np.testing.assert_allclose(now.get_momenta(), start.get_momenta(), atol=1e-12)
    np.testing.assert_allclose(now.positions, start.positions, atol=1e-10)
    np.testing.assert_allclose(np.asarray(now.cell), np.asarray(start.cell), atol=1e-10)
    assert temperature(now) == pytest.approx(700.0)


def test_the_ensemble_command_is_in_lammps_units():
    npt = MDProtocol(ensemble="npt", flexible="tri", pressure_GPa=1.0, temperature_K=300.0, timestep_fs=2.0)
    assert integrator(npt) == "npt temp 300.0 300.0 0.2 tri 10000.0 10000.0 2.0 flip no"
    assert integrator(MDProtocol(ensemble="nve")) == "nve"
