"""A SevenNet campaign, end to end: generation 0 and 1 with real stages, each where it belongs."""

from __future__ import annotations

import json

import numpy as np
import pytest

from aldriver import load
from aldriver.core.frames import read_frames
from aldriver.workflow.campaign import create
from aldriver.workflow.launchpad import session
from aldriver.workflow.run import run

SMALL = {
    "potential": "sevennet:7net-0",
    "systems": [{"name": "bulk", "bulk": {"element": "Fe", "lattice": "bcc", "a": 2.84}, "supercell": [2, 2, 2]}],
    "explore": {"temperatures_K": [600], "steps": 10, "timestep_fs": 2, "sample_every": 5, "rattle_A": 0.05},
    "detect": {"signals": ["soap_q", "feature_distance"], "soap": {"n_max": 3, "l_max": 2}},
    "label": {"engine": "calculator", "reference": "eam:Fe_mm.eam.fs", "budget": 3, "audit": 1, "fill": True},
    "train": {"epochs": 2, "strategy": "f6", "learning_rate": 1.0e-2, "ewc": 0, "replay": {"source": "none"}},
    "benchmark": {
        "properties": ["lattice"],
        "cases": [{"name": "bcc-Fe", "element": "Fe", "lattice": "bcc", "a": 2.86, "supercell": [2, 2, 2]}],
    },
    "stop": {"generations": 1},
    "resources": {"workers": 1, "threads": 1},
}


@pytest.mark.slow
def test_a_sevennet_campaign(sevennet_python, database, write_recipe, tmp_path):
    campaign = create(write_recipe(**SMALL), tmp_path / "campaign")
    events = []
    outcome = run(campaign.root, on_event=events.append)
    assert (outcome.state, outcome.generation) == ("finished", 1), outcome.reason
    assert not [e for e in events if e["event"] == "warning"]
    assert outcome.promoted is not None

    result = json.loads((campaign.stage(1, "train") / "result.json").read_text())
    history = (campaign.stage(1, "train") / "history.jsonl").read_text().splitlines()
    assert len(history) == 2 and result["strategy"] == "f6" and result["trainable"] == 8192 + 64
    labels = read_frames(campaign.stage(1, "label") / "dataset.extxyz", labelled=True)
    assert 2 <= len(labels) <= 3

    # what was published is a SevenNet potential, usable from this Python
    potential = load(outcome.promoted)
    assert potential.family == "sevennet" and potential.remote
    assert np.isfinite(potential.evaluate(labels[:1])[0].forces).all()
    with session() as lp:
        stage = {fw["fw_id"]: fw["spec"]["stage"] for fw in lp.fireworks.find({"spec.campaign": campaign.id})}
        done = {
            (stage[one["fw_id"]], one["fworker"]["category"]) for one in lp.launches.find() if one["fw_id"] in stage
        }
    assert {s for s, category in done if category} == {"baseline", "explore", "select", "train", "benchmark"}
