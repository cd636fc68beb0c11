"""Open directions, deformation, swaps, the guard, log and dump, changed inputs, large cells."""

from __future__ import annotations

import dataclasses
import gzip

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bcc100, bulk
from ase.io import read

from aldriver.core.errors import InputError
from aldriver.explore import HealthLimits, MDProtocol, Swaps, run_walker
from aldriver.explore.commands import TEMPLATE, integrator
from aldriver.explore.perturb import rattle, thermalise
from aldriver.explore.swap import Swapper

ENGINES = pytest.mark.parametrize("engine", ["lammps", "ase"])
SHORT = MDProtocol(temperature_K=300, steps=20, sample_every=5, timestep_fs=2.0, seed=4)


@pytest.fixture
def slab() -> Atoms:
    """Fe(100), 20 atoms, open along z, in a cell that is not where LAMMPS would put it."""
    atoms = bcc100("Fe", (2, 2, 5), a=2.855, vacuum=6.0)
    atoms.pbc = (True, True, False)
    return rattle(atoms, 0.05, seed=1)


def test_a_slab_moves_as_in_ase(eam_fe, slab):
    protocol = dataclasses.replace(SHORT, ensemble="nve", temperature_K=600, steps=60, sample_every=20)
    ours, ases = (run_walker(eam_fe, slab, protocol, engine=e) for e in ("lammps", "ase"))
    assert ours.reason == "completed"
    for a, b in zip(ours.frames, ases.frames, strict=True):
        assert a.pbc.tolist() == [True, True, False]
        np.testing.assert_allclose(a.positions, b.positions, atol=1e-6)
        np.testing.assert_allclose(a.get_stress(), b.get_stress(), atol=1e-8)


def test_chgnet_knows_an_open_direction(chgnet020):
    """A slab at the bottom and one at the top of a cell without vacuum meet only through a periodic side."""
    atoms = bcc100("Fe", (1, 1, 3), a=2.855, vacuum=0.7)
    atoms.pbc = (True, True, False)
    far = atoms.copy()
    far.center(vacuum=9.0, axis=2)
    protocol = dataclasses.replace(SHORT, ensemble="nve", steps=2, sample_every=1, timestep_fs=0.5)
    near, apart = (run_walker(chgnet020, a, protocol).frames[-1] for a in (atoms, far))
    np.testing.assert_allclose(near.get_forces(), apart.get_forces(), atol=1e-4)
    assert near.get_potential_energy() == pytest.approx(apart.get_potential_energy(), abs=1e-4)


def test_npt_of_a_slab_moves_its_plane_alone(eam_fe, slab):
    for flexible in ("iso", "aniso"):
        protocol = dataclasses.replace(SHORT, ensemble="npt", flexible=flexible, pdamp_fs=60.0)
        last = run_walker(eam_fe, slab, protocol).last
        change = last.cell.lengths() - slab.cell.lengths()
        assert change[2] == 0 and np.all(np.abs(change[:2]) > 1e-4)
        assert bool(abs(change[0] - change[1]) < 1e-10) is (flexible == "iso")
    with pytest.raises(InputError, match="volume of a slab"):
        run_walker(eam_fe, slab, dataclasses.replace(SHORT, ensemble="npt", pressure_GPa=1.0))


@ENGINES
def test_an_atom_that_leaves_through_the_open_side_ends_the_walk(eam_fe, slab, engine):
    top = int(np.argmax(slab.positions[:, 2]))
    slab.positions[top, 2] += 2.0
    start = thermalise(slab, 10.0, seed=0)
    momenta = start.get_momenta()
    momenta[top, 2] += 200.0
    start.set_momenta(momenta)
    protocol = dataclasses.replace(SHORT, ensemble="nve", steps=200, sample_every=2)
    wild = HealthLimits(max_temperature_K=1e9, max_energy_jump_eV_atom=1e9)
    result = run_walker(eam_fe, start, protocol, engine=engine, health=wild)
    assert result.reason == "lost_atoms" and 0 < result.steps_done < 200
    assert len(result.frames) == (result.steps_done - 1) // 2  # those before stay
    assert result.frames[-1].positions[top, 2] < slab.cell[2, 2]


def test_deformation_has_its_rate_and_labels_belong_to_their_frames(eam_fe, hot_vacancy):
    """Engineering strain rates; fix deform moves the box after the evaluation, the frames are those evaluated."""
    cell = bulk("Fe", "bcc", a=2.855, cubic=True) * (2, 2, 2)
    protocol = dataclasses.replace(SHORT, deform_per_ps={"zz": 0.5, "xy": 0.4}, steps=40)
    for frame in run_walker(eam_fe, rattle(cell, 0.05), protocol).frames:
        # the box of step n was made at the end of step n − 1
        ps = (frame.info["step"] - 1) * 2e-3
        expected = np.asarray(cell.cell).copy()
        expected[2, 2] *= 1 + 0.5 * ps
        expected[1, 0] += 0.4 * ps * cell.cell[1, 1]
        np.testing.assert_allclose(np.asarray(frame.cell), expected, atol=1e-10)
        again = eam_fe.evaluate([frame])[0]
        assert again.energy == pytest.approx(frame.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(again.forces, frame.get_forces(), atol=1e-9)


def test_a_pulled_crystal_gets_thinner(eam_fe):
    """Tension along z at no lateral pressure: Poisson's ratio of bcc iron along [100] is about 0.3–0.4."""
    cell = bulk("Fe", "bcc", a=2.855, cubic=True) * (2, 2, 2)
    protocol = MDProtocol(
        ensemble="npt", flexible="aniso", deform_per_ps={"zz": 0.02}, temperature_K=10, steps=600, sample_every=10,
        timestep_fs=2.0, pdamp_fs=600.0, seed=1,
    )  # fmt: skip
    frames = run_walker(eam_fe, cell, protocol).frames
    lengths = np.array([f.cell.lengths() for f in frames])
    strains = lengths / cell.cell.lengths() - 1
    lateral, axial = strains[:, :2].mean(axis=1), strains[:, 2]
    assert axial[-1] == pytest.approx(0.02 * 1.198, rel=1e-6)
    assert 0.2 < -np.polyfit(axial, lateral, 1)[0] < 0.5


def test_what_a_barostat_gets():
    npt = MDProtocol(ensemble="npt", flexible="aniso", deform_per_ps={"zz": 0.1}, timestep_fs=1.0)
    assert integrator(npt) == "npt temp 300.0 300.0 0.1 x 0.0 0.0 1.0 y 0.0 0.0 1.0"
    ramp = MDProtocol(ensemble="npt", thermostat="langevin", pressure_GPa=1.0, pressure_end_GPa=2.0)
    assert integrator(ramp) == "nph iso 10000.0 20000.0 1.0"
    with pytest.raises(InputError, match="no length"):
        integrator(dataclasses.replace(npt, deform_per_ps={"xx": 0.1, "yy": 0.1, "zz": 0.1}))
    with pytest.raises(InputError, match="tri needs"):
        integrator(MDProtocol(ensemble="npt", flexible="tri"), (True, True, False))


def test_swaps_sample_boltzmann():
    """One solute on six sites, one of which costs 0.05 eV: it is there as often as Boltzmann says."""
    atoms = Atoms("CuAr5", positions=np.arange(18.0).reshape(6, 3), cell=[20, 20, 20], pbc=True)
    special = atoms.positions[3].copy()
    protocol = MDProtocol(temperature_K=500.0, swaps=Swaps(pairs=(("Cu", "Ar"),), every=1), seed=3)
    swapper = Swapper(atoms, protocol)

    class Said:
        def __init__(self, frame):
            self.energy = 0.05 if np.allclose(frame.positions[0], special) else 0.0

    here, n = 0, 4000
    for _ in range(n):
        moved = swapper(1, atoms, Said(atoms).energy, Said)
        atoms = atoms if moved is None else moved[0]
        here += np.allclose(atoms.positions[0], special)
    factor = np.exp(-0.05 / (units.kB * 500.0))
    p = factor / (factor + 5)
    assert swapper.attempts == n and 0 < swapper.accepted < n
    # the solute leaves the site at its first attempt, so visits are nearly independent
    assert here / n == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / n))
    assert atoms.get_chemical_symbols() == ["Cu"] + ["Ar"] * 5


def test_swaps_in_md_keep_momenta_species_and_labels(lj_alloy):
    potential, atoms = lj_alloy
    protocol = dataclasses.replace(SHORT, swaps=Swaps(pairs=(("Cu", "Ar"),), every=5, attempts=2), temperature_K=5000)
    limits = HealthLimits(min_distance=0.1, max_force_eV_A=1e4, max_energy_jump_eV_atom=1e4)
    result = run_walker(potential, atoms, protocol, health=limits)
    assert result.reason == "completed" and result.swaps[0] == 6 and result.swaps[1] > 0
    moved = np.linalg.norm(result.last.positions - atoms.positions, axis=1)
    assert moved.max() > 1.5  # a place away
    for frame in result.frames:
        assert frame.get_chemical_symbols() == atoms.get_chemical_symbols()
        again = potential.evaluate([frame])[0]
        assert again.energy == pytest.approx(frame.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(again.forces, frame.get_forces(), atol=1e-9)
        np.testing.assert_allclose(frame.get_momenta().sum(axis=0), 0.0, atol=1e-6)
    with pytest.raises(InputError, match="Ni"):
        run_walker(potential, atoms, dataclasses.replace(protocol, swaps=Swaps(pairs=(("Cu", "Ni"),))))


class Looks:
    """A guard that looks after 3 steps, then every 4, and stops the run at `stop`."""

    def __init__(self, stop: int, features: bool = True) -> None:
        self.every, self.features, self.stop, self.seen = 3, features, stop, []

    def __call__(self, step, atoms, prediction):
        self.every = 4
        self.seen.append((step, atoms.copy(), prediction))
        return f"the guard says stop at {step}" if step >= self.stop else None


@ENGINES
def test_the_guard_looks_between_samples_and_stops(wrapped, fe_vacancy, engine):
    potential, guard = wrapped(), Looks(stop=15)
    protocol = dataclasses.replace(SHORT, steps=40)
    result = run_walker(potential, fe_vacancy, protocol, engine=engine, guard=guard)
    assert [step for step, _, _ in guard.seen] == [3, 7, 11, 15]
    assert (result.reason, result.message, result.steps_done) == ("guard", "the guard says stop at 15", 15)
    assert [f.info["step"] for f in result.frames] == [5, 10]
    for _, atoms, prediction in guard.seen:
        np.testing.assert_allclose(prediction.features[:, :3], prediction.forces)
        np.testing.assert_allclose(potential.evaluate([atoms])[0].forces, prediction.forces, atol=1e-9)
    assert len(potential.asked) == 16  # a look costs no evaluation
    assert sum(features for _, features in potential.asked) == 4


def test_log_and_dump(eam_fe, fe_vacancy, tmp_path):
    out = tmp_path / "a folder with spaces"
    protocol = dataclasses.replace(SHORT, thermo_every=2, dump_every=4)
    result = run_walker(eam_fe, fe_vacancy, protocol, out=out)
    dumped = read(out / "dump.0.lammpstrj", index=":", format="lammps-dump-text")
    assert len(dumped) == 6
    assert dumped[-1].get_chemical_symbols() == fe_vacancy.get_chemical_symbols()
    np.testing.assert_allclose(dumped[-1].positions, result.last.positions, atol=1e-4)
    lines = [line.split() for line in (out / "log.lammps").read_text().splitlines()]
    table = {int(w[0]): w for w in lines if len(w) == 10 and w[0].isdigit()}
    assert sorted(table) == sorted({*range(0, 21, 2), 5, 15})
    last = result.frames[-1]
    kinetic = 2 * last.get_kinetic_energy() / (3 * last.get_volume())
    bar = (kinetic - last.get_stress()[:3].mean()) / units.bar
    assert float(table[20][2]) == pytest.approx(last.get_potential_energy(), rel=1e-6)
    assert float(table[20][5]) == pytest.approx(bar, rel=1e-4)
    run_walker(eam_fe, fe_vacancy, dataclasses.replace(protocol, compress=True), out=out)
    with gzip.open(out / "dump.0.lammpstrj.gz", "rt") as packed:
        assert packed.read() == (out / "dump.0.lammpstrj").read_text()
    with pytest.raises(InputError, match="folder"):
        run_walker(eam_fe, fe_vacancy, protocol)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("fix nosuch all plumed", "PLUMED package which is not enabled"),
        ("fix x all wall/nosuch", "wall/nosuch"),
        ("group", "Last input line: group"),
    ],
)
def test_what_lammps_does_not_take_is_quoted(eam_fe, fe_vacancy, line, says):
    with pytest.raises(InputError, match="does not take the walker's input") as error:
        run_walker(eam_fe, fe_vacancy, dataclasses.replace(SHORT, lammps_input=f"{TEMPLATE}\n{line}\n"))
    assert says in str(error.value)


def test_a_changed_input_runs(eam_fe, fe_vacancy):
    """Two atoms are held by a line of the user's own."""
    text = TEMPLATE + "group held id 3 7\nvelocity held set 0 0 0\nfix hold held setforce 0 0 0\n"
    result = run_walker(eam_fe, fe_vacancy, dataclasses.replace(SHORT, ensemble="nve", lammps_input=text))
    moved = np.linalg.norm(result.last.positions - fe_vacancy.positions, axis=1)
    assert moved[[2, 6]].max() < 1e-12 and np.delete(moved, [2, 6]).min() > 1e-3
    with pytest.raises(InputError, match="no `fix potential"):
        run_walker(eam_fe, fe_vacancy, dataclasses.replace(SHORT, lammps_input="pair_style zero 2.0"))


def test_an_error_in_the_run_quotes_the_log_and_keeps_the_frames(eam_fe, fe_vacancy, tmp_path):
    text = TEMPLATE + "fix stop all halt 1 v_late > 0 error hard\n"
    text = "variable late equal step>12\n" + text
    result = run_walker(eam_fe, fe_vacancy, dataclasses.replace(SHORT, lammps_input=text), out=tmp_path)
    assert result.reason == "error" and "halt" in result.message and "log.lammps ends with" in result.message
    assert [f.info["step"] for f in result.frames] == [5, 10]
    assert "halt" in (tmp_path / "log.lammps").read_text()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"temperature_end_K": 500.0}, "temperature ramp"),
        ({"ensemble": "npt", "pressure_end_GPa": 1.0}, "pressure ramp"),
        ({"ensemble": "npt", "thermostat": "langevin"}, "Langevin"),
        ({"deform_per_ps": {"zz": 0.1}}, "deform_per_ps"),
        ({"swaps": Swaps(pairs=(("Fe", "Cu"),))}, "swaps"),
        ({"lammps_input": "x"}, "lammps_input"),
    ],
)
def test_what_ase_lacks_is_refused_by_the_name_of_the_engine_that_has_it(eam_fe, fe_vacancy, change, says):
    with pytest.raises(InputError, match=f"{says}.*engine 'lammps' does"):
        run_walker(eam_fe, fe_vacancy, dataclasses.replace(SHORT, **change), engine="ase")


def test_thousands_of_atoms(eam_fe):
    atoms = bulk("Fe", "bcc", a=2.855, cubic=True) * (13, 13, 12)
    result = run_walker(eam_fe, atoms, dataclasses.replace(SHORT, steps=6, sample_every=3))
    assert len(atoms) == 4056 and result.reason == "completed"
    again = eam_fe.evaluate([result.frames[-1]])[0]
    np.testing.assert_allclose(again.forces, result.frames[-1].get_forces(), atol=1e-9)
