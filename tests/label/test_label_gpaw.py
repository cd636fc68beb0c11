"""GPAW: its parameters, and its logs in the older and the present form. Real calculations: ``test_label_gpaw_dft``."""

from __future__ import annotations

import gzip
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aldriver.core import recipe
from aldriver.core.frames import read_frames
from aldriver.label import LabelLimits, make_labeler
from aldriver.label.ase import job_of
from aldriver.label.gpaw_output import read_gpaw, scf_steps
from aldriver.label.ingest import ingest

NOW_HEAD = r"""
  __  _  _
 | _ |_)|_||  |
 |__||  | ||/\| - 26.7.0

Input parameters:
  mode=PW(ecut=300),
  occupations=Occupations(name='fermi-dirac', width=0.1),
  xc=XC(name='PBE')

Diagonalizing LCAO Hamiltonian
"""
NOW_STEP = """
Atoms  # Å, Bohr magnetons
|   | symbol |        x |        y |        z |    initial magnetic moments |
|---|--------|----------|----------|----------|-----------------------------|
| 0 |     Fe | 0.000000 | 0.000000 | 0.000000 | ( 0.0000,  0.0000,  2.3000) |
| 1 |     Al | 1.430000 | 1.430000 | {z} | ( 0.0000,  0.0000,  0.0000) |


Unit cell  # Å
| periodic |        x |        y |        z |  lengths |    angles |
|----------|----------|----------|----------|----------|-----------|
|      yes | 2.860000 | 0.000000 | 0.000000 | 2.860000 | 90.000000 |
|      yes | 0.000000 | 2.860000 | 0.000000 | 2.860000 | 90.000000 |
|      yes | 0.000000 | 0.000000 | 2.860000 | 2.860000 | 90.000000 |

  Monkhorst-Pack size: [2, 3, 4]
Cutoff: 300.0 eV
Spin-components: 2 (collinear spins)
species:
  Fe:
    name:    Iron
    id:      37abbd8d6c3c35915a9b583b742da910
  Al:
    name:    Aluminium
    id:      0292cae29f5d6237e50f6abdd43a7bdd
occupation numbers:
  Fermi-Dirac:
    width: 0.1000  # eV
maximum number of iterations: 3

SCF iterations
|iter     |     time |      energy | eigst |  dens |  magmom |
|---------|----------|-------------|-------|-------|---------|
|iter:   1| 13:38:27 |   -8.709062 | +0.33 |       |  +2.3041|
|iter:   2| 13:38:28 |   -8.704502 | -1.90 | -0.94 |  +2.3132|
|iter:   3| 13:38:30 |   -8.811468c| -9.77c| -6.96c|  +2.5178|
"""
NOW_RESULT = """
Converged in 3 steps
  Entropy:          -0.059095
  ----------------------------
  Free energy:      {free}
  Extrapolated:     {energy}

Total magnetic moment: (0.000000, 0.000000, 2.137132)

Local magnetic moments
|        x |        y |        z |
|----------|----------|----------|
| 0.000000 | 0.000000 | 2.192176 |  # Fe   0
| 0.000000 | 0.000000 | -0.05500 |  # Al   1

Forces  # eV/Ang
|        x |        y |        z |
|----------|----------|----------|
| -2.96568 | -0.97919 | -0.94244 |  # Fe   0
|  2.96568 |  0.97919 |  0.94244 |  # Al   1

Stress tensor  # eV/Ang^3
|         x |         y |         z |
|-----------|-----------|-----------|
| -0.010000 | -0.060000 | -0.050000 |
| -0.060000 | -0.020000 | -0.040000 |
| -0.050000 | -0.040000 | -0.030000 |
"""
THEN = """
  ___ ___ ___ _ _ _
 |   |   |_  | | | |
 | | | | | . | | | |
 |__ |  _|___|_____|  22.8.0
 |___|_|

Input parameters:
  mode: {ecut: 400.0, name: pw}
  xc: PBE

Al-setup:
  name: Aluminium
  id: 0292cae29f5d6237e50f6abdd43a7bdd

Spin-paired calculation
Occupation numbers:
  Fermi-Dirac: width=0.2000 eV
Maximum number of (scf) [iter]ations: 333
1 k-point (Gamma)
Plane wave cutoff energy: 400.000 eV

Positions:
   0 Al     0.000000    0.000000    0.000000    ( 0.0000,  0.0000,  0.0000)
   1 Al     2.025000    2.025000    0.100000    ( 0.0000,  0.0000,  0.0000)

Unit cell:
           periodic     x           y           z      points  spacing
  1. axis:    yes    4.050000    0.000000    0.000000    24     0.1687
  2. axis:    yes    0.000000    4.050000    0.000000    24     0.1687
  3. axis:    yes    0.000000    0.000000    4.050000    24     0.1687

iter:   1  10:00:00              -7.5
iter:   2  10:00:01  -4.1  -5.2  -7.6

Converged after 2 iterations.

Free energy:       -7.650000
Extrapolated:      -7.600000

Forces in eV/Ang:
  0 Al    0.00000    0.00000    0.51000
  1 Al    0.00000    0.00000   -0.51000

Positions:
   0 Al     0.000000    0.000000    0.020000    ( 0.0000,  0.0000,  0.0000)
   1 Al     2.025000    2.025000    0.080000    ( 0.0000,  0.0000,  0.0000)

iter:   1  10:01:00  -4.0  -5.0  -7.61
"""


END = "\ntiming:  # [seconds]\n  Total:  3.4\n"


def write(tmp_path, text, name="gpaw.txt"):
    path = tmp_path / name
    path.write_text(text)
    return path


def now(z="1.430000", energy="-17.100000", free="-17.200000"):
    return NOW_STEP.format(z=z) + NOW_RESULT.format(energy=energy, free=free)


def test_a_log_of_today(tmp_path):
    (found,) = read_gpaw(write(tmp_path, NOW_HEAD + now() + END))
    label = found.label
    assert label.ok, label.reason
    assert found.frame == Atoms("FeAl", [[0, 0, 0], [1.43, 1.43, 1.43]], cell=np.eye(3) * 2.86, pbc=True)
    assert (label.energy, label.free_energy) == (-17.1, -17.2)
    np.testing.assert_allclose(label.forces, [[-2.96568, -0.97919, -0.94244], [2.96568, 0.97919, 0.94244]])
    np.testing.assert_allclose(label.stress, [-0.01, -0.02, -0.03, -0.04, -0.05, -0.06])  # xx yy zz yz xz xy
    np.testing.assert_allclose(label.magmoms, [2.192176, -0.055])
    assert label.provenance["magnetisation"] == 2.137132
    s = found.settings
    assert (s["code"], s["version"], s["functional"], s["cutoff_eV"]) == ("GPAW", "26.7.0", "PBE", 300.0)
    assert (s["smearing"], s["width_eV"], s["kpoints"], s["spin"]) == ("fermi-dirac", 0.1, [2, 3, 4], True)
    assert s["pseudopotentials"]["Fe"] == "37abbd8d6c3c35915a9b583b742da910"
    assert found.source.endswith("gpaw.txt")


def test_every_step_of_a_relaxation_is_a_label(tmp_path):
    found = read_gpaw(write(tmp_path, NOW_HEAD + now() + now("1.500000", "-17.150000") + END))
    assert [f.label.energy for f in found] == [-17.1, -17.15]
    assert [f.frame.positions[1, 2] for f in found] == [1.43, 1.5]
    assert [f.source.rpartition("#")[2] for f in found] == ["step 0", "step 1"]


def test_an_older_log_whose_second_step_breaks_off(tmp_path):
    first, second = read_gpaw(write(tmp_path, THEN))
    assert first.label.ok
    assert (first.label.energy, first.label.free_energy) == (-7.6, -7.65)
    np.testing.assert_allclose(first.label.forces[:, 2], [0.51, -0.51])
    assert first.label.stress is None
    assert first.label.magmoms is None
    assert (first.settings["version"], first.settings["cutoff_eV"], first.settings["spin"]) == ("22.8.0", 400.0, False)
    assert first.settings["pseudopotentials"] == {"Al": "0292cae29f5d6237e50f6abdd43a7bdd"}
    assert second.label.status == "failed"
    assert "before the SCF converged" in second.label.reason
    np.testing.assert_allclose(np.asarray(second.frame.cell), np.eye(3) * 4.05)


def test_the_limit_of_the_scf_is_unconverged(tmp_path):
    (found,) = read_gpaw(write(tmp_path, NOW_HEAD + NOW_STEP.format(z="1.430000")))
    assert found.label.status == "unconverged"
    assert "3 iterations" in found.label.reason


@pytest.mark.parametrize("part", ["Forces  #", "  # Al   1", "Extrapolated", "Converged"])
def test_a_log_cut_off_anywhere_is_no_label(tmp_path, part):
    text = NOW_HEAD + now() + END
    (found,) = read_gpaw(write(tmp_path, text[: text.index(part)]))
    assert not found.label.ok
    assert found.label.energy is None


def test_a_whole_step_needs_no_table_of_timings(tmp_path):
    """GPAW writes it when its calculator is let go: in a script that ended well it may be missing."""
    (found,) = read_gpaw(write(tmp_path, NOW_HEAD + now()))
    assert found.label.ok
    older = THEN[: THEN.index("Positions:", THEN.index("Forces"))]
    cut = older[: older.rindex("-0.51") + 4]  # the last force breaks off in its digits
    assert [f.label.ok for f in read_gpaw(write(tmp_path, cut, "cut.txt"))] == [False]


def test_what_a_calculator_is_and_where_it_was_set_up_twice(tmp_path):
    """Atomic orbitals and plane waves are two levels; atoms named once more before the SCF began are no second step."""
    orbitals = NOW_HEAD.replace("mode=PW(ecut=300),", "mode=LCAO(),\n  basis={'default': 'dzp'},")
    assert orbitals != NOW_HEAD
    text = orbitals + NOW_STEP.format(z="1.430000").partition("iter:")[0].rpartition("\n")[0] + now() + END
    (found,) = read_gpaw(write(tmp_path, text))
    assert found.label.ok
    assert found.settings["mode"].startswith("lcao {'default': 'dzp'}")
    assert read_gpaw(write(tmp_path, NOW_HEAD + now() + END))[0].settings["mode"] == "pw"


def test_a_log_that_names_no_atoms_and_a_file_of_something_else(tmp_path):
    (found,) = read_gpaw(write(tmp_path, NOW_HEAD))
    assert found.label.status == "failed"
    assert read_gpaw(write(tmp_path, "Program PWSCF v.6.7\n", "other.txt")) == []


def test_a_compressed_log(tmp_path):
    path = tmp_path / "gpaw.txt.gz"
    path.write_bytes(gzip.compress((NOW_HEAD + now() + END).encode()))
    assert read_gpaw(path)[0].label.ok
    assert scf_steps(NOW_STEP) == 3


def test_logs_of_both_forms_are_taken_in(tmp_path):
    runs = tmp_path / "runs"
    runs.mkdir()
    log = write(runs, NOW_HEAD + now() + END, "now.txt")
    write(runs, THEN, "then.txt")  # its second step broke off
    options = {"limits": LabelLimits(max_net_force_eV_A=100.0), "interrupted": True}
    result = ingest([runs], tmp_path / "labels", **options)
    assert [(row.fate, row.status) for row in result.rows] == [
        ("accepted", "ok"), ("accepted", "ok"), ("refused", "failed")
    ]  # fmt: skip
    assert all(row.level.startswith("GPAW: PBE") for row in result.rows)
    found = [a for path in result.datasets.values() for a in read_frames(path, labelled=True)]
    assert read_gpaw(log)[0].label.energy in [a.get_potential_energy() for a in found]


def labeler(elements=("Si",), **changes):
    block = {"ecut_eV": 300, "kpoints": (2, 2, 2)} | changes
    return make_labeler(recipe.Label(engine="gpaw", gpaw=block), elements)


def test_parameters_are_those_of_the_recipe():
    gpaw, spec = labeler(kpoints=None, kspacing_per_A=0.3, smearing="none", setups={"Si": ":d,2.0"})
    given = gpaw.arguments(bulk("Si", cubic=True))
    assert given["kpts"] == {"size": [4, 4, 4], "gamma": True}
    assert given["mode"] == {"name": "pw", "ecut": 300}
    assert given["occupations"]["width"] == 0.0
    assert given["setups"] == {"Si": ":d,2.0"}
    assert given["symmetry"] == {"point_group": False}
    assert spec.method == "PBE, PAW, Si :d,2.0, plane waves 300 eV, k-spacing 0.3 1/Å"


def test_moments_are_given_only_with_spin():
    iron = bulk("Fe")  # with a moment of 2.3
    plain, _ = labeler(["Fe"], starting_moments_muB={"Fe": 2.5})
    spin, spec = labeler(["Fe"], starting_moments_muB={"Fe": 2.5}, spin=True)
    assert job_of(iron, "gpaw:GPAW", {}, plain.moments())["magmoms"] is None
    assert job_of(iron, "gpaw:GPAW", {}, spin.moments())["magmoms"] == [2.5]
    assert "without spin" in plain.warnings()[0]
    assert spin.warnings() == []
    assert spec.method.endswith("spin-polarised")


def test_effort_and_command_do_not_change_what_a_label_is():
    _, one = labeler(max_scf_steps=10)
    _, two = labeler(max_scf_steps=200, command="mpirun -np 4 gpaw python")
    _, other = labeler(ecut_eV=301)
    assert one.digest() == two.digest() != other.digest()
    assert (one.effort, two.effort) == ({"max_scf_steps": 10}, {"max_scf_steps": 200})


def test_a_cell_that_the_frozen_grid_samples_too_thinly_gets_no_label(tmp_path):
    gpaw, _ = labeler(kspacing_per_A=0.3)
    label = gpaw.label(bulk("Si"), tmp_path)
    assert label.status == "failed"
    assert "2x2x2 samples this cell too thinly" in label.reason


def test_a_python_without_gpaw_is_a_sentence(tmp_path):
    gpaw, _ = labeler(command="/no/such/python")
    assert "label.gpaw.command" in gpaw.preflight()[0]
    assert gpaw.code_id.startswith("gpaw:absent")


def test_the_configured_python_is_started_unless_the_recipe_names_one(tmp_path, monkeypatch):
    monkeypatch.setattr("aldriver.label.gpaw.find_spec", lambda _: None)
    monkeypatch.setenv("ALDRIVER_CONFIG", str(tmp_path / "aldriver.toml"))
    python = tmp_path / "a folder" / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    (tmp_path / "aldriver.toml").write_text(f'[backends.gpaw]\npython = "{python}"\n')
    assert labeler()[0].command == [str(python)]
    assert labeler(command="/opt/gpaw/bin/python -E")[0].command == ["/opt/gpaw/bin/python", "-E"]
    assert labeler()[1].digest() == labeler(command="/opt/gpaw/bin/python")[1].digest()
