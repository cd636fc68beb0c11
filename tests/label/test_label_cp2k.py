"""CP2K: its input, its logs before and since 2024, and what becomes of every way a run can end."""

from __future__ import annotations

import re

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from label_stubs import script

from aldriver.core import recipe
from aldriver.core.recipe_engines import Cp2k
from aldriver.label import label_frame, make_labeler
from aldriver.label.cp2k_files import cp2k_input, parse_cp2k

BLOCK = {
    "basis": {"Si": "SZV-MOLOPT-SR-GTH", "O": "SZV-MOLOPT-SR-GTH"},
    "potential": {"Si": "GTH-PBE-q4", "O": "GTH-PBE-q6"},
    "cutoff_Ry": 120,
}
FORCES = """
 ATOMIC FORCES in [a.u.]

 # Atom   Kind   Element          X                  Y                  Z
      1      1      Si          0.010000000000   -0.020000000000    0.030000000000
      2      1      Si         -0.010000000000    0.020000000000   -0.030000000000
 SUM OF ATOMIC FORCES           0.000000000000    0.000000000000    0.000000000000     0.000000000000
"""
FORCES_2024 = """
 FORCES| Atomic forces [hartree/bohr]
 FORCES|   Atom     x                      y                      z                     |f|
 FORCES|      1  1.000000000000E-02 -2.000000000000E-02  3.000000000000E-02  3.741657386774E-02
 FORCES|      2 -1.000000000000E-02  2.000000000000E-02 -3.000000000000E-02  3.741657386774E-02
 FORCES| Sum     0.000000000000E+00  0.000000000000E+00  0.000000000000E+00  0.000000000000E+00
"""
STRESS = """
 STRESS| Analytical stress tensor [{unit}]
 STRESS|                        x                   y                   z
 STRESS|      x        {xx}   6.00000000000E+00   5.00000000000E+00
 STRESS|      y        6.00000000000E+00   2.00000000000E+00   4.00000000000E+00
 STRESS|      z        5.00000000000E+00   4.00000000000E+00   3.00000000000E+00
 STRESS| 1/3 Trace                                             2.00000000000E+00

 STRESS| Eigenvectors and eigenvalues of the analytical stress tensor [{unit}]
 STRESS|      x           0.100000000000      0.200000000000      0.300000000000
"""


def log(*, converged=True, forces=FORCES, stress=True, done=True, abort=False):
    lines = ["  **** **** ******  **  PROGRAM STARTED AT               2026-11-21 13:40:27.874"]
    if abort:
        lines += [
            " *******************************************************************************",
            " *   ___                                                                       *",
            " *  /   \\                                                                      *",
            " * [ABORT]                                                                     *",
            " *  \\___/         Use the LSD option for an odd number of electrons            *",
            " *    |                                                                        *",
            " * / \\                                                    qs_environment.F:1041 *",
            " *******************************************************************************",
        ]
        return "\n".join([*lines, " CP2K version 2023.1, the CP2K developers group (2023)."])
    lines.append("  *** SCF run converged in    10 steps ***" if converged else (
        "  Leaving inner SCF loop after reaching    12 steps.\n  *** WARNING in qs_scf.F:601 :: SCF run NOT converged ***"))  # fmt: skip
    lines += [
        "  Electronic entropic energy:                                  -0.00100000000000",
        " ENERGY| Total FORCE_EVAL ( QS ) energy [a.u.]:               -7.500000000000000",
        forces,
        STRESS.format(unit="GPa", xx="1.00000000000E+00") if stress else "",
        " CP2K version 2023.1, the CP2K developers group (2023).",
    ]
    if done:
        lines.append("  **** **** ******  **  PROGRAM ENDED AT                 2026-11-21 13:40:57.000")
    return "\n".join(lines)


@pytest.mark.parametrize("forces", [FORCES, FORCES_2024])
def test_a_good_log(forces):
    out = parse_cp2k(log(forces=forces))
    assert out.verdict(2) == ("ok", "")
    assert (out.version, out.n_scf) == ("2023.1", 10)
    assert out.energy == pytest.approx(-7.5 * units.Hartree)
    assert out.entropy == pytest.approx(-0.001 * units.Hartree)
    np.testing.assert_allclose(out.forces[0], np.array([0.01, -0.02, 0.03]) * units.Hartree / units.Bohr)


def test_compression_is_positive_in_cp2k_and_negative_in_ase():
    stress = parse_cp2k(log()).stress
    np.testing.assert_allclose(stress / units.GPa, [-1, -2, -3, -4, -5, -6])  # xx yy zz yz xz xy
    in_bar = parse_cp2k(log(stress=False) + STRESS.format(unit="bar", xx="1.00000000000E+00")).stress
    np.testing.assert_allclose(in_bar, stress * 1e-4)


def test_cp2k_carries_on_after_an_scf_that_did_not_converge():
    status, reason = parse_cp2k(log(converged=False)).verdict(2)
    assert (status, reason) == ("unconverged", "the SCF did not converge in 12 steps")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no output"),
        (log(done=False), "interrupted"),
        (log(forces=""), "forces"),
        (log(forces=FORCES.replace("      2      1      Si", "#")), "forces"),
        (log(abort=True), "Use the LSD option for an odd number of electrons"),
    ],
)
def test_what_is_not_whole_is_no_label(text, words):
    status, reason = parse_cp2k(text).verdict(2)
    assert status == "failed"
    assert words in reason


def test_stars_become_nan():
    assert np.isnan(parse_cp2k(log(forces=FORCES.replace("0.030000000000\n", "**************\n", 1))).forces).any()


def sections(text):
    """Names of opened sections; fails unless each is closed by its own name."""
    names, stack = [], []
    for line in text.splitlines():
        word = line.split()[0]
        if word == "&END":
            assert stack.pop() == line.split()[1]
        elif word.startswith("&"):
            names.append(word[1:])
            stack.append(word[1:])
    assert not stack
    return names


def test_the_input_states_cell_positions_and_kinds():
    frame = bulk("Si", cubic=True)
    frame.rattle(0.1, seed=1)
    text = cp2k_input(frame, Cp2k(**BLOCK))
    assert {"GLOBAL", "CELL", "COORD", "KIND", "OT", "XC", "FORCES", "STRESS_TENSOR"} <= set(sections(text))
    rows = re.search(r"&COORD\n(.*?)&END", text, re.DOTALL).group(1).split("\n")[:-1]
    assert len(rows) == len(frame)
    np.testing.assert_allclose([float(x) for x in rows[3].split()[1:]], frame.positions[3], atol=1e-11)
    assert "POTENTIAL GTH-PBE-q4" in text


def test_metals_are_smeared_and_diagonalised_and_grids_hold_gamma():
    names = sections(cp2k_input(bulk("Si"), Cp2k(**BLOCK, temperature_K=1000, kpoints=(2, 3, 1))))
    assert {"SMEAR", "DIAGONALIZATION", "KPOINTS"} <= set(names)
    assert "OT" not in names
    text = cp2k_input(bulk("Si"), Cp2k(**BLOCK, kpoints=(2, 3, 4)))
    shift = [float(x) for x in re.search(r"MACDONALD 2 3 4 (.*)", text).group(1).split()]
    for n, s in zip((2, 3, 4), shift, strict=True):
        points = [(2 * i - n - 1) / (2 * n) + s for i in range(1, n + 1)]
        assert min(abs(p) for p in points) < 1e-9
    assert "VDW_POTENTIAL" in sections(cp2k_input(bulk("Si"), Cp2k(**BLOCK, dispersion=True)))


@pytest.fixture
def fake(tmp_path):
    def make(body, text="", *, retries=0, **changes):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / "BASIS_MOLOPT").write_text("Si  SZV-MOLOPT-SR-GTH SZV-MOLOPT-SR-GTH-q4\n 1\n")
        (tmp_path / "data" / "GTH_POTENTIALS").write_text("Si GTH-PBE-q4 GTH-PBE\n    2    2\n")
        (tmp_path / "answer").write_text(text)
        binary = script(tmp_path / "cp2k.psmp", f"OUT={tmp_path}/answer\nHERE={tmp_path}\n{body}")
        block = BLOCK | {"command": str(binary), "data_dir": tmp_path / "data"} | changes
        return make_labeler(recipe.Label(engine="cp2k", cp2k=block, timeout_s=20, retries=retries), ["Si"])

    return make


def test_a_label(fake, tmp_path):
    labeler, spec = fake("test -f $CP2K_DATA_DIR/BASIS_MOLOPT && cat $OUT; touch label-RESTART.wfn", log())
    assert labeler.preflight() == []
    label = label_frame(bulk("Si"), labeler, spec, tmp_path / "labels")
    assert label.ok, label.reason
    assert label.energy == label.free_energy == pytest.approx(-7.5 * units.Hartree)
    assert label.provenance["scf_steps"] == 10
    assert label.provenance["stand_in"] is False
    assert not list((tmp_path / "labels" / label.key).glob("*RESTART*"))
    assert spec.method == "PBE, SZV-MOLOPT-SR-GTH, 120 Ry, k-grid 1x1x1"


@pytest.mark.parametrize(
    ("body", "text", "status", "words"),
    [
        ("cat $OUT", log(converged=False), "unconverged", "max_scf_steps 100"),
        ("cat $OUT; exit 1", log(abort=True), "failed", "odd number of electrons"),
        ("cat $OUT", log(done=False), "failed", "interrupted"),
        ("kill -SEGV $$", "", "failed", "SIGSEGV"),
    ],
)
def test_every_other_end_is_a_reason(fake, tmp_path, body, text, status, words):
    labeler, spec = fake(body, text)
    label = label_frame(bulk("Si"), labeler, spec, tmp_path / "labels")
    assert label.status == status
    assert words in label.reason
    assert label.energy is None


def test_only_what_may_pass_is_tried_again(fake, tmp_path):
    for k, (body, text, runs) in enumerate([("exit 3", "", 3), ("cat $OUT", log(converged=False), 1)]):
        labeler, spec = fake(f"echo x >> $HERE/runs{k}\n{body}", text, retries=2)
        assert not label_frame(bulk("Si"), labeler, spec, tmp_path / f"labels{k}").ok
        assert (tmp_path / f"runs{k}").read_text().count("x") == runs


def test_preflight_names_what_is_missing(fake):
    labeler, _ = fake("", basis={"Si": "TZV2P"}, potential={})
    problems = " ".join(labeler.preflight())
    assert "holds no 'TZV2P' for Si" in problems
    assert "no potential for Si" in problems
    away, _ = fake("", command="/no/such/cp2k.psmp", data_dir="/no/such/folder")
    assert len(away.preflight()) == 3


def test_the_data_files_decide_the_numbers_and_where_they_lie_does_not(fake, tmp_path):
    _, one = fake("")
    moved = tmp_path / "elsewhere"
    (tmp_path / "data").rename(moved)
    _, two = fake("", data_dir=moved)
    assert one.digest() == two.digest()
    (moved / "BASIS_MOLOPT").write_text("Si  SZV-MOLOPT-SR-GTH\n 2\n")
    _, three = fake("", data_dir=moved)
    assert three.digest() != one.digest()
