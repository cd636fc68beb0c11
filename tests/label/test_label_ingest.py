"""Finished results of others: every file has a fate, no bad label gets in, no good one is lost."""

from __future__ import annotations

import gzip
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from label_stubs import GEOMETRY, pw_output

from aldriver.core.frames import read_frames, with_labels
from aldriver.core.leftovers import temporary_sibling
from aldriver.core.store import verify
from aldriver.label import LabelLimits
from aldriver.label.finding import find_outputs
from aldriver.label.ingest import Ingested, ingest
from aldriver.label.redo import frames_of

BOX = {"cell": np.eye(3) * 3.0, "pbc": True}


def pw(**changes) -> str:
    """An output of pw.x with its structure."""
    text = pw_output(**changes)
    return text.replace("     estimated scf", GEOMETRY + "     estimated scf", 1)


def fates(found: Ingested) -> dict[str, tuple[str, str]]:
    return {Path(r.source).name: (r.fate, r.reason) for r in found.rows}


def irons(per_atom: list[float], **info) -> list[Atoms]:
    frames = []
    for k, e in enumerate(per_atom):
        atoms = Atoms("Fe2", positions=[[0, 0, 0], [1.4 + 0.01 * k, 1.4, 1.4]], **BOX)
        frames.append(with_labels(atoms, energy=2 * e, forces=np.zeros((2, 3)), **info))
    return frames


def test_folders_archives_links_and_odd_names(tmp_path):
    runs = tmp_path / "runs"
    (runs / "deep" / "er").mkdir(parents=True)
    (runs / "deep" / "er" / "result").write_text(pw())
    with gzip.open(runs / "si.pwo.gz", "wt") as handle:
        handle.write(pw(energy="-15.60000000"))
    (runs / "input.in").write_text("&CONTROL")
    (runs / "slurm.out").write_text("job done")
    (runs / "empty.out").write_text("")
    (runs / "loop").symlink_to(runs)
    (runs / "again.out").symlink_to(runs / "deep" / "er" / "result")
    (runs / "broken.out").symlink_to(runs / "nowhere")
    (runs / "torn.out.gz").write_bytes(b"\x1f\x8b\x08\x00torn")
    with tarfile.open(tmp_path / "more.tar.gz", "w:gz") as packed:
        (tmp_path / "pwo").write_text(pw(energy="-15.70000000"))
        packed.add(tmp_path / "pwo", "inner/x.out")
    found = ingest([runs, tmp_path / "more.tar.gz"], tmp_path / "labels")
    got = fates(found)
    assert sum(r.fate == "accepted" for r in found.rows) == 3
    assert got["x.out"][0] == "accepted"
    assert got["slurm.out"] == ("refused", "no output of a DFT code is in it")
    assert got["empty.out"] == ("refused", "the file is empty")
    assert got["broken.out"] == ("refused", "a link to nothing")
    assert got["torn.out.gz"][0] == "refused" and "cannot be read" in got["torn.out.gz"][1]
    assert got["input.in"][0] == "skipped"
    # a file that is seen by two names counts once
    assert ("result" in got) != ("again.out" in got)


def test_what_gets_in_is_what_the_file_says_and_stays_on_a_second_run(tmp_path):
    (tmp_path / "a.out").write_text(pw())
    first = ingest([tmp_path / "a.out"], tmp_path / "labels")
    (row,) = first.rows
    verify(tmp_path / "labels" / row.key)
    (path,) = first.datasets.values()
    (frame,) = read_frames(path, labelled=True)
    assert frame.info["label_key"] == row.key
    assert frame.info["level"] == row.level
    assert frame.get_potential_energy() == pytest.approx(-15.5 * 13.605693, rel=1e-6)
    again = ingest([tmp_path / "a.out"], tmp_path / "labels")
    assert again.rows[0].reason == "in the store already"
    assert len(read_frames(path)) == 1
    assert len(frames_of(tmp_path / "labels")) == 1


def test_outputs_that_did_not_end_well_are_refused_with_the_reason(tmp_path):
    for name, text in {
        "unconverged.out": pw(converged=False),
        "truncated.out": pw(done=False),
        "stars.out": pw(force="********** 0.0 0.0"),
        "unbalanced.out": pw(minus="0.05000000    0.02000000    0.00000000"),
        "crash.out": "%" * 80 + "\n     Error in routine cdiaghg (1):\n     problems\n" + "%" * 80,
    }.items():
        (tmp_path / name).write_text(text)
    found = ingest([tmp_path], tmp_path / "labels")
    assert {r.fate for r in found.rows} == {"refused"}
    got = {k: reason for k, (_, reason) in fates(found).items()}
    assert "did not converge" in got["unconverged.out"]
    assert "truncated" in got["truncated.out"]
    assert "not finite" in got["stars.out"] or "forces" in got["stars.out"]
    assert "add up to" in got["unbalanced.out"]
    assert "cdiaghg" in got["crash.out"]
    assert found.to_json()["refused"] == 5
    assert not found.datasets


def test_whole_steps_of_an_interrupted_run_get_in_on_request_only(tmp_path):
    moved = "ATOMIC_POSITIONS (alat)\nSi 0.0 0.0 0.01\nSi 0.25 0.25 0.25\n\n     Self-consistent Calculation\n"
    (tmp_path / "md.out").write_text(pw(done=False) + moved)
    strict = ingest([tmp_path / "md.out"], tmp_path / "labels")
    assert [r.fate for r in strict.rows] == ["refused", "refused"]
    assert "--interrupted" in strict.rows[0].reason
    loose = ingest([tmp_path / "md.out"], tmp_path / "labels", interrupted=True)
    assert [r.fate for r in loose.rows] == ["accepted", "refused"]


def test_a_recipe_keeps_other_levels_out(tmp_path):
    (tmp_path / "a.out").write_text(pw())
    wanted = {"code": "Quantum ESPRESSO", "cutoff_eV": 20 * 13.605693}
    assert ingest([tmp_path / "a.out"], tmp_path / "one", wanted=wanted, level="mine").datasets.keys() == {"mine"}
    (row,) = ingest([tmp_path / "a.out"], tmp_path / "two", wanted=wanted | {"cutoff_eV": 400.0}, level="mine").rows
    assert row.fate == "refused"
    assert "another level of theory: cutoff_eV is 272.114, not 400.0" in row.reason


def test_energy_references_of_iron_are_kept_apart(tmp_path):
    write(tmp_path / "mixed.extxyz", irons([-8.4, -8.3, -8.35, -4479.9, -3460.9]), format="extxyz")
    found = ingest([tmp_path / "mixed.extxyz"], tmp_path / "labels")
    assert [r.fate for r in found.rows] == ["accepted"] * 3 + ["refused"] * 2
    assert "another energy reference" in found.rows[3].reason
    # stated levels become data sets of their own instead
    by_level = [*irons([-8.4], level="VASP PBE"), *irons([-4479.9], level="QE PBE PAW")]
    write(tmp_path / "stated.extxyz", by_level, format="extxyz")
    stated = ingest([tmp_path / "stated.extxyz"], tmp_path / "apart")
    assert [r.fate for r in stated.rows] == ["accepted", "accepted"]
    assert len(stated.datasets) == 2
    # and the store remembers: a stranger that comes later is told apart
    write(tmp_path / "later.extxyz", irons([-3460.9]), format="extxyz")
    assert ingest([tmp_path / "later.extxyz"], tmp_path / "labels").rows[0].fate == "refused"


def test_three_references_of_iron_in_one_store(shared_data, tmp_path):
    """Iron at -4479.9 (PAW, 16 electrons), -3460.9 (8 electrons) and -8.3 eV/atom (VASP): they never meet."""
    sources = [
        shared_data / "fe_qe_vacancy" / "primitive" / "FM1" / "fe_bulk_fm.out.gz",
        shared_data / "fe_qe_vacancy" / "primitive" / "FM2" / "fe_bulk_fm_restart.out.gz",
        tmp_path / "matpes.extxyz",
    ]
    frames = read_frames(shared_data / "forgetting" / "matpes_pbe_elements.extxyz")
    write(sources[2], [f for f in frames if f.info["element"] == "Fe"], format="extxyz")
    found = ingest(sources, tmp_path / "labels")
    assert [r.fate for r in found.rows] == ["accepted"] * 3
    kept = [read_frames(path)[0] for path in found.datasets.values()]
    per_atom = [f.get_potential_energy() / len(f) for f in kept]
    assert sorted(round(e, 1) for e in per_atom) == [-4479.9, -3460.9, -8.3]
    # a set of the second reference whose level nobody states: a data set of its own, and strangers in it are refused
    loose = tmp_path / "mixed.extxyz"
    mixed = [*read_frames(shared_data / "fe_gap22" / "DB10.xyz")[:5], *kept]
    for frame in mixed:
        frame.info = {}
    write(loose, mixed, format="extxyz")
    again = ingest([loose], tmp_path / "labels")
    fates = ["accepted" if abs(e + 3460.9) < 2 else "refused" for e in per_atom]
    assert [r.fate for r in again.rows] == ["accepted"] * 5 + fates
    assert all("another energy reference" in r.reason for r in again.rows if r.fate == "refused")
    assert not again.datasets.keys() & found.datasets.keys()


def test_labels_are_written_once_and_nothing_half_done_stays(tmp_path):
    write(tmp_path / "fe.extxyz", irons([-8.4, -8.3, -8.35]), format="extxyz")
    left = temporary_sibling(tmp_path / "labels" / "dead").name.replace(f"-{os.getpid()}-", "-999999999-")
    (tmp_path / "labels" / left).mkdir(parents=True)  # of a process that was killed
    found = ingest([tmp_path / "fe.extxyz"], tmp_path / "labels")
    (data_set,) = found.datasets.values()
    text = data_set.read_text()
    for row in found.rows:
        verify(tmp_path / "labels" / row.key)
        assert (tmp_path / "labels" / row.key / "frame.extxyz").read_text() in text
    assert not list((tmp_path / "labels").glob(".*"))
    # the data set is lost, the labels are not: a second run writes it again
    data_set.unlink()
    ingest([tmp_path / "fe.extxyz"], tmp_path / "labels")
    assert data_set.read_text() == text


def test_spin_states_and_limits_of_the_user(tmp_path):
    frames = irons([-8.4, -8.3])
    frames[0].calc.results["magmoms"] = np.array([2.2, 2.2])
    frames[1].calc.results["magmoms"] = np.array([0.0, 0.0])
    write(tmp_path / "fe.extxyz", frames, format="extxyz")
    usual = ingest([tmp_path / "fe.extxyz"], tmp_path / "usual")
    assert [r.fate for r in usual.rows] == ["accepted", "refused"]
    assert "another spin state" in usual.rows[1].reason and "--spin" in usual.rows[1].reason
    asked = ingest([tmp_path / "fe.extxyz"], tmp_path / "asked", limits=LabelLimits(moments={"Fe": (0.0, 0.5)}))
    assert [r.fate for r in asked.rows] == ["refused", "accepted"]


def test_stand_ins_and_frames_without_labels_are_refused(tmp_path):
    frames = [*irons([-8.4], level="stand-in eam:Fe_mm.eam.fs"), Atoms("Fe", **BOX)]
    write(tmp_path / "fe.extxyz", frames, format="extxyz")
    found = ingest([tmp_path / "fe.extxyz"], tmp_path / "labels")
    assert [r.fate for r in found.rows] == ["refused", "refused"]
    assert "stand-in" in found.rows[0].reason
    assert found.rows[1].reason == "the frame has no energy and forces"


def test_a_reader_that_stumbles_loses_only_its_own_file(tmp_path, monkeypatch):
    (tmp_path / "a.out").write_text(pw())
    write(tmp_path / "fe.extxyz", irons([-8.4]), format="extxyz")
    from aldriver.label import espresso_output

    def stumble(path):
        raise IndexError("list index out of range")

    monkeypatch.setattr(espresso_output, "read_espresso", stumble)
    got = fates(ingest([tmp_path], tmp_path / "labels"))
    assert got["a.out"][0] == "refused" and "IndexError" in got["a.out"][1]
    assert got["fe.extxyz#frame 0"][0] == "accepted"


def test_files_of_one_run_are_found_by_their_names(tmp_path):
    for name in ("a_vasprun.xml", "a_OUTCAR", "a_OSZICAR", "b_OUTCAR"):
        start = "<?xml?>\n<modeling>" if "xml" in name else " vasp.6.4.2 build"
        (tmp_path / name).write_text(start if "OSZ" not in name else "DAV: 1")
    found = {c.path.name: (c.code, c.refused) for c in find_outputs([tmp_path], tmp_path / "scratch")}
    assert found == {"a_OSZICAR": ("", False), "a_OUTCAR": ("", False), "a_vasprun.xml": ("vasp", False),
                     "b_OUTCAR": ("vasp", False)}  # fmt: skip


QE_GOOD = {
        "default_no_xml", "default_xml_211101", "default_xml_220603", "default_xml_240411", "default_xml_241015",
        "default_xml_250521", "default_xml_260128", "fixed_coords_relax", "magnetic_moments_v68",
        "relax_success", "vcrelax_failed_bfgs_history_final_scf",
        "vcrelax_failed_electronic_final_scf", "vcrelax_failed_not_converged_final_scf",
        "vcrelax_success_atoms_shape", "vcrelax_success_external_pressure",
    }  # fmt: skip
"""Outputs with an SCF that converged and forces, by what they are known to hold."""


def test_every_real_output_of_quantum_espresso(shared_data, tmp_path):
    found = ingest([shared_data / "qe_outputs"], tmp_path / "labels")
    folders = {Path(r.source.split("#")[0]).parent.name for r in found.rows if r.fate == "accepted"}
    assert folders == QE_GOOD
    (far,) = (r for r in found.rows if "nstep" in r.source and r.status)
    assert far.fate == "refused" and "+2.2 from the labels of its level" in far.reason  # 2.2 eV/atom, good by itself
    steps = {r.source.rpartition("/qe_outputs/")[2] for r in found.rows if r.fate == "refused"}
    assert "vcrelax_failed_electronic_final_scf/aiida.out#step 4" in steps
    assert all(r.reason for r in found.rows if r.fate != "accepted")
    files = {str(p) for p in (shared_data / "qe_outputs").rglob("*") if p.is_file()}
    assert {r.source.split("#")[0] for r in found.rows} == files


def test_every_real_output_of_iron_with_a_vacancy(shared_data, tmp_path):
    found = ingest([shared_data / "fe_qe_vacancy"], tmp_path / "labels")
    rows = {r.source.rpartition("/fe_qe_vacancy/")[2]: r for r in found.rows}
    for name, row in rows.items():
        finished = name.endswith((".gz", "fe_bulk_nm.out")) or "#run" in name
        if "NM" in name and row.energy_eV_atom is not None:
            assert row.fate == "refused" and "spin state" in row.reason, name
        elif row.fate == "accepted":
            assert finished and "NM" not in name and "old_runs" not in name, name
    good = [n for n, r in rows.items() if r.fate == "accepted"]
    assert len(good) == 22  # finished, converged, spin-polarised
    # the references of the two kinds of pseudopotential never meet in one data set
    by_level: dict[str, list[float]] = {}
    for r in rows.values():
        if r.fate == "accepted":
            by_level.setdefault(r.level, []).append(r.energy_eV_atom)
    assert all(max(e) - min(e) < 2.0 for e in by_level.values())
    means = {round(float(np.mean(e)), -1) for e in by_level.values()}
    assert means == {-4480.0, -3460.0}


def test_every_real_output_of_vasp(shared_data, tmp_path):
    found = ingest([shared_data / "vasp_outputs"], tmp_path / "labels")
    by_file: dict[str, list[str]] = {}
    for r in found.rows:
        by_file.setdefault(r.source.rpartition("/vasp_outputs/")[2].split("#")[0], []).append(r.fate)
    assert by_file["io__vasprun.xml.gz"] == ["accepted"] * 3
    assert by_file["max_force__vasprun.xml.gz"] == ["accepted"] * 3
    assert by_file["postprocess__vasprun.xml.gz"] == ["accepted"] * 28
    assert by_file["drift_OUTCAR.gz"] == ["accepted"] * 10
    assert by_file["unconverged__vasprun.xml.ionic.gz"] == ["refused"] * 2  # tetrahedra in silver
    assert by_file["unconverged__vasprun.xml.electronic.gz"] == ["refused"] * 5
    assert by_file["unconverged__vasprun.xml.scan.gz"] == ["refused"]
    assert by_file["large_cell_real_optlay__vasprun.xml.gz"] == ["refused"]
    assert by_file["large_sigma__OUTCAR_fail.gz"] == ["refused"] * 3
    assert by_file["postprocess_OUTCAR.gz"] == ["skipped"]
    moves = by_file["chgnet/no-magmoms/vasprun.xml.gz"]
    assert moves.count("accepted") == 48 and moves[1] == "refused"  # 28,851 eV/Å on an atom
