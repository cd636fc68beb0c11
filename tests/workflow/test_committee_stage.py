"""A generation's committee: who becomes a member, and what happens when none does."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from aldriver.core.errors import AldriverError, InputError
from aldriver.core.recipe import load_recipe
from aldriver.core.recipe_train import Train
from aldriver.workflow.stage_train import _committee


def result(loss: float, name: str, *, accepted: bool = True) -> SimpleNamespace:
    return SimpleNamespace(accepted=accepted, reason="no better", after={"loss": loss}, potential=name)


def committee(monkeypatch, tmp_path, losses, first=1.0):
    """Members trained with seeds 11, 12, ... end with these validation losses (None: training was refused)."""
    seeds = []

    def train(start, known, valid, settings, out, *, seed, **common):
        seeds.append((seed, out.name, common))
        loss = losses[len(seeds) - 1]
        return result(loss or 9.0, f"potential {seed}", accepted=loss is not None)

    monkeypatch.setattr("aldriver.train.train", train)
    args = (result(first, "accepted"), "start", ([], []), Train(), 1 + len(losses), tmp_path, 10, {"name": "tiny"})
    return _committee(*args), seeds


def test_members_have_seeds_of_their_own_and_are_as_good_as_the_best(monkeypatch, tmp_path):
    (best, members, facts), seeds = committee(monkeypatch, tmp_path, [1.05, 1.5, None])
    assert seeds == [(10 + k, f"member-{k}", {"name": "tiny"}) for k in (1, 2, 3)]
    assert best.potential == "accepted" and members == ["potential 11"] and facts["size"] == 2
    assert "1.2 times the best" in facts["refused"]["member-2"] and facts["refused"]["member-3"] == "no better"


def test_the_best_one_is_the_potential_that_goes_on(monkeypatch, tmp_path):
    (best, members, facts), _ = committee(monkeypatch, tmp_path, [1.0, 1.1], first=1.6)
    assert best.potential == "potential 11" and members == ["potential 12"]
    assert list(facts["refused"]) == ["member-0"]


def test_a_committee_of_one_is_an_error(monkeypatch, tmp_path):
    with pytest.raises(AldriverError, match="1 of 3 potentials are fit for a committee"):
        committee(monkeypatch, tmp_path, [1.5, None])


def test_the_foundation_needs_another_signal(write_recipe):
    assert load_recipe(write_recipe(detect={"signals": ["soap_q", "committee"]})).detect.committee == 3
    with pytest.raises(InputError, match="the foundation has no committee"):
        load_recipe(write_recipe(detect={"signals": ["committee"]}))


def test_the_foundation_is_guarded_by_the_other_signals(write_recipe):
    detect = load_recipe(
        write_recipe(detect={"signals": ["soap_q", "committee"], "score": "committee"})
    ).detect.without_committee()
    assert detect.signals == ["soap_q"] and detect.score == "fused"
