"""Limits of labels in a campaign: one that does not share the energy reference of the others is refused and counted."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from ase.build import bulk

from aldriver.core.frames import frame_hash, read_frames, write_frames
from aldriver.core.records import read_json
from aldriver.core.store import publish
from aldriver.label.base import Label, Labeler, LabelSpec
from aldriver.workflow import stage_label
from aldriver.workflow.campaign import create
from aldriver.workflow.stage_label import collect_stage, label_stage
from aldriver.workflow.status import status

RECIPE = {
    "name": "limits",
    "potential": "eam:Fe_mm.eam.fs",
    "systems": [{"name": "bulk", "bulk": {"element": "Fe", "lattice": "bcc", "a": 2.86}}],
    "label": {"engine": "calculator", "reference": "eam:Fe_mm.eam.fs", "budget": 4, "audit": 0},
    "benchmark": {"properties": ["lattice"], "cases": [{"name": "Fe", "element": "Fe", "lattice": "bcc", "a": 2.86}]},
}


class Stranger(Labeler):
    """Labels of −8.4 eV/atom; the frames of a volume above 24 Å³ come from another reference."""

    code_id = "stranger"

    def preflight(self):
        return []

    def label(self, frame, workdir):
        per_atom = -8.4 if frame.get_volume() < 24 else -3460.9
        return Label(status="ok", energy=per_atom * len(frame), forces=np.zeros((len(frame), 3)))


@pytest.fixture
def campaign(tmp_path, monkeypatch):
    """A campaign with four selected frames, the last of which gets a label of another energy reference."""
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    made = create(tmp_path / "recipe.yaml", tmp_path / "campaign")
    spec = LabelSpec(engine="calculator", method="stranger")
    monkeypatch.setattr(stage_label, "_labeler", lambda _: (Stranger(), spec))
    frames = []
    for a in (2.84, 2.85, 2.86, 2.9):
        atoms = bulk("Fe", cubic=True, a=a)
        atoms.set_initial_magnetic_moments(None)
        atoms.info |= {"frame_id": frame_hash(atoms), "group": f"walker-{a}", "origin": "flagged"}
        frames.append(atoms)
    with publish(made.stage(1, "select")) as tmp:
        write_frames(tmp / "selected.extxyz", frames)
    return made


def test_a_label_of_another_energy_reference_is_refused_when_all_are_there(campaign):
    for k in range(4):
        label_stage(campaign, 1, k)
    for _ in range(2):  # a repeated collect changes nothing
        collect_stage(campaign, 1)
    folder = campaign.stage(1, "label")
    assert len(read_frames(folder / "dataset.extxyz", labelled=True)) == 3
    fates = read_json(folder / "labels.json")
    assert [f["status"] for f in fates] == ["ok", "ok", "ok", "rejected"]
    assert "another energy reference" in fates[3]["reason"]
    counted = status(campaign.root)["labels"]
    assert (counted["done"], counted["failed"]) == (3, 1)
    (reason,) = counted["reasons"]
    assert reason.startswith("rejected: the energy is -3460.9 eV/atom")


def test_labels_of_later_generations_are_judged_by_those_before(campaign):
    for k in range(4):
        label_stage(campaign, 1, k)
    collect_stage(campaign, 1)
    atoms = bulk("Fe", cubic=True, a=2.95)
    atoms.info |= {"frame_id": frame_hash(atoms), "group": "walker-1", "origin": "flagged"}
    with publish(campaign.stage(2, "select")) as tmp:
        write_frames(tmp / "selected.extxyz", [atoms])
    label_stage(campaign, 2, 0)
    (entry,) = campaign.ledger.find("label", generation=2)
    assert entry["status"] == "rejected"
