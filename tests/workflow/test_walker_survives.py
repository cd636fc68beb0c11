"""A walker's process is killed in the middle of its steps: the next one goes on exactly, and nothing is walked twice."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from aldriver.core.frames import read_frames
from aldriver.core.store import verify
from aldriver.workflow import stage_explore
from aldriver.workflow.campaign import create, open_campaign

EXPLORE = {
    "temperatures_K": [600],
    "thermostat": "langevin",
    "temperature_end_K": 900,
    "ensemble": "npt",
    "steps": 40,
    "sample_every": 5,
    "checkpoint_every": 2,
    "dump_every": 10,
    "lammps_input": "in.mine",
}


class Detector:
    """Counts what it scores, and kills its process at the sample it is told."""

    def __init__(self, die_at: int = 0) -> None:
        self.die_at, self.scored = die_at, 0

    def scorer(self, potential):
        def score(atoms, prediction):
            self.scored += 1
            if self.scored == self.die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return {"novelty": float(np.abs(prediction.forces).max())}

        return score

    def frame_vectors(self, frames, potential):
        return np.zeros((len(frames), 2))


def explore(root, die_at=0):
    from aldriver import load

    detector = Detector(die_at)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage_explore, "promoted_pair", lambda *_: (load("eam:Fe_mm.eam.fs"), detector))
        stage_explore.explore_stage(open_campaign(root), 1, 0)
    return detector


@pytest.fixture
def roots(write_recipe, tmp_path):
    from aldriver.explore.commands import TEMPLATE

    (tmp_path / "in.mine").write_text(TEMPLATE + "variable mine equal 1\n")
    recipe = write_recipe(explore=EXPLORE)
    return [create(recipe, tmp_path / name).root for name in ("straight", "killed")]


def test_a_killed_walker_goes_on_where_it_was_saved(roots):
    straight, killed = roots
    explore(straight)
    code = f"from test_walker_survives import explore; explore({str(killed)!r}, die_at=6)"
    here = str(Path(__file__).parent)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([here, *sys.path])}
    died = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    campaign = open_campaign(killed)
    work = campaign.generation(1) / ".work-explore-000"
    assert json.loads((work / "checkpoint" / "walk.json").read_text())["step"] == 20
    assert explore(killed).scored == 4  # samples 25 to 40
    folder = campaign.walker(1, 0)
    verify(folder)
    assert not work.exists()
    ours, theirs = (read_frames(r / "generation-001/explore/walker-000/frames.extxyz") for r in (killed, straight))
    assert [f.info["step"] for f in ours] == [f.info["step"] for f in theirs] == list(range(5, 41, 5))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.positions, b.positions, atol=2e-8)
        np.testing.assert_allclose(a.get_forces(), b.get_forces(), atol=2e-8)
        assert a.info["score_novelty"] == pytest.approx(b.info["score_novelty"])
    scores = [np.load(r / "generation-001/explore/walker-000/scores.npz")["novelty"] for r in roots]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-8)
    assert {p.name for p in folder.iterdir()} >= {"log.lammps", "dump.0.lammpstrj", "dump.20.lammpstrj"}
    assert "variable mine equal 1" in (folder / "log.lammps").read_text()
