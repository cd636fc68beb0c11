"""Outputs of pw.x as labels: every ionic step with its own structure, and a reason for what did not end well."""

from __future__ import annotations

import gzip
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units

from aldriver.label.espresso_output import read_espresso

HEAD = """     Program PWSCF v.7.2 starts on 21Nov2026 at  2:51: 2
     number of atoms/cell      =            2
     kinetic-energy cutoff     =      20.0000  Ry
     charge density cutoff     =      80.0000  Ry
     Exchange-correlation= PBE
     celldm(1)=  10.261200  celldm(2)=   0.000000  celldm(3)=   0.000000
     crystal axes: (cart. coord. in units of alat)
               a(1) = (  -0.500000   0.000000   0.500000 )
               a(2) = (   0.000000   0.500000   0.500000 )
               a(3) = (  -0.500000   0.500000   0.000000 )
     PseudoPot. # 1 for Si read from file:
     ./Si.UPF
     MD5 check sum: 0123456789abcdef0123456789abcdef
     site n.     atom                  positions (alat units)
         1           Si  tau(   1) = (   0.0000000   0.0000000   0.0000000  )
         2           Si  tau(   2) = (   0.2500000   0.2500000   0.2600000  )
     number of k points=     3  Gaussian smearing, width (Ry)=  0.0100
"""
MOVED = """
ATOMIC_POSITIONS (angstrom)
Si            {x:.10f}        0.0000000000        0.0000000000
Si            1.3575000000        1.3575000000        1.3700000000

"""
END = "   JOB DONE.\n"


def scf(energy: float, *, force: float = 0.01, converged: bool = True, forces: bool = True) -> str:
    lines = ["", "     Self-consistent Calculation", "     estimated scf accuracy    <       0.00002000 Ry"]
    if not converged:
        return "\n".join([*lines, "     convergence NOT achieved after   5 iterations: stopping", ""])
    lines += [f"!    total energy              =     {energy:.8f} Ry", "",
              "     convergence has been achieved in   8 iterations", ""]  # fmt: skip
    if forces:
        lines += [
            "     Forces acting on atoms (cartesian axes, Ry/au):", "",
            f"     atom    1 type  1   force =     {force:.8f}    0.00000000    0.00000000",
            f"     atom    2 type  1   force =    {-force:.8f}    0.00000000    0.00000000",
        ]  # fmt: skip
    return "\n".join([*lines, ""])


def write(folder: Path, text: str, name: str = "run.out") -> Path:
    (folder / name).write_text(text)
    return folder / name


def relaxation() -> str:
    steps = [scf(-15.5, force=0.03), MOVED.format(x=0.01), scf(-15.6, force=0.02), MOVED.format(x=0.02)]
    return HEAD + "".join([*steps, scf(-15.7, force=0.01)])


def test_each_step_of_a_relaxation_has_its_own_structure_and_numbers(tmp_path):
    path = write(tmp_path, relaxation() + "Begin final coordinates\n" + MOVED.format(x=0.03) + END)
    found = read_espresso(path)
    assert [f.source for f in found] == [f"{path}#step {k}" for k in range(3)]
    assert all(f.label.ok for f in found)
    np.testing.assert_allclose([f.label.energy for f in found], np.array([-15.5, -15.6, -15.7]) * units.Ry)
    np.testing.assert_allclose([f.frame.positions[0, 0] for f in found], [0.0, 0.01, 0.02], atol=1e-9)
    np.testing.assert_allclose(
        [f.label.forces[0, 0] for f in found], np.array([0.03, 0.02, 0.01]) * units.Ry / units.Bohr
    )
    alat = 10.2612 * units.Bohr
    np.testing.assert_allclose(found[0].frame.cell[0], [-alat / 2, 0, alat / 2], atol=1e-9)
    np.testing.assert_allclose(found[0].frame.positions[1], np.array([0.25, 0.25, 0.26]) * alat, atol=1e-6)
    assert found[0].label.stress is None
    assert found[0].settings["pseudopotentials"] == {"Si": "Si.UPF md5:0123456789abcdef0123456789abcdef"}
    assert found[0].settings["cutoff_eV"] == pytest.approx(20 * units.Ry, abs=1e-3)
    assert found[0].settings["spin"] is False


def test_a_run_that_breaks_off_says_so_at_its_last_step(tmp_path):
    found = read_espresso(write(tmp_path, relaxation()))
    assert [f.label.status for f in found] == ["ok", "ok", "failed"]
    assert "truncated" in found[-1].label.reason
    (single,) = read_espresso(write(tmp_path, HEAD + scf(-15.5)))
    assert single.label.status == "failed"


def test_cut_anywhere_it_never_gives_a_number_that_the_whole_file_does_not(tmp_path):
    text = relaxation() + END
    whole = {f.frame.positions[0, 0].round(6): f.label for f in read_espresso(write(tmp_path, text))}
    for cut in range(100, len(text) - len(END), 97):
        for f in read_espresso(write(tmp_path, text[:cut])):
            if f.label.ok:
                same = whole[f.frame.positions[0, 0].round(6)]
                assert f.label.energy == same.energy
                np.testing.assert_array_equal(f.label.forces, same.forces)
        assert not read_espresso(write(tmp_path, text[:cut]))[-1].label.ok


def test_only_the_step_that_did_not_converge_is_refused(tmp_path):
    text = HEAD + scf(-15.5) + MOVED.format(x=0.01) + scf(0.0, converged=False) + END
    found = read_espresso(write(tmp_path, text))
    assert [f.label.status for f in found] == ["ok", "unconverged"]


def test_an_scf_without_forces_is_no_label(tmp_path):
    (found,) = read_espresso(write(tmp_path, HEAD + scf(-15.5, forces=False) + END))
    assert found.label.status == "failed"
    assert "forces" in found.label.reason


def test_restarts_in_one_file_are_runs_of_their_own(tmp_path):
    path = write(tmp_path, HEAD + "     Self-consistent Calculation\n" + HEAD + scf(-15.5) + END)
    first, second = read_espresso(path)
    assert (first.source, second.source) == (f"{path}#run 0", f"{path}#run 1")
    assert first.label.status == "failed"
    assert second.label.ok


def test_a_new_cell_goes_with_its_step(tmp_path):
    cell = "CELL_PARAMETERS (angstrom)\n 0.0 2.8 2.8\n 2.8 0.0 2.8\n 2.8 2.8 0.0\n"
    moved = cell + "ATOMIC_POSITIONS (crystal)\nSi 0.0 0.0 0.0\nSi 0.25 0.25 0.25\n\n"
    found = read_espresso(write(tmp_path, HEAD + scf(-15.5) + moved + scf(-15.6) + END))
    np.testing.assert_allclose(found[1].frame.cell[0], [0, 2.8, 2.8])
    np.testing.assert_allclose(found[1].frame.positions[1], [1.4, 1.4, 1.4])


def test_an_input_beside_gives_the_digits_that_the_output_lacks(tmp_path):
    alat = 10.2612 * units.Bohr
    exact = np.array([0.25, 0.25, 0.26]) * alat + 3e-7
    cell = "\n".join(" ".join(f"{x * alat:.10f}" for x in r) for r in ([-0.5, 0, 0.5], [0, 0.5, 0.5], [-0.5, 0.5, 0]))
    write(
        tmp_path,
        "&CONTROL\n/\n&SYSTEM\n ibrav=0, nat=2, ntyp=1, ecutwfc=20\n/\n&ELECTRONS\n/\nATOMIC_SPECIES\nSi 28.1 Si.UPF\n"
        f"CELL_PARAMETERS angstrom\n{cell}\nATOMIC_POSITIONS angstrom\nSi 0 0 0\nSi {' '.join(map(str, exact))}\n"
        "K_POINTS automatic\n2 2 3 0 0 0\n",
        "run.in",
    )
    (found,) = read_espresso(write(tmp_path, HEAD + scf(-15.5) + END))
    np.testing.assert_allclose(found.frame.positions[1], exact, atol=1e-9)
    assert found.settings["kpoints"] == [2, 2, 3]


def test_labels_of_species_are_read_as_elements(tmp_path):
    text = (
        (HEAD + scf(-15.5) + END)
        .replace(" Si  tau(   2)", " Si2 tau(   2)")
        .replace(" Si  tau(   1)", " si_up tau(   1)")
    )
    (found,) = read_espresso(write(tmp_path, text))
    assert found.frame.get_chemical_symbols() == ["Si", "Si"]


def test_packed_files_and_rubbish(tmp_path):
    with gzip.open(tmp_path / "odd-name", "wt") as handle:
        handle.write(HEAD + scf(-15.5) + END)
    assert read_espresso(tmp_path / "odd-name")[0].label.ok
    (found,) = read_espresso(write(tmp_path, "\x00\x01 nothing"))
    assert found.label.status == "failed"
    assert found.frame == Atoms()


def test_real_outputs_step_by_step(shared_data):
    found = read_espresso(shared_data / "qe_outputs" / "vcrelax_failed_electronic_final_scf" / "aiida.out")
    assert [f.label.status for f in found] == ["ok"] * 4 + ["unconverged"]
    volumes = [f.frame.get_volume() for f in found]
    energies = [f.label.energy for f in found[:4]]
    assert len({round(v, 4) for v in volumes[:4]}) == 4  # each step has its own cell
    assert energies == sorted(energies, reverse=True)  # a relaxation goes downhill


def test_real_stress_is_the_slope_of_the_energy(shared_data):
    """ΔE = V σ:ε between neighbouring steps of a real cell relaxation (trapezoidal rule): cell, stress and its sign."""
    found = read_espresso(shared_data / "qe_outputs" / "vcrelax_failed_electronic_final_scf" / "aiida.out")[:4]
    for a, b in pairwise(found):
        strain = np.linalg.solve(np.asarray(a.frame.cell), np.asarray(b.frame.cell)) - np.eye(3)
        np.testing.assert_allclose(strain, strain.T, atol=1e-6)
        x, y, z = np.diag(strain)
        voigt = np.array([x, y, z, 2 * strain[1, 2], 2 * strain[0, 2], 2 * strain[0, 1]])
        volume = 0.5 * (a.frame.get_volume() + b.frame.get_volume())
        work = volume * float(0.5 * (a.label.stress + b.label.stress) @ voigt)
        assert b.label.energy - a.label.energy == pytest.approx(work, rel=0.05)
