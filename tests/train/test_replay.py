"""Replayed frames: what the foundation says of them is what they are labelled with; kept on disk; files on its scale."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk

from aldriver.core.errors import InputError
from aldriver.core.frames import write_frames
from aldriver.core.recipe_train import Replay
from aldriver.train.replay import MAX_FORCE_EV_A, PER_ELEMENT, replay_frames

SELF = Replay(source="self", elements=["Cu"])


@pytest.fixture(scope="module")
def own(chgnet020):
    return replay_frames(chgnet020, {"Fe"}, SELF, seed=0)


def test_labels_are_the_foundations_own(own, chgnet020):
    for atoms, p in zip(own, chgnet020.evaluate(own), strict=True):
        assert atoms.get_potential_energy() == pytest.approx(p.energy, abs=1e-4)
        np.testing.assert_allclose(atoms.get_forces(), p.forces, atol=1e-4)
        np.testing.assert_allclose(atoms.get_stress(), p.stress, atol=1e-4)
        assert np.abs(p.forces).max() <= MAX_FORCE_EV_A


def test_campaign_and_chosen_elements_are_covered(own):
    elements = [next(iter(set(a.get_chemical_symbols()))) for a in own]
    assert set(elements) == {"Fe", "Cu"}
    assert PER_ELEMENT / 2 <= elements.count("Fe") <= PER_ELEMENT
    assert all("head" not in a.info for a in own)


def test_neighbours_by_default(chgnet020):
    frames = replay_frames(chgnet020, {"Li"}, Replay(source="self"), seed=0)
    assert {s for a in frames for s in a.get_chemical_symbols()} >= {"Li", "Be", "H"}


def test_none_is_none(chgnet020):
    assert replay_frames(chgnet020, {"Fe"}, Replay(source="none"), seed=0) == []


def test_separate_heads_are_marked(eam_fe):
    frames = replay_frames(eam_fe, {"Fe"}, Replay(source="self", heads="separate"), seed=0)
    assert {a.info["head"] for a in frames} == {"pt_head"}


def test_the_cache_gives_the_same_frames_without_a_calculation(eam_fe, tmp_path, monkeypatch):
    cache = tmp_path / "replay.extxyz"
    first = replay_frames(eam_fe, {"Fe"}, Replay(source="self"), seed=0, cache=cache)
    monkeypatch.setattr(type(eam_fe), "evaluate", lambda *a, **k: pytest.fail("the cache was not used"))
    second = replay_frames(eam_fe, {"Fe"}, Replay(source="self"), seed=0, cache=cache)
    for a, b in zip(first, second, strict=True):
        assert a.get_potential_energy() == b.get_potential_energy()
        np.testing.assert_array_equal(a.positions, b.positions)
        np.testing.assert_array_equal(a.get_forces(), b.get_forces())
    assert not list(tmp_path.glob("*.tmp"))


def test_a_cache_of_another_seed_or_a_damaged_one_is_replaced(eam_fe, tmp_path):
    cache = tmp_path / "replay.extxyz"
    one = replay_frames(eam_fe, {"Fe"}, Replay(source="self"), seed=0, cache=cache)
    two = replay_frames(eam_fe, {"Fe"}, Replay(source="self"), seed=1, cache=cache)
    assert np.abs(one[0].positions - two[0].positions).max() > 1e-3
    cache.write_text(cache.read_text()[:300])
    again = replay_frames(eam_fe, {"Fe"}, Replay(source="self"), seed=1, cache=cache)
    np.testing.assert_array_equal(again[0].positions, two[0].positions)


def test_a_foundation_that_knows_nothing_of_it(eam_fe):
    with pytest.raises(InputError, match="no general cells for W"):
        replay_frames(eam_fe, {"W"}, Replay(source="self", elements=["Mo"]), seed=0)


def test_a_file_is_put_on_the_foundations_scale(chgnet020, iron, tmp_path):
    frames = iron(4)
    write_frames(tmp_path / "general.extxyz", frames)
    replayed = replay_frames(chgnet020, {"Fe"}, Replay(source=tmp_path / "general.extxyz"), seed=0)
    own = [p.energy for p in chgnet020.evaluate(replayed)]
    assert np.mean([a.get_potential_energy() - e for a, e in zip(replayed, own, strict=True)]) == pytest.approx(
        0, abs=1e-3
    )
    for old, new in zip(frames, replayed, strict=True):
        moved = new.get_potential_energy() - old.get_potential_energy()
        assert new.info["e0_shift_eV"] == pytest.approx(moved, abs=1e-6) and abs(moved) > 1.0
        np.testing.assert_allclose(new.get_forces(), old.get_forces(), atol=1e-6)


@pytest.mark.parametrize(
    "content", [None, "", '1\nLattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3\nFe 0 0 0\n']
)
def test_files_that_are_missing_empty_or_unlabelled(content, chgnet020, tmp_path):
    path = tmp_path / "general.extxyz"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match="general.extxyz"):
        replay_frames(chgnet020, {"Fe"}, Replay(source=path), seed=0)


def test_copper_lies_where_chgnet_has_it(own):
    volumes = [a.get_volume() / len(a) for a in own if a.info["prototype"] == "fcc-Cu"]
    assert np.mean(volumes) == pytest.approx(bulk("Cu").get_volume(), rel=0.1)
