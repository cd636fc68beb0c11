"""The learning-curve study: what its runs are trained on (the trainings themselves take an hour)."""

from __future__ import annotations

import json

import pytest

from aldriver.core.frames import frame_hash
from aldriver.testing import learning_curves as study


def test_every_run_has_its_own_name_and_the_same_number_of_steps():
    runs = study.runs()
    assert len({run.name for run in runs}) == len(runs)
    for run in runs:
        n = max(2, round(run.fraction * study.POOL))
        settings = study.settings_of(run, n)
        steps = settings.epochs * -(-n // settings.batch_size)
        assert abs(steps - study.STEPS) <= 0.1 * study.STEPS, run.name


def test_smaller_fractions_are_part_of_larger_ones_and_nothing_is_tested_twice(shared_data):
    of = {
        fraction: study.frames_of(study.Run(start="x", data="Si", strategy="naive", fraction=fraction), shared_data)
        for fraction in study.FRACTIONS
    }
    hashes = {f: {frame_hash(a) for a in known} for f, (known, _, _) in of.items()}
    small, middle, all_of_it = (hashes[f] for f in study.FRACTIONS)
    assert small < middle < all_of_it and len(all_of_it) == study.POOL
    known, valid, test = of[1.0]
    sides = [{frame_hash(a) for a in side} for side in (known, valid, test)]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    assert {a.info["group"] for a in known} == {"Elastic", "AIMD-NVT"}
    assert {a.info["group"] for a in test} > {"Vacancy", "Surface"}


@pytest.mark.parametrize("rule", ["strict", "relaxed"])
def test_the_dopant_left_out_is_what_is_tested(rule, shared_data):
    run = study.Run(start="x", data="Mo-Nb,W", strategy="naive", leave_out="Nb", rule=rule)
    known, _, test = study.frames_of(run, shared_data)
    assert all("Nb" in a.symbols for a in test)
    with_nb = [a for a in known if "Nb" in a.symbols]
    assert (not with_nb) if rule == "strict" else all("W" in a.symbols for a in with_nb)


def test_published_results_count_only_with_the_same_constants(tmp_path):
    path = tmp_path / "results.json"
    assert study.published(path, {"steps": 1}) == {}
    path.write_text(json.dumps({"settings": {"steps": 1}, "runs": [{"name": "a"}]}))
    assert study.published(path, {"steps": 1}) == {"a": {"name": "a"}}
    assert study.published(path, {"steps": 2}) == {}
