from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from aldriver.core.errors import AldriverError, InputError
from aldriver.core.recipe_train import Train
from aldriver.train import TrainResult
from aldriver.train.base import make_adapter
from aldriver.train.committee import choose, subset, train_committee


def outcome(loss: float | None, *, accepted: bool = True) -> TrainResult:
    errors = {"loss": loss}
    return TrainResult(
        potential=None,
        accepted=accepted,
        reason="told",
        history=[],
        e0_shift=None,
        before=errors,
        after=errors,
        seconds=0,
    )


def test_members_far_from_the_best_are_refused_by_name():
    results = {"member-0": outcome(1.0), "member-1": outcome(1.19), "member-2": outcome(1.21)}
    committee = choose(results | {"member-3": outcome(0.9, accepted=False), "member-4": outcome(None, accepted=False)})
    assert committee.members == [results["member-0"], results["member-1"]]
    assert set(committee.refused) == {"member-2", "member-3", "member-4"}
    assert "1.21, more than 1.2 times the best" in committee.refused["member-2"]
    assert committee.refused["member-3"] == "told"


def test_members_of_a_committee_of_seeds_differ(chgnet020, iron, settings, tmp_path):
    frames = iron(4)
    seen = []
    arguments = (chgnet020, frames, frames, settings(epochs=3), tmp_path)
    committee = train_committee(*arguments, size=2, seed=5, on_epoch=seen.append)
    one, two = committee.members
    assert one.potential.fingerprint != two.potential.fingerprint
    assert one.after["loss"] <= two.after["loss"]
    assert committee.refused == {}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["member-0", "member-1"]
    assert [line["member"] for line in seen] == ["member-0"] * 3 + ["member-1"] * 3
    again = train_committee(*arguments, size=2, seed=5, on_epoch=seen.append)
    assert len(seen) == 6, "nothing is trained twice"
    assert [m.potential.fingerprint for m in again.members] == [one.potential.fingerprint, two.potential.fingerprint]


def test_members_search_different_subspaces(chgnet020):
    """Low-rank factors that started from the same numbers would make one member of them all."""
    lora, started = Train(strategy="lora"), []
    for seed in (5, 5, 6):
        adapter = make_adapter(chgnet020)
        names = [n for n in adapter.set_trainable(lora, seed=seed) if ".lora_A." in n]
        started.append(torch.cat([adapter.module.get_parameter(n).detach().flatten() for n in names]))
    assert torch.equal(started[0], started[1])
    assert abs(float(torch.corrcoef(torch.stack([started[0], started[2]]))[0, 1])) < 0.1


@pytest.mark.parametrize("allowed", [False, True])
def test_fewer_members_than_asked_for(monkeypatch, tmp_path, iron, settings, chgnet020, allowed):
    losses = iter([1.0, 5.0, 1.1])

    def fake(*arguments, **options):
        return replace(outcome(next(losses)), potential=options["name"])

    monkeypatch.setattr("aldriver.train.committee.train", fake)
    arguments = (chgnet020, iron(2), iron(2), settings(), tmp_path)
    if allowed:
        committee = train_committee(*arguments, size=3, seed=0, allow_fewer=True)
        assert [m.potential.split()[-1] for m in committee.members] == ["member-0", "member-2"]
        assert list(committee.refused) == ["member-1"]
    else:
        with pytest.raises(AldriverError, match=r"2 of 3 members are fit .*member-1: validation loss 5"):
            train_committee(*arguments, size=3, seed=0)


def test_subsets_leave_out_whole_groups_and_differ(iron):
    frames = iron(40)  # groups of two
    seen = []
    for member in range(5):
        chosen = subset(frames, seed=3, member=member, size=5)
        left = [i for i, atoms in enumerate(frames) if not any(atoms is c for c in chosen)]
        assert len(left) == 4
        assert {frames[i].info["group"] for i in left}.isdisjoint({a.info["group"] for a in chosen})
        seen.append(tuple(left))
    assert len(set(seen)) == 5
    with pytest.raises(InputError, match="at least 5 groups"):
        subset(frames[:4], seed=3, member=0, size=5)


def test_a_committee_of_one_is_refused(chgnet020, iron, settings, tmp_path):
    with pytest.raises(InputError, match="no spread"):
        train_committee(chgnet020, iron(2), iron(2), settings(), tmp_path, size=1, seed=0)
