"""Labels saved, and periodic against naive: what is equal, what is compared (the studies themselves take an hour)."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from aldriver.core.frames import frame_hash, label_of
from aldriver.core.recipe_detect import Detect
from aldriver.testing import closed_loop, labels_page, labels_saved, periodic, periodic_page


@pytest.fixture
def loop(monkeypatch, eam_fe):
    """The truth refined to itself: nothing is trained, all errors vanish; counts MD steps and labels."""

    class Loop(closed_loop.Loop):
        foundation = truth = eam_fe
        steps: list[tuple[int, int]] = []
        trained: list[int] = []

        def __init__(self):
            super().__init__()
            self.recipe = self.recipe.model_copy(update={"detect": Detect(signals=["soap_q"])})

        def walk(self, potential, start, **plan):
            self.steps.append((plan["seed"], plan["steps"]))
            return super().walk(potential, start, **plan)

        def refine(self, frames, steps, out, *, seed):
            assert all(label_of(f, "forces") is not None for f in frames)
            self.trained.append(len(frames))
            return closed_loop.Refined(potential=self.truth, e0_shift=None)

        def unrefined(self, frames):
            return closed_loop.Refined(potential=self.truth, e0_shift=None)

        def test_frames(self):
            return self.labelled(list(self.systems.values()))

    Loop.steps, Loop.trained = [], []
    for module in (labels_saved, periodic):
        monkeypatch.setattr(module, "Loop", Loop)
    return Loop


def smaller(monkeypatch, module, **values):
    for name, value in values.items():
        monkeypatch.setattr(module, name, value)


@pytest.mark.parametrize(("n", "labels"), [(80, 4), (7, 3), (3, 5), (0, 4)])
def test_intervals_are_equal_and_end_with_the_last_frame(n, labels):
    picked = labels_saved.at_intervals(n, labels)
    assert len(picked) == len(set(picked)) == min(n, labels)
    assert not picked or picked[-1] == n - 1
    assert all(abs(b - a - max(1, n / labels)) < 1 for a, b in pairwise(picked))


def test_samplers_get_equal_md_and_labels_from_the_same_starts(loop, monkeypatch, tmp_path):
    smaller(monkeypatch, labels_saved, GENERATIONS=2, STEPS=10, EVERY=5)
    smaller(monkeypatch, closed_loop, COPIES=3, HELD_OUT_COPIES=2)
    seen = {}
    for sampler in labels_saved.SAMPLERS:
        loop.steps.clear(), loop.trained.clear()
        facts = labels_saved.compute(f"{sampler}-1", None, tmp_path / sampler)
        seen[sampler] = (list(loop.steps), list(loop.trained), [p["labels"] for p in facts["points"]])
        assert facts["points"][-1]["forces_rmse_meV_A"] == pytest.approx(0.0, abs=1e-6)
    first = seen["interval"]
    assert all(found == first for found in seen.values())
    assert first[1:] == ([4, 8], [0, 4, 8])


def test_what_is_labelled_differs_and_is_never_labelled_twice(loop):
    made = loop()
    frames = [f for f, _ in labels_saved.start_cells(made, seed=0).values()]
    rng = np.random.default_rng(0)
    candidates = []
    for k in range(16):
        moved = frames[k % 4].copy()
        moved.positions += rng.normal(0.0, 0.02 if k % 4 else 0.3, moved.positions.shape)
        candidates.append(moved)
    refined = closed_loop.Refined(potential=made.truth, e0_shift=None)
    picked = {s: labels_saved.pick(s, candidates, made, refined, [], seed=3) for s in labels_saved.SAMPLERS}
    assert all(len(set(p)) == labels_saved.LABELS for p in picked.values())
    assert picked["interval"] == [3, 7, 11, 15]
    far = {0, 4, 8, 12}
    assert len(far & set(picked["aldriver"])) >= labels_saved.LABELS - labels_saved.AUDIT
    again = labels_saved.pick("random", candidates, made, refined, [], seed=3)
    assert again == picked["random"]


def test_labels_needed_are_interpolated_and_count_from_when_an_error_stays_below():
    def points(*errors):
        return [{"labels": 4 * k, "forces_rmse_meV_A": e} for k, e in enumerate(errors)]

    assert labels_page.labels_for(points(100.0, 10.0), 10.0**1.5) == pytest.approx(2.0)
    assert labels_page.labels_for(points(100.0, 10.0, 100.0, 10.0), 20.0) > 8.0
    assert labels_page.labels_for(points(100.0, 50.0), 20.0) == math.inf
    assert labels_page.labels_for(points(10.0, 5.0), 20.0) == 0.0
    assert labels_page.labels_for(points(None, 5.0), 20.0) == 4.0


def test_the_page_of_labels_says_what_was_not_reached(tmp_path):
    def runs(sampler, *errors):
        points = [{"labels": 4 * k, "forces_rmse_meV_A": e} for k, e in enumerate(errors)]
        return {"sampler": sampler, "points": points, "cpu_s": 60.0}

    slow, fast = (200.0, 100.0, 80.0, 60.0, 50.0), (200.0, 40.0, 35.0, 33.0, 30.0)
    good = labels_page.sections([runs("interval", *slow), runs("aldriver", *fast), runs("random", *slow)])
    assert "not reached" not in good["verdict"] and good["verdict"].count("reached") == 2
    bad = labels_page.sections([runs("interval", *fast), runs("aldriver", *slow)])
    assert "not reached" in bad["verdict"] and "never" in bad["needed"]
    labels_page.draw([runs("interval", *slow), runs("aldriver", *fast)], tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_naive_and_periodic_spend_equal_labels_and_md(loop, monkeypatch, tmp_path):
    smaller(monkeypatch, periodic, INTERVALS=2, LABELS=2, SETTLE=4, EVERY=4, STEPS=12, LONG=12)
    made = loop()
    first = made.unrefined([])
    cost = []
    for collect in (periodic.naive, periodic.periodic):
        loop.steps.clear(), loop.trained.clear()
        models = collect(made, first, tmp_path, seed=0)
        cost.append((sum(steps for _, steps in loop.steps), list(loop.trained), len(models)))
    assert cost[0] == cost[1] == (24, [2, 4], 2)
    facts = periodic.compute("seed-0", None, tmp_path / "run") | {"cpu_s": 1.0}
    assert list(facts["independent"]) == ["U", "N-2", "N-4", "FT1", "FT2"]
    assert set(facts["long"]) == {f"{a} on {b}" for a in ("N-4", "FT2") for b in ("N-4", "FT2")}
    assert facts["in_md"]["FT2"]["residual_meV_atom"] == pytest.approx(0.0, abs=1e-6)
    texts = periodic_page.sections([facts, facts])
    assert texts.keys() == {"verdict", "independent", "in_md", "long"} and "| FT2 |" in texts["in_md"]


def test_periodic_goes_on_where_it_was_and_naive_starts_anew(loop, monkeypatch, tmp_path):
    smaller(monkeypatch, periodic, INTERVALS=2, LABELS=1, SETTLE=2, EVERY=2, STEPS=4)
    made = loop()
    starts = []
    walk = periodic.settled

    def settled(loop, model, start, **plan):
        frames = walk(loop, model, start, **plan)
        starts.append((frame_hash(start), frame_hash(frames[-1])))
        return frames

    monkeypatch.setattr(periodic, "settled", settled)
    periodic.periodic(made, made.unrefined([]), tmp_path, seed=0)
    assert starts[1][0] == starts[0][1]
    starts.clear()
    periodic.naive(made, made.unrefined([]), tmp_path, seed=0)
    assert starts[1][0] not in starts[0]
