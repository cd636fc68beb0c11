"""Second starts: every engine with spin can start again from other moments, and without spin says that it cannot."""

from __future__ import annotations

import pytest

from aldriver.core.recipe_label import Label
from aldriver.label import make_labeler

BLOCKS = {
    "vasp": {"potcars": {"Fe": "Fe_pv"}, "kpoints": (1, 1, 1), "spin": True},
    "gpaw": {"ecut_eV": 300, "kpoints": (1, 1, 1), "spin": True},
    "espresso": {"pseudopotentials": {"Fe": "none.upf"}, "ecutwfc_Ry": 30, "kpoints": (1, 1, 1), "spin": True},
}


@pytest.mark.parametrize("engine", BLOCKS)
def test_the_second_start_changes_the_moments_and_nothing_else(engine):
    block = Label(engine=engine, **{engine: BLOCKS[engine]})
    labeler, _ = make_labeler(block, ["Fe"])
    other = labeler.with_start({"Fe": 0.4})
    settings = {
        name: vars(one)["gpaw" if engine == "gpaw" else "settings"] for name, one in (("a", labeler), ("b", other))
    }
    before, after = settings["a"].model_dump(), settings["b"].model_dump()
    changed = {key for key in before if before[key] != after[key]}
    assert len(changed) == 1 and after[changed.pop()] == {"Fe": 0.4}
    labeler.cancel()
    assert other.cancelled  # whoever stops the first stops the second


@pytest.mark.parametrize("engine", BLOCKS)
def test_without_spin_there_is_none(engine):
    labeler, _ = make_labeler(Label(engine=engine, **{engine: BLOCKS[engine] | {"spin": False}}), ["Fe"])
    assert labeler.with_start({"Fe": 0.4}) is None
