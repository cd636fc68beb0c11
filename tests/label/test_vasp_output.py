"""Real files of VASP 5 and 6 (custodian's and CHGNet's fixtures), and what damage does to them."""

from __future__ import annotations

import gzip
import warnings
from pathlib import Path

import numpy as np
import pytest
from ase.io import read as ase_read

from aldriver.label.vasp_output import read_vasp
from aldriver.label.vasprun import read_vasprun

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "vasp_outputs"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the VASP fixtures (shared data) are not on this machine")

GOOD = {
    "io__vasprun.xml.gz": 3,
    "max_force__vasprun.xml.gz": 3,
    "postprocess__vasprun.xml.gz": 28,
    "chgnet/no-magmoms/vasprun.xml.gz": 49,
}


@pytest.mark.parametrize("name", GOOD)
def test_every_step_is_what_pymatgen_and_ase_read(name):
    from pymatgen.io.vasp.outputs import Vasprun

    found = read_vasp(DATA / name)
    assert len(found) == GOOD[name]
    assert {f.label.status for f in found} == {"ok"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = Vasprun(str(DATA / name), parse_dos=False, parse_eigen=False, parse_potcar_file=False)
        frames = ase_read(DATA / name, index=":", format="vasp-xml")
    assert found[-1].label.energy == pytest.approx(float(theirs.final_energy), abs=1e-7)
    for mine, step, frame in zip(found, theirs.ionic_steps, frames, strict=True):
        assert mine.label.free_energy == pytest.approx(step["e_fr_energy"], abs=1e-8)
        np.testing.assert_allclose(mine.label.forces, step["forces"], atol=1e-12)
        np.testing.assert_allclose(mine.frame.get_scaled_positions(), frame.get_scaled_positions(), atol=1e-8)
        assert mine.frame.get_chemical_symbols() == theirs.atomic_symbols  # ASE takes xenon for X
        if step.get("stress") is None:
            assert mine.label.stress is None
        else:
            np.testing.assert_allclose(mine.label.stress, frame.get_stress(), atol=1e-9)


def test_vasp_5_final_energies_are_not_zero():
    """Version 5 swaps the final energies; those of E(σ→0) and F differ by half the entropy term, here of a few meV."""
    for name in ("postprocess__vasprun.xml.gz", "chgnet/no-magmoms/vasprun.xml.gz"):
        for found in read_vasp(DATA / name):
            assert abs(found.label.energy - found.label.free_energy) < 0.01 * len(found.frame)
            assert abs(found.label.energy) > 1.0


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("unconverged__vasprun.xml.electronic.gz", "unconverged", "did not converge in 100 steps"),
        ("unconverged__vasprun.xml.scan.gz", "unconverged", "did not converge in 100 steps"),
        ("large_cell_real_optlay__vasprun.xml.gz", "failed", "breaks off before its closing tag"),
        ("large_cell_real_optlay_OUTCAR.gz", "failed", "General timing"),
        ("large_sigma__OUTCAR_fail.gz", "rejected", "16 meV/atom"),
        ("nonconv_OSZICAR.gz", "failed", "General timing"),
    ],
)
def test_bad_runs_say_why(name, status, words):
    found = read_vasp(DATA / name)
    assert found
    for one in found:
        assert one.label.status == status
        assert words in one.label.reason
        assert one.label.energy is None and one.label.forces is None


def test_tetrahedra_in_a_metal_are_refused():
    """Silver with ISMEAR -5: converged, but its forces are not the derivatives of its energy."""
    for found in read_vasp(DATA / "unconverged__vasprun.xml.ionic.gz"):
        assert found.label.status == "rejected"
        assert "tetrahedron method in a metal" in found.label.reason


def test_moments_come_from_the_outcar_of_the_same_run():
    found = read_vasp(DATA / "postprocess__vasprun.xml.gz")  # its OUTCAR lies beside it
    first = found[0].label.magmoms
    assert first.shape == (4,)
    assert min(abs(first[:2])) > 2 and max(abs(first[2:])) < 0.5  # the iron of FeO is magnetic, its oxygen is not
    assert first[0] * first[1] < 0  # it started antiferromagnetic
    assert all(f.label.magmoms is not None for f in found)
    assert all(f.label.magmoms is None for f in read_vasp(DATA / "max_force__vasprun.xml.gz"))


def test_an_outcar_alone_gives_the_same_labels():
    out = {f.source.split("#")[-1]: f for f in read_vasp(DATA / "postprocess_OUTCAR.gz")}
    xml = read_vasp(DATA / "postprocess__vasprun.xml.gz")
    assert len(out) == len(xml)
    for found in xml:
        other = out[found.source.split("#")[-1]]
        assert other.label.energy == pytest.approx(found.label.energy, abs=1e-6)
        assert other.label.free_energy == pytest.approx(found.label.free_energy, abs=1e-6)
        np.testing.assert_allclose(other.label.forces, found.label.forces, atol=1e-5)
        np.testing.assert_allclose(other.label.stress, found.label.stress, atol=1e-7)
        np.testing.assert_allclose(np.asarray(other.frame.cell), np.asarray(found.frame.cell), atol=1e-6)


def test_settings_keep_levels_of_theory_apart():
    read = {name: read_vasp(DATA / name)[0].settings for name in GOOD}
    assert read["postprocess__vasprun.xml.gz"]["functional"] == "PBE+U (Fe 4)"
    assert read["io__vasprun.xml.gz"]["functional"] == "PBE"
    assert read["io__vasprun.xml.gz"]["kpoints"] == [7, 7, 7]
    assert read["chgnet/no-magmoms/vasprun.xml.gz"]["cutoff_eV"] == 400
    assert read["chgnet/no-magmoms/vasprun.xml.gz"]["pseudopotentials"][0] == "PAW_PBE Nb_sv 25May2007"


def test_a_folder_pairs_the_files_of_each_run():
    sources = {Path(f.source.split("#")[0]).name for f in read_vasp(DATA)}
    assert "io__vasprun.xml.gz" in sources and "io__OUTCAR.gz" not in sources
    assert "drift_OUTCAR.gz" in sources


def test_a_file_cut_anywhere_does_not_end_in_a_label(tmp_path):
    """Whole steps before the break are told from the last one; ``ingest`` takes them on request only."""
    name = "io__vasprun.xml.gz"
    whole = gzip.decompress((DATA / name).read_bytes())
    for share in (0.05, 0.5, 0.9, 0.99):
        (tmp_path / "vasprun.xml").write_bytes(whole[: int(share * len(whole))])
        found = read_vasp(tmp_path)
        assert found and found[-1].label.status == "failed", share
    end = whole.rindex(b"</calculation>") + len(b"</calculation>")
    (tmp_path / "vasprun.xml").write_bytes(whole[:end])  # all that a label needs is there, but the run did not end
    assert [f.label.status for f in read_vasp(tmp_path)] == ["ok", "ok", "failed"]
    (tmp_path / "vasprun.xml").write_bytes((DATA / name).read_bytes()[:3000])  # a damaged archive
    assert not any(f.label.ok for f in read_vasp(tmp_path))


def test_a_run_whose_outcar_did_not_end_is_no_label(tmp_path):
    (tmp_path / "vasprun.xml.gz").write_bytes((DATA / "io__vasprun.xml.gz").read_bytes())
    text = gzip.decompress((DATA / "io__OUTCAR.gz").read_bytes()).decode()
    (tmp_path / "OUTCAR").write_text(text[: text.index("General timing")])
    found = read_vasp(tmp_path)
    assert found[-1].label.status == "failed" and "General timing" in found[-1].label.reason
    (tmp_path / "OUTCAR").write_text(text.replace("aborting loop because EDIFF is reached", "aborting loop", 1))
    assert [f.label.status for f in read_vasp(tmp_path)] == ["unconverged", "ok", "ok"]


def test_stars_and_pressure_are_refused(tmp_path):
    text = gzip.decompress((DATA / "io__vasprun.xml.gz").read_bytes()).decode("latin-1")
    start = text.index('<varray name="forces"')
    row = text.index("<v>", start)
    (tmp_path / "vasprun.xml").write_text(
        text[:row] + "<v> ******** 0.0 0.0 </v>" + text[text.index("</v>", row) + 4 :]
    )
    statuses = [f.label.status for f in read_vasp(tmp_path)]
    assert statuses == ["failed", "ok", "ok"]
    pressed = text.replace('<i name="PSTRESS">      0.00000000', '<i name="PSTRESS">     50.00000000')
    assert pressed != text
    (tmp_path / "vasprun.xml").write_text(pressed)
    assert {f.label.status for f in read_vasp(tmp_path)} == {"rejected"}


def test_the_reader_never_raises_for_what_is_in_a_file(tmp_path):
    for junk in (b"", b"\x1f\x8b", b"<modeling>", b"<?xml version='1.0'?><modeling></modeling>", bytes(range(256)) * 9):
        (tmp_path / "vasprun.xml").write_bytes(junk)
        found = read_vasp(tmp_path)
        assert [f.label.status for f in found] == ["failed"]
        assert not read_vasprun(tmp_path / "vasprun.xml").steps
    (tmp_path / "vasprun.xml").unlink()
    assert read_vasp(tmp_path) == []
