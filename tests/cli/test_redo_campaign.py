"""``aldriver label redo`` of a whole campaign at another level of theory: killed, gone on with, and never mixed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase.build import bulk
from ase.calculators.lj import LennardJones

from aldriver.core.frames import frame_hash, read_frames
from aldriver.label import LabelLimits, label_frame, make_labeler
from aldriver.label.cache import read_label
from aldriver.workflow.campaign import create

N = 5
LJ = {"sigma": 2.3, "epsilon": 0.4, "rc": 6.0}
RECIPE = {
    "name": "iron",
    "potential": "chgnet:0.3.0",
    "systems": [{"name": "bulk", "bulk": {"element": "Fe", "lattice": "bcc", "a": 2.86}}],
    "label": {"engine": "calculator", "reference": "eam:Fe_mm.eam.fs", "limits": {"max_force_eV_A": 20.0}},
    "benchmark": {"cases": [{"name": "Fe", "element": "Fe", "lattice": "bcc", "a": 2.86}]},
}


@pytest.fixture
def campaign(tmp_path):
    """A campaign with labels of an EAM potential: five good ones, and one that was refused for its forces."""
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    made = create(tmp_path / "recipe.yaml", tmp_path / "campaign")
    labeler, spec = make_labeler(made.recipe.label, ["Fe"])
    limits = LabelLimits.of(made.recipe.label)
    statuses = []
    for seed in range(N + 1):
        atoms = bulk("Fe", cubic=True, a=2.86)
        atoms.set_initial_magnetic_moments(None)
        atoms.rattle(0.05, seed=seed)
        if seed == N:
            atoms.positions[1] = atoms.positions[0] + [1.2, 0, 0]
        statuses.append(label_frame(atoms, labeler, spec, made.labels, limits=limits).status)
    assert statuses == ["ok"] * N + ["rejected"]
    return made


def spec_file(tmp_path, name="new.yaml", **arguments):
    block = {"calculator": "ase.calculators.lj:LennardJones", "arguments": LJ | arguments, "level": "Lennard-Jones"}
    (tmp_path / name).write_text(yaml.safe_dump({"label": {"engine": "ase", "ase": block}}))
    return tmp_path / name


def redo(campaign, spec, out):
    entry = [sys.executable, "-c", "from aldriver.cli.main import main; main()"]
    command = [*entry, "label", "redo", campaign.root, "--spec", spec, "--out", out]
    return subprocess.Popen([*map(str, command), "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def state(folder: Path):
    """Bytes of each record of a store."""
    return {p.parent.name: p.read_bytes() for p in sorted(folder.glob("[!.]*/label.json"))}


def test_a_campaign_is_labelled_anew_through_a_kill_and_levels_never_mix(campaign, tmp_path):
    spec, out = spec_file(tmp_path), tmp_path / "anew"
    old = state(campaign.labels)
    killed = redo(campaign, spec, out)
    end = time.monotonic() + 300
    while not state(out):
        assert killed.poll() is None, killed.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    before = state(out)
    assert 1 <= len(before) < N

    again = redo(campaign, spec, out)
    answer, said = again.communicate(timeout=300)
    assert again.returncode == 0, said
    assert json.loads(answer)["ok"] == N
    after = state(out)
    assert len(after) == N and before.items() <= after.items()  # what was there is not computed again
    assert not list(out.glob(".tmp-*")) and not list(out.glob(".*.lock"))
    assert state(campaign.labels) == old

    frames = read_frames(out / "dataset.extxyz", labelled=True)
    assert {f.info["frame_id"] for f in frames} == {frame_hash(f) for f in frames}
    assert len({f.info["level"] for f in frames}) == 1 and frames[0].info["level"].startswith("ase: Lennard-Jones")
    for frame in frames:
        truth = frame.copy()
        truth.calc = LennardJones(**LJ)
        assert frame.get_potential_energy() == pytest.approx(truth.get_potential_energy())
        np.testing.assert_allclose(frame.get_forces(), truth.get_forces(), atol=1e-8)
    assert {read_label(out / key).provenance["code"] for key in after} == {"ASE calculator"}

    third = redo(campaign, spec_file(tmp_path, "third.yaml", epsilon=0.5), out)
    _, said = third.communicate(timeout=300)
    assert third.returncode == 2 and "holds labels of another level of theory" in " ".join(said.split())
    assert state(out) == after
