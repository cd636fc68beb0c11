from __future__ import annotations

import numpy as np
import pytest

from aldriver.benchmark import relax, vacancy
from aldriver.benchmark.bench import Bench
from aldriver.benchmark.cases import case_by_name, conventional_cell
from aldriver.benchmark.lattice import relax_lattice
from aldriver.benchmark.relax import relax_positions
from aldriver.benchmark.vacancy import vacancy_formation
from aldriver.core.errors import AldriverError


def test_bcc_iron(fe, bcc_fe):
    found = vacancy_formation(Bench(fe), bcc_fe, relax_lattice(fe, bcc_fe).a)
    assert found.n_sites == 54
    assert found.energy == pytest.approx(1.72, abs=0.005)  # Mendelev 2003, potential 2
    assert found.relaxation.converged
    assert found.relaxation.fmax <= vacancy.FORCE_TOLERANCE


def test_fcc_copper(cu, fcc_cu):
    found = vacancy_formation(Bench(cu), fcc_cu, relax_lattice(cu, fcc_cu).a)
    assert found.energy == pytest.approx(1.27, abs=0.01)  # Mishin 2001, EAM1: 1.272 eV


def test_diamond_silicon(chgnet030):
    potential = chgnet030
    case = case_by_name("diamond-Si")
    a = relax_lattice(potential, case).a
    found = vacancy_formation(Bench(potential), case, a)
    assert found.relaxation.converged
    unrelaxed = conventional_cell(case, a).repeat(2)
    n, bulk = len(unrelaxed), potential.evaluate([unrelaxed])[0].energy
    del unrelaxed[0]
    assert found.energy < potential.evaluate([unrelaxed])[0].energy - (n - 1) / n * bulk
    assert 0.3 < found.energy < 4.0  # soft: DFT has 3.2 to 3.7 eV


def test_the_energy_is_that_of_any_other_optimiser(fe, bcc_fe):
    a = relax_lattice(fe, bcc_fe).a
    energies = {name: vacancy_formation(Bench(fe), bcc_fe, a, optimizer=name).energy for name in relax.OPTIMIZERS}
    assert np.ptp(list(energies.values())) < 1e-3


def test_lbfgs_takes_the_fewest_force_calls(fe, bcc_fe):
    bench, calls = Bench(fe), {}
    for name in relax.OPTIMIZERS:
        with bench.measure() as spent:
            vacancy_formation(bench, bcc_fe, 2.8553, optimizer=name)
        calls[name] = spent.force_calls
    assert calls["lbfgs"] == min(calls.values()) < 0.7 * calls["fire"]


def test_the_perfect_cell_costs_nothing(fe, bcc_fe):
    """E(N) and the relaxed lattice are consistent: no force acts before the atom is taken out."""
    perfect = conventional_cell(bcc_fe, relax_lattice(fe, bcc_fe).a).repeat(3)
    found = relax_positions(fe, perfect, fmax=1e-6)
    assert (found.steps, found.last_gain) == (0, 0.0)


def test_step_limit_is_not_convergence(fe, bcc_fe, monkeypatch):
    found = vacancy_formation(Bench(fe), bcc_fe, 2.8553, max_steps=2)
    assert not found.relaxation.converged
    monkeypatch.setattr(vacancy, "FORCE_TOLERANCE", 1e-12)
    monkeypatch.setattr(vacancy, "vacancy_formation", lambda *args: vacancy_formation(*args, fmax=1e-12, max_steps=3))
    value = vacancy.compute(Bench(fe), bcc_fe, 2.8553)[0]
    assert not value.converged
    assert "stopped after 3 steps" in value.reason
    assert value.cost.force_calls == 5  # the perfect cell, the start and three steps


def test_the_input_is_not_moved(fe, bcc_fe):
    cell = conventional_cell(bcc_fe, 2.9).repeat(2)
    del cell[0]
    before = cell.positions.copy()
    relax_positions(fe, cell, fmax=1e-2)
    assert (cell.positions == before).all()


def test_nan_forces_end_the_relaxation(fe, bcc_fe, changed):
    import dataclasses

    def break_after(atoms, p):
        moved = len(atoms) == 53 and potential.calls > 4
        return dataclasses.replace(p, forces=p.forces * np.nan) if moved else p

    potential = changed(fe, break_after)
    with pytest.raises(AldriverError, match="forces that are not finite"):
        vacancy_formation(Bench(potential), bcc_fe, 2.8553)
