"""The aluminium recipe: its cell is fcc, its vacancies are far apart, and it says truly which functional it uses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.neighborlist import neighbor_list

from aldriver.core.recipe import load_recipe
from aldriver.core.systems import build_systems

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "al_vacancy_qe.yaml"


def test_the_cell_is_fcc_and_keeps_vacancies_apart():
    bulk, vacancy = build_systems(load_recipe(RECIPE))
    assert (len(bulk), len(vacancy)) == (16, 15)
    a = (4 * bulk.get_volume() / len(bulk)) ** (1 / 3)
    i, d = neighbor_list("id", bulk, 1.01 * a)
    for shell, count in ((a / np.sqrt(2), 12), (a, 6)):
        assert np.bincount(i[np.isclose(d, shell, atol=1e-4)], minlength=16).tolist() == [count] * 16
    assert len(i) == 16 * 18
    images = neighbor_list("d", bulk[:1], 3 * a)
    assert images.min() == pytest.approx(np.sqrt(3) * a, abs=1e-4)


@pytest.mark.dft
def test_the_pseudopotential_is_the_lda_one_that_the_recipe_speaks_of():
    from aldriver.label import make_labeler

    settings = load_recipe(RECIPE).label
    assert settings.espresso is not None
    if not (settings.espresso.pseudo_dir / "Al.pz-vbc.UPF").is_file():
        pytest.skip("the pseudopotential Al.pz-vbc.UPF is not installed")
    _, spec = make_labeler(settings, ["Al"])
    assert "LDA" in spec.level and "an LDA one" in RECIPE.read_text()
