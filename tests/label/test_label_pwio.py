from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from label_stubs import pw_output, silicon

from aldriver.core.errors import InputError
from aldriver.core.recipe_label import Espresso
from aldriver.label.pwio import parse_pw_output, pw_input

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "qe_outputs"
real_outputs = pytest.mark.skipif(not REAL.is_dir(), reason="the folder of real pw.x outputs is absent")


def parsed(name):
    file = REAL / name / "aiida.out"
    return parse_pw_output(file.read_text(errors="replace") if file.is_file() else "")


def cases(prefix):
    return sorted(p.name for p in REAL.glob(f"{prefix}*") if p.is_dir()) if REAL.is_dir() else []


def test_values_units_and_signs():
    out = parse_pw_output(pw_output())
    assert out.verdict() == ("ok", "")
    assert (out.version, out.n_atoms, out.n_scf, out.ecutwfc_Ry) == ("6.7MaX", 2, 8, 20.0)
    assert out.energy == pytest.approx(-15.5 * 13.605693, rel=1e-6)
    assert out.forces[0] == pytest.approx(np.array([0.01, -0.02, 0.0]) * 25.71104, rel=1e-5)
    # 117.83 kbar of compression is −11.783 GPa in ASE's sign; Voigt order xx yy zz yz xz xy
    kbar = np.array([117.83, 123.99, 126.10, -47.68, 23.99, -3.97])
    assert out.stress == pytest.approx(-kbar * 0.1 * units.GPa, abs=0.01 * units.GPa)
    assert out.magmoms is None


@pytest.mark.parametrize(
    ("text", "status", "says"),
    [
        ("", "failed", "no output"),
        ("\x00\x01 garbage ! total energy = what Ry", "failed", "no output"),
        (pw_output(done=False), "failed", "before 'JOB DONE'"),
        (pw_output(converged=False), "unconverged", "did not converge in 1 iterations"),
        (pw_output().replace("Forces acting", "Nothing acting"), "failed", "no (complete) forces"),
        (pw_output(n=3), "failed", "no (complete) forces"),
        (pw_output() + pw_output(), "failed", "2 ionic steps"),
        (pw_output().replace("JOB DONE", "Maximum CPU time exceeded\nJOB DONE"), "failed", "time limit"),
    ],
)
def test_what_is_no_label_is_told_apart(text, status, says):
    verdict, reason = parse_pw_output(text).verdict()
    assert verdict == status
    assert says in reason


def test_any_truncation_is_noticed():
    text = pw_output()
    for cut in range(0, text.index("JOB DONE") + len("JOB DON"), 7):
        assert parse_pw_output(text[:cut]).verdict()[0] != "ok"


@pytest.mark.parametrize("word", ["NaN", "**************", "Infinity"])
def test_what_is_not_a_number_is_never_read_as_one(word):
    out = parse_pw_output(pw_output(force=f"{word}   -0.02000000    0.00000000"))
    assert out.verdict()[0] == "ok"  # complete; the gate refuses what is not finite
    assert not np.isfinite(out.forces[0, 0])


def test_numbers_that_touch_are_separated():
    out = parse_pw_output(pw_output(force="-100.00000000-200.00000000-300.00000000"))
    assert out.forces[0] * units.Bohr / units.Ry == pytest.approx([-100, -200, -300])


def test_contributions_after_the_total_forces_are_not_taken_for_them():
    more = "     The non-local contrib.  to forces\n     atom    1 type  1   force =     9.00000000    9.0    9.0\n"
    out = parse_pw_output(pw_output().replace("          total   stress", more + "          total   stress"))
    assert np.abs(out.forces).max() < 1.0


def test_moments_are_read_from_the_right_column_in_both_spellings():
    old = "     atom:    1    charge:    6.4690    magn:    2.9676    constr:    0.0000\n"
    new = "     atom   2 (R=0.292)  charge=  7.9805  magn= -1.5000\n"
    head = "     Magnetic moment per site:\n"
    tail = "     total magnetization       =     4.40 Bohr mag/cell\n"
    out = parse_pw_output(pw_output() + head + old + new + tail)
    assert out.magmoms == pytest.approx([2.9676, -1.5])
    assert out.total_magnetization == 4.40


def test_error_blocks_of_old_and_new_versions():
    line = "%" * 78
    for head in ("Error in routine readpp (1):", "from readpp : error #         1"):
        out = parse_pw_output(f" {line}\n     {head}\n     file X.UPF\n     not found\n {line}\n")
        assert (out.error_routine, out.error) == ("readpp", "file X.UPF not found")
        assert out.verdict() == ("failed", "pw.x stopped in routine readpp: file X.UPF not found")


@real_outputs
@pytest.mark.parametrize("name", cases("failed_"))
def test_real_failed_runs_never_become_labels(name):
    status, reason = parsed(name).verdict()
    assert status != "ok"
    assert reason
    if name.startswith("failed_scf_not_converged"):
        assert status == "unconverged"


@real_outputs
@pytest.mark.parametrize("name", cases("vcrelax_failed") + cases("relax_failed"))
def test_real_failed_relaxations_never_become_labels(name):
    if name == "relax_failed_not_converged_nstep":
        pytest.skip("the one SCF in it is complete; only the relaxation around it is not")
    assert parsed(name).verdict()[0] != "ok"


@real_outputs
@pytest.mark.parametrize("name", cases("default"))
def test_real_finished_runs_are_recognised(name):
    out = parsed(name)
    assert (out.finished, out.converged, out.error) == (True, True, None)
    assert out.version[0] in "67"
    assert np.isfinite(out.energy)
    if out.forces is not None and out.n_steps == 1:
        assert out.verdict() == ("ok", "")
        assert out.forces.shape == (out.n_atoms, 3)
        assert np.abs(out.forces.sum(axis=0)).max() < 0.05


@real_outputs
def test_real_moments_of_two_versions():
    assert parsed("tot_magnetization").magmoms == pytest.approx([0.2056, 0.2056])
    assert parsed("magnetic_moments_v68").magmoms == pytest.approx([0.0, 0.0])


SETTINGS = {"pseudopotentials": {"Fe": "Fe.UPF", "Si": "Si.UPF"}, "ecutwfc_Ry": 30, "kpoints": (2, 3, 4)}


def test_input_keeps_the_order_of_atoms_and_full_precision(tmp_path):
    frame = Atoms("FeSiFeSi", positions=np.arange(12).reshape(4, 3) / 7, cell=np.diag([3, 4, 5]) + 0.1, pbc=True)
    text = pw_input(frame, Espresso(**SETTINGS))
    lines = text[text.index("ATOMIC_POSITIONS") :].splitlines()[1:5]
    assert [line.split()[0] for line in lines] == ["Fe", "Si", "Fe", "Si"]
    got = np.array([[float(x) for x in line.split()[1:]] for line in lines])
    assert np.abs(got - frame.positions).max() < 1e-11
    assert "ntyp = 2" in text
    assert "2 3 4 0 0 0" in text
    assert "nspin" not in text


def test_input_is_understood_by_ase(tmp_path):
    from ase.io import read

    frame = silicon()
    (tmp_path / "espresso.pwi").write_text(pw_input(frame, Espresso(**SETTINGS)))
    back = read(tmp_path / "espresso.pwi", format="espresso-in")
    assert np.allclose(back.positions, frame.positions, atol=1e-9)
    assert np.allclose(back.cell, frame.cell, atol=1e-9)
    assert back.get_chemical_symbols() == frame.get_chemical_symbols()


def test_spin_smearing_and_gamma_in_the_input():
    spin = Espresso(**(SETTINGS | {"spin": True, "starting_magnetization": {"Fe": 0.4}, "ecutrho_Ry": 240}))
    text = pw_input(Atoms("SiFe", cell=np.eye(3) * 4, positions=[[0, 0, 0], [2, 2, 2]], pbc=True), spin)
    assert "nspin = 2" in text
    assert "starting_magnetization(1) = 0.0" in text
    assert "starting_magnetization(2) = 0.4" in text
    assert "ecutrho = 240.0" in text
    assert "smearing = 'gaussian'" in text
    plain = pw_input(silicon(), Espresso(**(SETTINGS | {"smearing": "none", "kpoints": (1, 1, 1)})))
    assert "occupations = 'fixed'" in plain
    assert "K_POINTS gamma" in plain


@pytest.mark.parametrize(
    ("settings", "fraction"),
    [
        ({"starting_magnetization": {"Fe": 0.3}}, 0.3),
        ({"starting_moments_muB": {"Fe": 2.4}}, 0.3),  # of 8 valence electrons
        ({"starting_moments_muB": {"Fe": -2.4}}, -0.3),
        ({"starting_moments_muB": {"Fe": 2.4}, "starting_magnetization": {"Fe": 0.9}}, 0.3),
        ({"starting_magnetization": {"Fe": 1.0}}, 0.999),  # 1 is a moment of 1 µB since 7.3, a full polarisation before
        ({"starting_moments_muB": {"Fe": -9.0}}, -0.999),
    ],
)
def test_a_starting_moment_means_the_same_to_every_version(settings, fraction):
    espresso = Espresso(**SETTINGS, spin=True, **settings)
    text = pw_input(bulk("Fe"), espresso, {"Fe": 8.0})
    assert float(re.search(r"starting_magnetization\(1\) = (\S+)", text).group(1)) == pytest.approx(fraction)


def test_a_moment_needs_a_known_valence():
    with pytest.raises(InputError, match="how many valence"):
        pw_input(bulk("Fe"), Espresso(**SETTINGS, spin=True, starting_moments_muB={"Fe": 2.4}), {})


def test_a_grid_by_spacing_follows_the_cell():
    espresso = Espresso(**{k: v for k, v in SETTINGS.items() if k != "kpoints"}, kspacing_per_A=0.4)
    small = bulk("Si", a=5.43, cubic=True)
    assert "3 3 3 0 0 0" in pw_input(small, espresso)
    assert "2 3 3 0 0 0" in pw_input(small * (2, 1, 1), espresso)
    assert "K_POINTS gamma" in pw_input(small * (3, 3, 3), espresso)
