"""The real-DFT recipe, shortened: Quantum ESPRESSO labels, a refined CHGNet, a decision with numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from aldriver.cli.main import main
from aldriver.core.frames import read_frames

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "si_vacancy_qe.yaml"


@pytest.fixture
def shortened(tmp_path):
    """One generation of five labels on the 7-atom vacancy cell; same engine and pseudopotential."""
    if shutil.which("pw.x") is None:
        pytest.skip("Quantum ESPRESSO (pw.x) is not installed")
    recipe = yaml.safe_load(RECIPE.read_text())
    if not (Path(recipe["label"]["espresso"]["pseudo_dir"]) / "Si.pbe-rrkj.UPF").is_file():
        pytest.skip("the pseudopotential Si.pbe-rrkj.UPF is not installed")
    recipe["systems"] = recipe["systems"][1:]
    recipe["explore"] |= {"steps": 20, "sample_every": 5, "strains": [-0.02, 0.02]}
    recipe["label"] |= {"budget": 5, "audit": 1}
    recipe["label"]["espresso"] |= {"ecutwfc_Ry": 20, "kpoints": [2, 2, 2]}
    recipe["train"] |= {"epochs": 3}
    recipe["benchmark"]["properties"] = ["lattice"]
    recipe["stop"] |= {"generations": 1}
    path = tmp_path / "short.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


@pytest.mark.dft
@pytest.mark.slow
def test_a_generation_with_real_dft(shortened, tmp_path, capsys):
    campaign = tmp_path / "campaign"
    with pytest.raises(SystemExit) as ended:
        main(["run", str(shortened), "--dir", str(campaign), "--json"])
    assert not ended.value.code
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["state"] == "finished"
    frames = read_frames(campaign / "generation-001" / "label" / "dataset.extxyz", labelled=True)
    labels = [json.loads(p.read_text()) for p in (campaign / "labels").glob("*/label.json")]
    assert len(frames) == len(labels) == 5
    assert {label["provenance"]["engine"] for label in labels} == {"espresso"}
    assert all(label["stress"] is not None and label["cpu_s"] > 0 for label in labels)
    per_atom = [f.get_potential_energy() / len(f) for f in frames]
    assert max(per_atom) - min(per_atom) < 0.5  # one pseudopotential, one scale
    decision = json.loads((campaign / "generation-001" / "gate" / "decision.json").read_text())
    assert decision["decision"] in ("promote", "hold", "rollback")
    assert "meV" in decision["reason"] or decision["decision"] != "promote"
    trained = json.loads((campaign / "generation-001" / "train" / "result.json").read_text())
    assert trained["e0_shift"]["Si"] != 0  # pseudopotential energies lie on another scale than CHGNet's
    assert Path(outcome["report"]).stat().st_size > 100_000
