"""The energy scale of a campaign: labels and test set are corrected (MP2020) both or neither, from first to last."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.spacegroup import crystal

from aldriver.core.errors import InputError
from aldriver.core.frames import label_of, write_frames
from aldriver.core.store import publish
from aldriver.label import make_labeler
from aldriver.workflow import storing
from aldriver.workflow.campaign import create
from aldriver.workflow.stage_label import label_limits

OXYGEN = -0.687  # eV/atom: Wang et al., Sci. Rep. 11, 15496 (2021), Table 1
MAGNESIA = bulk("MgO", "rocksalt", a=4.212)
HAEMATITE = crystal(
    ["Fe", "O"], [(0, 0, 0.3553), (0.3059, 0, 0.25)], spacegroup=167, cellpar=[5.035, 5.035, 13.747, 90, 90, 120]
)


def labelled(atoms: Atoms, level: str | None) -> Atoms:
    out = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)
    out.calc = SinglePointCalculator(out, energy=-6.0 * len(out), forces=np.zeros((len(out), 3)))
    out.info = {"level": level} if level else {}
    return out


@pytest.fixture
def magnesia(write_recipe, tmp_path):
    """A campaign of magnesia by VASP with these labels and test frames; ``LEVEL`` stands for its level of theory."""

    def make(labels, test, *, potential="chgnet:0.3.0", system=MAGNESIA):
        write_frames(tmp_path / "system.extxyz", [labelled(system, None)])
        vasp = {"command": "vasp_std", "version": "6.4", "kpoints": [2, 2, 2], "spin": False}
        recipe = write_recipe(
            potential=potential,
            systems=[{"name": "oxide", "file": str(tmp_path / "system.extxyz")}],
            label={"engine": "vasp", "vasp": vasp},
        )
        made = create(recipe, tmp_path / "campaign")
        level = make_labeler(made.recipe.label, ["Mg", "O"])[1].level
        for stage, name, frames in (((1, "label"), "dataset", labels), ((0, "reference"), "test", test)):
            with publish(made.stage(*stage)) as tmp:
                write_frames(
                    tmp / f"{name}.extxyz", [labelled(a, level if how == "LEVEL" else how) for a, how in frames]
                )
        return made

    return make


def energies(campaign):
    """Energy per atom of the first label and of the first test frame, as potentials learn them."""
    frames = (storing.labelled_frames(campaign, 1)[0][0], storing.test_frames(campaign)[0])
    return [label_of(a, "energy") / len(a) for a in frames]


CORRECTED = -6.0 + OXYGEN / 2


@pytest.mark.parametrize(
    ("test", "potential", "expected"),
    [
        ((MAGNESIA, "LEVEL"), "chgnet:0.3.0", CORRECTED),
        ((MAGNESIA, None), "chgnet:0.3.0", -6.0),  # nobody knows how it was computed
        ((MAGNESIA, "espresso: PBE, plane waves 40 Ry (0badcafe)"), "chgnet:0.3.0", -6.0),
        ((HAEMATITE, "LEVEL"), "chgnet:0.3.0", -6.0),  # without U it has no correction
        ((MAGNESIA, "LEVEL"), "chgnet:r2scan", -6.0),
    ],
)
def test_labels_and_test_set_are_corrected_both_or_neither(magnesia, test, potential, expected):
    campaign = magnesia([(MAGNESIA, "LEVEL")], [test], potential=potential)
    assert energies(campaign) == pytest.approx([expected, expected])


def test_systems_without_a_correction_leave_everything_as_computed(magnesia):
    campaign = magnesia([(MAGNESIA, "LEVEL")], [(MAGNESIA, "LEVEL")], system=HAEMATITE)
    assert energies(campaign) == pytest.approx([-6.0, -6.0])


def test_a_label_that_cannot_follow_is_an_error_in_words(magnesia):
    campaign = magnesia([(MAGNESIA, "LEVEL"), (HAEMATITE, "LEVEL")], [(MAGNESIA, "LEVEL")])
    with pytest.raises(InputError, match=r"MP2020.*Fe12O18: no MP2020 correction"):
        storing.labelled_frames(campaign, 1)


def test_labels_are_judged_by_the_energies_as_computed(magnesia):
    campaign = magnesia([(MAGNESIA, "LEVEL")], [(MAGNESIA, "LEVEL")])
    reference = label_limits(campaign, 2).reference
    assert reference.offset_eV_atom(MAGNESIA, -12.0) == pytest.approx(0.0, abs=1e-6)
