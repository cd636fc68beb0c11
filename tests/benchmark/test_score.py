"""Scores on a fixed scale, and Radova's figure of merit."""

from __future__ import annotations

import pytest

from aldriver.benchmark.score import base_name, deviation, figures_of_merit, scale_of, score, total

C44, EF = ("bcc-Fe", "c44"), ("bcc-Fe", "vacancy_formation_energy")


def test_good_scores_one_bad_scores_zero_and_half_way_one_half():
    scale = scale_of("c44")
    assert score("c44", scale.good) == score("c44", 0.0) == 1.0
    assert score("c44", scale.bad) == score("c44", -9.0) == score("c44", None) == 0.0
    assert score("c44", -(scale.good + scale.bad) / 2) == pytest.approx(0.5)


def test_energy_differences_near_zero_are_judged_in_absolute_terms():
    name = "binding_energy(Cu-Ni,2)"
    assert base_name(name) == "binding_energy"
    assert deviation(name, 0.05, 0.0) == pytest.approx(0.1)  # 50 meV of 0.5 eV
    assert deviation(name, 0.002, 0.001) == pytest.approx(0.002)  # twice the reference, and yet 1 meV
    assert deviation("vacancy_formation_energy", 2.0, 2.5) == pytest.approx(-0.2)
    assert deviation("something_new", 1.0, 0.0) is None


def test_many_variants_count_as_one_property():
    bindings = {("bcc-Fe", f"binding_energy(Cu-Ni,{k})"): 0.0 for k in range(390)}
    found = total(bindings | {C44: None})
    assert found.value == pytest.approx(0.5)
    assert (found.judged, found.missing) == (391, 1)
    assert total({}).value is None


def test_the_figure_of_merit_is_the_equation_of_the_paper():
    # errors 1, 2, 5 in one property and 4, 4, 2 in the other: (5-1)/(5-1), (5-2)/(5-1), 0 and 0, 0, 1
    models = {
        "a": {C44: 0.1, EF: -0.4},
        "b": {C44: -0.2, EF: 0.4},
        "c": {C44: 0.5, EF: 0.2},
    }
    merit = figures_of_merit(models)
    assert merit == pytest.approx({"a": 0.5, "b": 0.375, "c": 0.5})


def test_the_figure_of_merit_moves_with_the_group_and_the_fixed_score_does_not():
    two = {"a": {C44: 0.1}, "b": {C44: 0.2}}
    three = two | {"c": {C44: 0.6}}
    assert figures_of_merit(two)["b"] == 0.0
    assert figures_of_merit(three)["b"] == pytest.approx(0.8)
    assert total(two["b"]) == total(three["b"])


def test_missing_values_are_the_worst_and_equals_are_all_best():
    merit = figures_of_merit({"a": {C44: 0.1, EF: 0.1}, "b": {C44: 0.1, EF: None}, "c": {EF: 0.3}})
    assert merit == pytest.approx({"a": 1.0, "b": 0.5, "c": 0.0})
    assert figures_of_merit({"alone": {C44: 0.1}}) == {"alone": None}
    assert figures_of_merit({"a": {C44: None}, "b": {C44: None}}) == {"a": None, "b": None}
