"""The parity figure: what is drawn is what was computed, and each form of file can be opened."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
from ase.build import bulk

from aldriver.core.errors import InputError
from aldriver.core.frames import with_labels
from aldriver.core.units import EV_A3_TO_GPA
from aldriver.report import parity
from aldriver.report.parity import parity_panels, write_parity


@pytest.fixture
def evaluation(eam_fe):
    """Six frames in two groups, predictions with known errors."""
    frames, predictions = [], []
    for i in range(6):
        atoms = bulk("Fe", cubic=True, a=2.8 + 0.02 * i)
        atoms.rattle(0.05, seed=i)
        p = eam_fe.evaluate([atoms])[0]
        frames.append(with_labels(atoms, energy=p.energy, forces=p.forces, stress=p.stress if i else None))
        off = dataclasses.replace(
            p, energy=p.energy + 0.02, forces=p.forces + 0.03, stress=p.stress + 0.5 / EV_A3_TO_GPA
        )
        predictions.append(off)
    return frames, predictions, ["a & b"] * 4 + ["<c>"] * 2


def test_panels_hold_each_value_with_its_error(evaluation):
    frames, predictions, groups = evaluation
    panels, names = parity_panels(frames, predictions, groups)
    assert names == ["a & b", "<c>"]
    energy, forces, stress = panels
    assert (len(energy.reference), len(forces.reference), len(stress.reference)) == (6, 36, 30)
    np.testing.assert_allclose(energy.predicted - energy.reference, 0.01, atol=1e-9)
    assert energy.reference.mean() == pytest.approx(0.0, abs=1e-9)
    np.testing.assert_allclose(forces.predicted - forces.reference, 0.03, atol=1e-9)
    np.testing.assert_allclose(stress.predicted - stress.reference, 0.5, atol=1e-9)
    assert energy.summary == "MAE 10.0, RMSE 10.0 meV/atom" and stress.summary == "MAE 0.500, RMSE 0.500 GPa"
    assert np.bincount(forces.group).tolist() == [24, 12]
    shifted, _ = parity_panels(frames, predictions, groups, e0_shift={"Fe": 0.01})
    np.testing.assert_allclose(shifted[0].predicted - shifted[0].reference, 0.0, atol=1e-9)


@pytest.mark.parametrize("suffix", ["html", "png", "svg"])
def test_each_form_is_written(evaluation, tmp_path, suffix):
    frames, predictions, groups = evaluation
    path = tmp_path / f"parity.{suffix}"
    write_parity(path, *parity_panels(frames, predictions, groups), title="a <b> potential")
    data = path.read_bytes()
    if suffix == "png":
        assert data.startswith(b"\x89PNG")
    elif suffix == "svg":
        assert b"<svg" in data and data.rstrip().endswith(b"</svg>")
    else:
        text = data.decode()
        assert "<title>a &lt;b&gt; potential</title>" in text and "MAE 10.0, RMSE 10.0 meV" in text
        assert not re.search(r'src="https?://', text)  # nothing is loaded from elsewhere
        assert "<c>" not in json.dumps(text.split("Plotly.newPlot")[-1])


def test_without_stress_labels(evaluation, tmp_path):
    frames, predictions, groups = evaluation
    bare = [with_labels(f, energy=f.get_potential_energy(), forces=f.get_forces()) for f in frames]
    panels, names = parity_panels(bare, predictions, groups)
    assert panels[2].summary == "no labels"
    for suffix in ("html", "png"):
        write_parity(tmp_path / f"x.{suffix}", panels, names, title="x")


def test_many_groups_and_points(evaluation, monkeypatch):
    frames, predictions, _ = evaluation
    monkeypatch.setattr(parity, "COLOURS", ("#000000", "#111111"))
    panels, names = parity_panels(frames, predictions, ["a", "a", "b", "b", "c", "d"])
    assert names == ["a", "b", "other groups"] and np.bincount(panels[1].group).tolist() == [12, 12, 12]


def test_a_path_is_refused_before_anything_is_computed(tmp_path):
    for path, says in ((tmp_path / "x.jpg", r"ends in \.html"), (tmp_path / "no" / "x.png", "does not exist")):
        with pytest.raises(InputError, match=says):
            parity.check_path(path)
