"""Runs that look like labels and are none, and odd ones that are: in the form the codes write them, by their physics."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from label_stubs import GEOMETRY, pw_output

from aldriver.label.extxyz_output import read_extxyz
from aldriver.label.finding import find_outputs
from aldriver.label.ingest import ingest
from aldriver.label.vasp_output import read_vasp
from aldriver.testing.vasp_standin_files import Result, outcar, vasprun

FE2 = Atoms("Fe2", positions=[[0, 0, 0], [1.4, 1.43, 1.45]], cell=np.eye(3) * 2.86, pbc=True)
BASE = Result(
    atoms=FE2, incar={"ENCUT": 400.0, "ISPIN": 2, "NELM": 20}, grid=(4, 4, 4), potcars=["PAW_PBE Fe 06Sep2000"],
    free_energy=-16.7, entropy=0.002, forces=np.array([[0.1, 0.2, -0.3], [-0.1, -0.2, 0.3]]),
    stress=np.array([0.01, 0.02, 0.03, 0.0, 0.001, 0.002]), moments=np.array([2.2, 2.3]), n_scf=9, converged=True,
    version="6.4.2", calculator="none",
)  # fmt: skip


def xml(result: Result = BASE, **tags) -> str:
    """A vasprun.xml of VASP itself, with further tags."""
    return vasprun(replace(result, incar=result.incar | tags)).replace("aldriver-stand-in", "vasp")


def out(result: Result = BASE, *, also: str = "", **tags) -> str:
    """An OUTCAR of VASP itself, with further lines among its parameters."""
    text = outcar(replace(result, incar=result.incar | tags)).replace("vasp.aldriver-stand-in-", "vasp.")
    return text.replace("   ISMEAR =", f"{also}   ISMEAR =", 1)


def labels(tmp_path: Path, **files: str):
    for name, text in files.items():
        (tmp_path / {"xml": "vasprun.xml", "out": "OUTCAR"}[name]).write_text(text)
    return [f.label for f in read_vasp(tmp_path)]


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"ICHARG": 11}, "not self-consistent"),
        ({"ALGO": "None"}, "not a self-consistent ground state"),
        ({"ALGO": "G0W0"}, "not a self-consistent ground state"),
        ({"ALGO": "Eigenval"}, "not a self-consistent ground state"),
        ({"ML_LMLFF": True, "ML_MODE": "run"}, "machine-learned force field"),
        ({"PSTRESS": 50.0}, "p·V"),
    ],
)
def test_runs_of_vasp_that_are_no_ground_state(tmp_path, tags, words):
    (label,) = labels(tmp_path, xml=xml(**tags))
    assert label.status == "rejected"
    assert words in label.reason


@pytest.mark.parametrize("algo", ["Normal", "N", "Fast", "VeryFast", "All", "Damped", "Conjugate", "Exact"])
def test_every_way_to_the_ground_state_is_one(tmp_path, algo):
    assert labels(tmp_path, xml=xml(ALGO=algo))[0].ok


def test_a_band_structure_by_its_outcar_alone(tmp_path):
    (label,) = labels(tmp_path, out=out(also="   ICHARG =     11    charge: 1-file 2-atom 10-const\n"))
    assert "ICHARG 11" in label.reason
    (label,) = labels(tmp_path, out=out(also="   IALGO  =      2    algorithm\n"))
    assert label.status == "rejected"


def test_steps_of_a_force_field_are_left_out_of_an_outcar(tmp_path):
    """An MD run with on-the-fly learning: the prediction before and after the step of DFT has other forces."""
    predicted = (
        "  ML FORCE on cell =-STRESS in cart. coord. units (eV/cell)\n"
        "  in kB      99.00000    99.00000    99.00000     9.00000     9.00000     9.00000\n"
        "  POSITION                                       TOTAL-FORCE (eV/Angst) (ML)\n " + "-" * 83 + "\n"
        "      0.00000      0.00000      0.00000         7.000000      0.000000      0.000000\n"
        "      1.40000      1.43000      1.45000        -7.000000      0.000000      0.000000\n"
        "  free  energy ML TOTEN  =       -99.00000000 eV\n\n"
    )
    ml = "   ML_LMLFF = .TRUE.\n"
    text = out(also=ml).replace("-" * 38 + " Iteration", predicted + "-" * 38 + " Iteration", 1)
    text = text.replace(" General timing", predicted + " General timing", 1)
    (label,) = labels(tmp_path, out=text)
    assert label.ok, label.reason
    assert label.free_energy == pytest.approx(BASE.free_energy)
    np.testing.assert_allclose(label.forces, BASE.forces, atol=1e-6)
    np.testing.assert_allclose(label.stress, BASE.stress, atol=1e-6)
    # the OUTCAR vouches for what vasprun.xml leaves open
    assert labels(tmp_path, xml=xml(ML_LMLFF=True))[0].ok
    # a run of the force field alone has no step of DFT
    start = text.index("-" * 38 + " Iteration")
    (tmp_path / "vasprun.xml").unlink()
    (label,) = labels(tmp_path, out=text[:start] + predicted + text[text.index(" General timing") :])
    assert label.status == "failed" and "machine-learned" in label.reason


def test_the_outcar_knows_of_a_loop_that_converged_in_the_last_step(tmp_path):
    last = replace(BASE, n_scf=20)
    assert labels(tmp_path, xml=xml(last))[0].status == "unconverged"
    assert labels(tmp_path, xml=xml(last), out=out(last))[0].ok
    lost = replace(last, converged=False)
    assert labels(tmp_path, xml=xml(lost), out=out(lost))[0].status == "unconverged"


@pytest.mark.parametrize(("isif", "there"), [(0, False), (1, False), (2, True), (3, True)])
def test_stress_counts_where_vasp_computes_all_of_it(tmp_path, isif, there):
    (label,) = labels(tmp_path, xml=xml(ISIF=isif))
    assert label.ok and (label.stress is not None) == there
    (label,) = labels(tmp_path, xml=xml(replace(BASE, stress=np.zeros(6))))
    assert label.stress is None  # never zeros


def test_non_collinear_moments_are_lengths_and_a_level_of_their_own(tmp_path):
    """ISPIN is 1 there, yet the run is magnetic; of the three tables each holds one component."""
    noncollinear = "   LNONCOLLINEAR =      T non collinear calculations\n   LSORBIT =      T    spin-orbit coupling\n"
    text = out(replace(BASE, incar=BASE.incar | {"ISPIN": 1}), also=noncollinear)
    table = text[text.index(" magnetization (x)") : text.index("tot      ")]
    zero = re.sub(r"2\.[23]00", "0.000", table)
    text = text.replace(table, zero + zero.replace("(x)", "(y)") + table.replace("(x)", "(z)"), 1)
    text = text.replace("magnetization       4.5000000", "magnetization   0.0  0.0  4.5000000")
    (tmp_path / "OUTCAR").write_text(text)
    (found,) = read_vasp(tmp_path)
    np.testing.assert_allclose(found.label.magmoms, [2.2, 2.3])
    assert found.label.provenance["magnetisation"] == pytest.approx(4.5)
    assert found.settings["spin"] is True and found.settings["also"] == "spin-orbit coupling"
    assert [r.fate for r in ingest([tmp_path], tmp_path / "labels").rows] == ["accepted"]


def test_the_functional_of_an_outcar_alone(tmp_path):
    for line, functional in {
        "   LHFCALC =     T    Hartree Fock is set to\n   AEXX    =    0.2500 exact exchange contribution\n": "hybrid",
        "   U (eV)           for each species LDAUU =   4.0\n": "PBE+U (Fe 4)",
        "   GGA     =    PS    GGA type\n": "PBEsol",
    }.items():
        (tmp_path / "OUTCAR").write_text(out(also=line))
        assert read_vasp(tmp_path)[0].settings["functional"].startswith(functional)


def test_runs_appended_to_one_another(tmp_path):
    second = replace(BASE, free_energy=-16.5)
    (tmp_path / "OUTCAR").write_text(out() + out(second))
    found = read_vasp(tmp_path)
    assert [f.label.free_energy for f in found] == pytest.approx([-16.7, -16.5])
    assert [f.source.rpartition("#")[2] for f in found] == ["run 0", "run 1"]
    # the vasprun.xml is of the second: only that part of the OUTCAR belongs to it
    (label,) = labels(tmp_path, xml=xml(second))
    assert label.ok and label.magmoms is not None


def test_whole_steps_of_an_interrupted_vasp_run_on_request_only(tmp_path):
    whole = xml()
    step = whole[whole.index(" <calculation>") : whole.index("</calculation>") + len("</calculation>\n")]
    (tmp_path / "vasprun.xml").write_text(whole[: whole.index(" <calculation>")] + step * 3)
    assert [r.fate for r in ingest([tmp_path], tmp_path / "a").rows] == ["refused"] * 3
    loose = ingest([tmp_path / "vasprun.xml"], tmp_path / "b", interrupted=True)
    assert [r.fate for r in loose.rows] == ["accepted", "accepted", "refused"]


def test_lines_of_windows_and_every_packing(tmp_path):
    names = {"a.out": pw_text().replace("\n", "\r\n").encode(), "OUTCAR_b": out().replace("\n", "\r\n").encode(),
             "c_vasprun.xml.bz2": bz2.compress(xml().encode()), "OUTCAR_d.xz": lzma.compress(out().encode()),
             "e.xyz.gz": gzip.compress(frame().replace("\n", "\r\n").encode())}  # fmt: skip
    runs = tmp_path / "runs"
    runs.mkdir()
    for name, data in names.items():
        (runs / name).write_bytes(data)
    rows = ingest([runs], tmp_path / "labels").rows
    assert {Path(r.source.split("#")[0]).name: r.fate for r in rows} == dict.fromkeys(names, "accepted"), rows
    # half of a packed file is a reason, whatever packed it
    for name, data in names.items():
        if not name.endswith(("out", "_b")):
            (runs / name).write_bytes(data[: len(data) // 2])
    rows = ingest([runs], tmp_path / "half").rows
    assert sum(r.fate == "accepted" for r in rows) == 2 and all(r.reason for r in rows if r.fate == "refused")


def test_junk_is_a_reason(tmp_path):
    noise = np.random.default_rng(0).bytes(5000)
    for name in ("OUTCAR", "vasprun.xml", "a.out", "b.extxyz", "c.log", "d.xyz.gz"):
        (tmp_path / name).write_bytes(noise if name[0] != "d" else b"\x1f\x8b" + noise)
    (tmp_path / "e.xyz").write_bytes(b'2\nLattice="1 0 0 0 1 0 0 0 1"\n\xff\xfe 0 0 0\nH 0 0\n')
    (tmp_path / "run.gpw").write_bytes(noise)
    (tmp_path / "data-file-schema.xml").write_text("<?xml version='1.0'?>\n<qes:espresso></qes:espresso>")
    rows = {Path(r.source.split("#")[0]).name: r for r in ingest([tmp_path], tmp_path / "labels").rows}
    assert not any(r.fate == "accepted" for r in rows.values())
    assert "without its output" in rows["data-file-schema.xml"].reason
    assert "text log" in rows["run.gpw"].reason


def test_a_data_file_beside_its_output_is_no_result_of_its_own(tmp_path):
    (tmp_path / "x.save").mkdir()
    (tmp_path / "x.save" / "data-file-schema.xml").write_text("<?xml version='1.0'?>\n<qes:espresso></qes:espresso>")
    (tmp_path / "x.out").write_text(pw_text())
    assert [c.refused for c in find_outputs([tmp_path], tmp_path / "scratch")] == [False, False]


def pw_text(also: str = "") -> str:
    text = pw_output()
    return text.replace("     estimated scf", also + GEOMETRY + "     estimated scf", 1)


def test_a_pw_run_that_calls_an_unconverged_scf_converged(tmp_path):
    """With ``scf_must_converge = .false.`` pw.x 6.7 says so after its last iteration; the accuracy tells."""
    tight, loose = (f"     scf convergence threshold =      {x}\n" for x in ("1.0E-12", "1.0E-02"))
    (tmp_path / "a.out").write_text(pw_text(loose))
    (tmp_path / "b.out").write_text(pw_text(tight))
    a, b = ingest([tmp_path], tmp_path / "labels").rows
    assert (a.fate, b.fate) == ("accepted", "refused")
    assert b.status == "unconverged"


@pytest.mark.parametrize(
    "line",
    [
        "     Parameters for Dispersion (Grimme-D2) Correction:\n",
        "     Noncollinear calculation with spin-orbit\n",
        "     Adding external electric field\n",
        "     number of electrons       =         7.00\n     atomic species   valence    mass     pseudopotential\n"
        "        Si             4.00    28.08550     Si( 1.00)\n\n",
        "     LDA+U parameters:\nU( 1)     =  4.30000000\n",
    ],
)
def test_what_else_decides_the_energies_of_pw_makes_a_level(tmp_path, line):
    (tmp_path / "a.out").write_text(pw_text())
    (tmp_path / "b.out").write_text(pw_text(line))
    assert len(ingest([tmp_path], tmp_path / "labels").datasets) == 2


def frame(energy: str = "energy=-7.0", arrays: str = "forces:R:3", force: str = "0.1 0 0") -> str:
    head = f'Lattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3:{arrays} {energy} pbc="T T T"'
    other = " ".join(f"{-float(x):g}" for x in force.split())
    return f"2\n{head}\nCu 0 0 0 {force}\nCu 2 2 2.1 {other}\n"


def test_keys_of_reference_values_in_extended_xyz(tmp_path):
    path = tmp_path / "x.xyz"
    for energy, arrays in {"REF_energy=-7": "REF_forces:R:3", "dft_energy=-7": "dft_force:R:3", "energy=-7": "force:R:3",
                           "DFT_energy=-7 energy=-1": "DFT_forces:R:3"}.items():  # fmt: skip
        path.write_text(frame(energy, arrays))
        (found,) = read_extxyz(path)
        assert found.label.energy == -7.0
        np.testing.assert_allclose(found.label.forces[:, 0], [0.1, -0.1])
    # marked values count before those of a model; one source's energy never goes with another's forces
    path.write_text(frame("energy=-1 REF_energy=-7", "forces:R:3:REF_forces:R:3", "9 9 9 0.1 0 0"))
    (found,) = read_extxyz(path)
    assert found.label.energy == -7 and found.label.forces[0, 0] == 0.1
    path.write_text(frame("REF_energy=-7", "MACE_forces:R:3"))
    assert "no forces" in read_extxyz(path)[0].label.reason or "no energy" in read_extxyz(path)[0].label.reason


def test_stress_and_virial_of_extended_xyz(tmp_path):
    """ASE's stress is positive under tension; the virial is −V·σ. Where the two contradict, neither is believed."""
    path = tmp_path / "x.xyz"
    virial = 'virial="-6.4 0 0 0 -6.4 0 0 0 -6.4"'
    path.write_text(frame(f"energy=-7 {virial}"))
    np.testing.assert_allclose(read_extxyz(path)[0].label.stress, [0.1, 0.1, 0.1, 0, 0, 0])
    path.write_text(frame(f'energy=-7 {virial} stress="0.1 0 0 0 0.1 0 0 0 0.1"'))
    np.testing.assert_allclose(read_extxyz(path)[0].label.stress, [0.1, 0.1, 0.1, 0, 0, 0])
    path.write_text(frame(f'energy=-7 {virial} stress="-0.1 0 0 0 -0.1 0 0 0 -0.1"'))
    (found,) = read_extxyz(path)
    assert found.label.ok and found.label.stress is None
    assert "contradict" in ingest([path], tmp_path / "labels").rows[0].reason


def test_a_bad_frame_leaves_the_others(tmp_path):
    path = tmp_path / "x.xyz"
    path.write_text(frame() + frame(force="nan 0 0") + frame(force="0.1 0") + frame(force="0.2 0 0") + frame()[:-20])
    rows = ingest([path], tmp_path / "labels").rows
    assert [r.fate for r in rows] == ["accepted", "refused", "refused", "accepted", "refused"]
    assert all("frame 4" in r.reason for r in rows[4:])
