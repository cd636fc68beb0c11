"""A MACE campaign, end to end, with a guard that refuses the first strategy and a fallback that passes."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("mace", reason="mace-torch is not installed here")

from ase.build import bulk

from aldriver import load
from aldriver.core.frames import with_labels
from aldriver.explore.perturb import rattle, strain
from aldriver.potentials.bundle import save_bundle
from aldriver.testing.small_mace import taught_mace
from aldriver.workflow.campaign import create
from aldriver.workflow.run import run

SMALL = {
    "systems": [{"name": "bulk", "bulk": {"element": "Fe", "lattice": "bcc", "a": 2.84}, "supercell": [2, 2, 2]}],
    "explore": {"temperatures_K": [300], "steps": 20, "timestep_fs": 1, "sample_every": 5, "rattle_A": 0.05},
    "detect": {"signals": ["soap_q", "feature_distance"], "soap": {"n_max": 3, "l_max": 2}},
    "label": {"engine": "calculator", "reference": "eam:Fe_mm.eam.fs", "budget": 4, "audit": 1, "fill": True},
    "benchmark": {
        "properties": ["lattice"],
        "cases": [{"name": "bcc-Fe", "element": "Fe", "lattice": "bcc", "a": 2.86, "supercell": [2, 2, 2]}],
    },
    "stop": {"generations": 1},
    "resources": {"workers": 1, "threads": 1},
}


@pytest.fixture(scope="module")
def foundation(tmp_path_factory):
    """A MACE that knows iron and copper roughly, as the EAM potentials describe them."""
    frames = []
    for element, a, lattice, oracle in (
        ("Fe", 2.86, "bcc", "Fe_mm.eam.fs"),
        ("Cu", 3.615, "fcc", "Cu_mishin1.eam.alloy"),
    ):
        reference = load(f"eam:{oracle}")
        for seed in range(8):
            cell = bulk(element, lattice, a=a, cubic=True) * ((2, 2, 1) if lattice == "bcc" else (1, 1, 1))
            moved = rattle(strain(cell, 0.03 * (seed % 3 - 1)), 0.08, seed=seed)
            p = reference.evaluate([moved])[0]
            frames.append(with_labels(moved, energy=p.energy, forces=p.forces, stress=p.stress))
    folder = tmp_path_factory.mktemp("mace") / "foundation"
    save_bundle(taught_mace(frames, epochs=40), folder)
    return folder


@pytest.mark.slow
def test_a_mace_campaign_goes_on_with_the_next_strategy_when_a_guard_refuses(
    foundation, database, write_recipe, tmp_path
):
    train = {
        "strategy": "naive",
        "epochs": 8,
        "learning_rate": 2.0e-2,
        "ewc": 0,
        "replay": {"source": "none"},
        "guard": {"max_drift_meV_atom": 0.05},
        "fallbacks": [{"strategy": "f6", "learning_rate": 1.0e-9}, {"strategy": "f5", "learning_rate": 1.0e-5}],
    }
    campaign = create(write_recipe(**SMALL, potential=f"mace:{foundation}", train=train), tmp_path / "campaign")
    outcome = run(campaign.root)
    assert (outcome.state, outcome.generation) == ("finished", 1), outcome.reason

    result = json.loads((campaign.stage(1, "train") / "result.json").read_text())
    tried = [(a["strategy"], a["accepted"]) for a in result["attempts"]]
    assert tried[0] == ("naive", False) and "drift" in result["attempts"][0]["reason"]
    assert len(tried) >= 2 and [s for s, _ in tried] == ["naive", "f6", "f5"][: len(tried)]
    assert result["accepted"] == tried[-1][1]
    decision = campaign.decision(1)
    if not result["accepted"]:
        assert decision["decision"] == "hold" and "naive:" in decision["reason"] and "drift" in decision["reason"]
    potential = load(outcome.promoted)
    assert potential.family == "mace" and potential.elements == {"Fe", "Cu"}
    assert np.isfinite(potential.evaluate([bulk("Fe", "bcc", a=2.86, cubic=True)])[0].forces).all()
