"""Self-interstitials against published energies of classical potentials, and their recognition."""

from __future__ import annotations

import numpy as np
import pytest

from aldriver.benchmark import self_interstitial
from aldriver.benchmark.bench import Bench
from aldriver.benchmark.cases import case_by_name
from aldriver.benchmark.lattice import relax_lattice
from aldriver.benchmark.self_interstitial import configurations, found_configuration, with_interstitial


def by_name(values):
    return {v.property.partition("(")[2].rstrip(")"): v for v in values}


def test_iron(fe):
    """⟨110⟩ below ⟨111⟩, in DFT by 0.7 eV (Fu et al. 2004, abstract); 3.5 eV of ⟨110⟩ are as we know the potential."""
    found = by_name(self_interstitial.compute(Bench(fe), case_by_name("bcc-Fe"), 2.8553))
    assert all(v.converged for v in found.values())
    assert found["110"].value < found["111"].value < found["100"].value
    assert found["110"].value == pytest.approx(3.5, abs=0.1)
    assert found["111"].value - found["110"].value == pytest.approx(0.5, abs=0.05)


def test_copper(cu):
    """3.12 eV in Lysogorskiy et al., npj Comput. Mater. 7, 97 (2021), Table 1, of the same potential."""
    (value,) = self_interstitial.compute(Bench(cu), case_by_name("fcc-Cu", supercell=(4, 4, 4)), 3.615)
    assert value.converged
    assert value.value == pytest.approx(3.12, abs=0.01)


def test_silicon(sw_si):
    """Stillinger and Weber's potential in 216 sites: libAtoms/silicon-testing-framework@fc252cb, test-results."""
    case = case_by_name("diamond-Si", supercell=(3, 3, 3))
    found = by_name(self_interstitial.compute(Bench(sw_si), case, relax_lattice(sw_si, case).a))
    assert all(v.converged for v in found.values())
    for name, published in {"110": 4.466, "hexagonal": 6.583, "tetrahedral": 4.999}.items():
        assert found[name].value == pytest.approx(published, abs=5e-3)


@pytest.mark.parametrize("name", ["bcc-Fe", "fcc-Cu", "diamond-Si"])
def test_each_configuration_is_recognised_also_when_everything_has_moved(name):
    case = case_by_name(name)
    for configuration in configurations(case):
        atoms = with_interstitial(case, case.a, configuration)
        assert found_configuration(case, case.a, atoms) == configuration
        atoms.rattle(0.05, seed=1)
        atoms.positions += 0.1
        atoms.wrap()
        assert found_configuration(case, case.a, atoms) == configuration
        apart = np.sort(atoms.get_all_distances(mic=True)[np.triu_indices(len(atoms), 1)])
        assert apart[0] > 0.35 * case.a


def test_a_perfect_crystal_holds_none(bcc_fe):
    from aldriver.benchmark.cases import supercell

    assert found_configuration(bcc_fe, 2.8553, supercell(bcc_fe, 2.8553)) == ""


def test_what_relaxes_into_another_one_is_named(fe, bcc_fe, monkeypatch):
    """A ⟨100⟩ dumbbell that is turned a little towards ⟨110⟩ goes there."""
    monkeypatch.setitem(self_interstitial.DIRECTIONS, "100", (1.0, 0.3, 0.0))
    atoms = with_interstitial(bcc_fe, 2.8553, "100")
    monkeypatch.undo()
    monkeypatch.setattr(self_interstitial, "with_interstitial", lambda *_: atoms)
    monkeypatch.setattr(self_interstitial, "configurations", lambda case: ["100"])
    (value,) = self_interstitial.compute(Bench(fe), bcc_fe, 2.8553)
    assert not value.converged
    assert value.reason == "the ⟨100⟩ dumbbell relaxed into the ⟨110⟩ dumbbell"


def test_a_step_limit_is_named(cu, fcc_cu, monkeypatch):
    monkeypatch.setattr(self_interstitial, "MAX_STEPS", 2)
    (value,) = self_interstitial.compute(Bench(cu), fcc_cu, 3.615)
    assert not value.converged
    assert "stopped after 2 steps" in value.reason
