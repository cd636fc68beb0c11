"""Gate rules of the recipe: tolerances by property, and properties that must be there."""

from __future__ import annotations

import pytest

from aldriver.benchmark.gate import GenerationScore, check_rules, decide, shown
from aldriver.core.errors import InputError
from aldriver.core.recipe import Gate, Stop
from aldriver.core.records import PropertyRecord

REFERENCE = {"bcc-Fe": {"lattice_constant": 2.83, "binding_energy(Cu-Ni,1)": 0.0, "c44": 100.0}}
BEFORE = {"lattice_constant": 2.83, "binding_energy(Cu-Ni,1)": 0.0, "c44": 100.0}


def generation(name, rmse, values):
    records = [
        PropertyRecord(
            property=p, case="bcc-Fe", value=v, unit="", converged=v is not None, reason="" if v else "no minimum"
        )
        for p, v in values.items()
    ]
    return GenerationScore(name=name, evaluation={"forces_rmse_meV_A": rmse}, records=records)


def judge(settings, before=None, **after):
    new = generation("generation 1", 50.0, BEFORE | {k.replace("__", "(Cu-Ni,1)"): v for k, v in after.items()})
    return decide(new, generation("the foundation", 90.0, BEFORE if before is None else before), REFERENCE, settings,
                  Stop(generations=9), 1, 20)  # fmt: skip


def test_a_property_may_have_a_tolerance_of_its_own():
    assert judge(Gate(), lattice_constant=2.90).decision == "promote"  # 2.5 %: nothing for C44, absurd for a
    found = judge(Gate(tolerances={"lattice_constant": 0.005}), lattice_constant=2.90)
    assert found.decision == "hold"
    assert "lattice constant of bcc-Fe 2.83 → 2.9" in found.reason
    assert "more than 0.5% further off" in found.reason
    assert judge(Gate(tolerances={"c44": 0.5}), c44=60.0).decision == "promote"


def test_the_rule_that_is_broken_most_is_named():
    found = judge(Gate(tolerances={"lattice_constant": 0.0}), c44=95.0, lattice_constant=2.84)
    assert "lattice constant" in found.reason  # c44 moved farther, within its tolerance


def test_a_variant_wins_over_its_property():
    rules = {"binding_energy": 0.02, "binding_energy(Cu-Ni,1)": 0.5}
    assert judge(Gate(tolerances=rules), binding_energy__=0.1).decision == "promote"
    assert judge(Gate(tolerances={"binding_energy": 0.02}), binding_energy__=0.1).decision == "hold"


def test_a_binding_energy_of_nearly_zero_does_not_hold_on_noise():
    assert judge(Gate(), binding_energy__=0.004).decision == "promote"  # 4 meV where the reference is 0
    assert judge(Gate(), binding_energy__=0.06).decision == "hold"


def test_without_what_must_be_there_a_generation_is_held():
    found = judge(Gate(must_have=["c44"]), before={"lattice_constant": 2.83}, c44=None)
    assert found.decision == "hold"
    assert "gate.must_have: no trusted C44 of bcc-Fe (no minimum)" in found.reason
    assert judge(Gate(must_have=["c44"])).decision == "promote"
    assert "it was not computed" in judge(Gate(must_have=["eos_volume"])).reason


def test_rules_on_what_the_suite_does_not_give_are_refused():
    names = list(BEFORE)
    check_rules(Gate(must_have=["binding_energy", "c44"], tolerances={"binding_energy(Cu-Ni,1)": 1}), names)
    with pytest.raises(InputError, match=r"gate.must_have: the suite gives no 'c45'; it gives binding_energy, c44"):
        check_rules(Gate(must_have=["c45"]), names)
    with pytest.raises(InputError, match=r"gate.tolerances: .*'a0'"):
        check_rules(Gate(tolerances={"a0": 0.1}), names)


def test_names_in_words():
    assert shown("binding_energy(Cu-Ni,1)") == "binding energy (Cu-Ni,1)"
    assert shown("c44") == "C44"
