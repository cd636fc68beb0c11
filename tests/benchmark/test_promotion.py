from __future__ import annotations

import math

import pytest

from aldriver.benchmark.gate import GenerationScore, compare, decide
from aldriver.core.recipe import Gate, Stop
from aldriver.core.records import PropertyRecord, dumps

REFERENCE = {"bcc-Fe": {"bulk_modulus": 177.0, "c44": 116.0, "vacancy_formation_energy": 1.72}}


def records(*, unconverged=(), **values):
    units = {"vacancy_formation_energy": "eV"}
    return [
        PropertyRecord(
            property=name,
            case="bcc-Fe",
            value=value,
            unit=units.get(name, "GPa"),
            converged=name not in unconverged,
            reason="the relaxation stopped after 200 steps" if name in unconverged else "",
        )
        for name, value in values.items()
    ]


GOOD = {"bulk_modulus": 176.0, "c44": 112.0, "vacancy_formation_energy": 1.70}
FOUNDATION = {"bulk_modulus": 182.0, "c44": 55.0, "vacancy_formation_energy": 0.73}


def score(name, rmse, rows=(), **options):
    return GenerationScore(
        name=name, evaluation={"forces_rmse_meV_A": rmse}, held_out="test set", records=rows, **options
    )


def judge(new, promoted, *, gate=None, stop=None, generation=1, labels=20, reference=REFERENCE):
    decision = decide(new, promoted, reference, gate or Gate(), stop or Stop(generations=9), generation, labels)
    assert "\n" not in decision.reason
    assert decision.reason
    assert bool(decision.stop_reason) == decision.stop
    dumps(decision)
    return decision


def test_a_better_generation_is_promoted_with_its_numbers():
    found = judge(score("generation 1", 61.0, records(**GOOD)), score("foundation", 240.0, records(**FOUNDATION)))
    assert (found.decision, found.stop) == ("promote", False)
    assert "force error on the test set 240 → 61 meV/Å (×0.25)" in found.reason
    assert "C44 of bcc-Fe 55 → 112 GPa (reference 116: off by 52.6% → 3.4%)" in found.reason
    assert found.numbers["force_rmse_ratio"] == pytest.approx(61 / 240)
    vacancy = found.numbers["properties"]["bcc-Fe/vacancy_formation_energy"]
    assert vacancy["deviation"] == pytest.approx(0.02 / 1.72)
    assert vacancy["promoted_deviation"] == pytest.approx(0.99 / 1.72)


@pytest.mark.parametrize("rmse", [60.0, 60.001, 80.0])
def test_not_better_is_held(rmse):
    found = judge(score("generation 2", rmse, records(**GOOD)), score("generation 1", 60.0, records(**GOOD)))
    assert found.decision == "hold"
    assert "needed below ×1 of generation 1" in found.reason


def test_the_ratio_of_the_recipe_counts():
    new, old = score("generation 2", 55.0), score("generation 1", 60.0)
    assert judge(new, old, gate=Gate(max_force_rmse_ratio=0.9)).decision == "hold"
    assert judge(new, old, gate=Gate(max_force_rmse_ratio=0.95)).decision == "promote"
    assert judge(score("generation 2", 65.0), old, gate=Gate(max_force_rmse_ratio=1.2)).decision == "promote"


def test_much_worse_is_rolled_back():
    found = judge(score("generation 2", 91.0), score("generation 1", 60.0))
    assert found.decision == "rollback"
    assert found.reason.startswith("rolled back to generation 1: ")
    assert "×1.52" in found.reason
    assert (
        judge(score("generation 2", 91.0), score("generation 1", 60.0), gate=Gate(rollback_ratio=2)).decision == "hold"
    )


def test_a_property_that_got_worse_holds():
    worse = GOOD | {"vacancy_formation_energy": 1.40}
    found = judge(score("generation 2", 50.0, records(**worse)), score("generation 1", 60.0, records(**GOOD)))
    assert found.decision == "hold"
    assert "vacancy formation energy of bcc-Fe 1.7 → 1.4 eV (reference 1.72: off by 1.2% → 18.6%)" in found.reason
    assert "more than 10% further off than with generation 1" in found.reason
    patient = Gate(max_property_worsening=0.2)
    new, old = score("generation 2", 50.0, records(**worse)), score("generation 1", 60.0, records(**GOOD))
    assert judge(new, old, gate=patient).decision == "promote"


def test_a_property_may_be_far_off_while_it_does_not_get_worse():
    rows = GOOD | {"c44": 60.0}
    found = judge(score("generation 1", 61.0, records(**rows)), score("foundation", 240.0, records(**FOUNDATION)))
    assert found.decision == "promote"


def test_an_unconverged_property_holds_unless_it_was_so_before():
    bad = records(unconverged=("c44",), **GOOD)
    found = judge(score("generation 2", 50.0, bad), score("generation 1", 60.0, records(**GOOD)))
    assert found.decision == "hold"
    assert "no trusted C44 of bcc-Fe any more (the relaxation stopped after 200 steps)" in found.reason
    assert judge(score("generation 2", 50.0, bad), score("generation 1", 60.0, bad)).decision == "promote"


def test_a_missing_property_holds():
    fewer = records(**{k: v for k, v in GOOD.items() if k != "c44"})
    found = judge(score("generation 2", 50.0, fewer), score("generation 1", 60.0, records(**GOOD)))
    assert found.decision == "hold"
    assert "it was not computed" in found.reason


@pytest.mark.parametrize("rmse", [None, math.nan, math.inf])
def test_a_force_error_that_is_no_number_holds(rmse):
    found = judge(score("generation 1", rmse, records(**GOOD)), score("foundation", 240.0))
    assert found.decision == "hold"
    assert "not a finite number" in found.reason
    assert found.numbers["force_rmse_meV_A"] is None


def test_a_property_that_is_nan_holds():
    nan = records(**(GOOD | {"c44": math.nan}))
    found = judge(score("generation 2", 50.0, nan), score("generation 1", 60.0, records(**GOOD)))
    assert found.decision == "hold"
    assert "C44" in found.reason


def test_training_that_was_not_accepted_holds():
    new = score("generation 1", 61.0, accepted=False, reason="validation error rose from 80 to 90 meV/Å")
    assert judge(new, score("foundation", 240.0)).reason == "held: validation error rose from 80 to 90 meV/Å"
    assert judge(score("g", 1.0, accepted=False), score("foundation", 2.0)).decision == "hold"


def test_nothing_to_compare_with_promotes():
    assert judge(score("generation 1", 61.0), score("foundation", None)).decision == "promote"
    assert judge(score("generation 1", 61.0), score("foundation", 240.0), reference={}).decision == "promote"


def test_a_reference_of_records_leaves_out_what_is_not_trusted():
    reference = records(unconverged=("c44",), **GOOD)
    found = compare(records(**GOOD), records(**FOUNDATION), reference)
    assert [d.name for d in found] == ["bulk_modulus", "vacancy_formation_energy"]
    other_case = compare(records(**GOOD), records(**FOUNDATION), {"fcc-Cu": {"c44": 76.0}})
    assert other_case == []


def test_a_zero_reference_is_not_divided_by():
    found = compare(records(c11=1.0), records(c11=2.0), {"bcc-Fe": {"c11": 0.0}})
    assert found[0].new_deviation is None
    assert found[0].growth == 0.0
    new, old = score("generation 1", 1.0, records(c11=1.0)), score("foundation", 2.0, records(c11=2.0))
    assert judge(new, old, reference={"bcc-Fe": {"c11": 0.0}}).decision == "promote"


def test_the_last_generation_stops_and_says_what_became_of_it():
    stop = Stop(generations=3)
    better = judge(score("generation 3", 30.0), score("generation 2", 40.0), stop=stop, generation=3)
    assert (better.decision, better.stop) == ("promote", True)
    assert better.stop_reason == "all 3 generations are done"
    worse = judge(score("generation 3", 45.0), score("generation 2", 40.0), stop=stop, generation=3)
    assert (worse.decision, worse.stop) == ("hold", True)
    assert not judge(score("generation 2", 30.0), score("generation 1", 40.0), stop=stop, generation=2).stop


def test_spent_labels_stop():
    stop = Stop(generations=9, max_labels=60)
    new, old = score("generation 2", 30.0), score("generation 1", 40.0)
    assert not judge(new, old, stop=stop, labels=59).stop
    assert judge(new, old, stop=stop, labels=60).stop_reason == "all 60 labels are spent"


def test_a_reached_target_stops_only_with_the_potential_that_reached_it():
    stop = Stop(generations=9, force_rmse_meV_A=40)
    reached = judge(score("generation 2", 38.0), score("generation 1", 60.0), stop=stop)
    assert (reached.decision, reached.stop) == ("promote", True)
    assert "generation 2 on the test set, 38 meV/Å, has reached the target of 40 meV/Å" in reached.stop_reason
    new = score("generation 2", 38.0, records(**(GOOD | {"c44": 50.0})))
    held = judge(new, score("generation 1", 60.0, records(**GOOD)), stop=stop)
    assert (held.decision, held.stop) == ("hold", False)
