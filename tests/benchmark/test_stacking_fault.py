from __future__ import annotations

import numpy as np
import pytest
from ase.build import fcc111
from ase.constraints import FixCartesian
from ase.geometry import find_mic
from ase.units import J, m

from aldriver.benchmark import stacking_fault
from aldriver.benchmark.bench import Bench
from aldriver.benchmark.cases import case_by_name, conventional_cell
from aldriver.benchmark.curves import crest
from aldriver.benchmark.lattice import relax_lattice
from aldriver.benchmark.planes import layered
from aldriver.benchmark.stacking_fault import SLIP_LINES, faulted
from aldriver.benchmark.suite import run_suite
from aldriver.benchmark.traction import PLANES
from aldriver.core.recipe_benchmark import Benchmark
from aldriver.core.recipe_extended import StackingFault

ALL_PLANES = [p for planes in PLANES.values() for p in planes] + [
    p.plane for lines in SLIP_LINES.values() for p in lines
]


@pytest.mark.parametrize("plane", ALL_PLANES, ids=lambda p: f"{p.lattice}{p.name}")
def test_a_stack_of_layers_is_the_perfect_crystal(fe, cu, plane):
    potential, case = (fe, case_by_name("bcc-Fe")) if plane.lattice == "bcc" else (cu, case_by_name("fcc-Cu"))
    perfect = conventional_cell(case)
    stack = layered(case, case.a, plane, 7)
    found = potential.evaluate([stack, perfect])
    assert found[0].energy / 7 == pytest.approx(found[1].energy / len(perfect), abs=1e-10)
    assert stack.get_volume() / 7 == pytest.approx(perfect.get_volume() / len(perfect))
    assert plane.area(case.a) * plane.spacing(case.a) == pytest.approx(stack.get_volume() / 7)


def line(potential, case, **options):
    options = StackingFault(**options)
    values = stacking_fault.compute(Bench(potential), case, relax_lattice(potential, case).a, options)
    assert {v.property: v.unit for v in values} == stacking_fault.units(case, options)
    assert all(v.converged and not v.reason for v in values)
    return {v.property: v for v in values}


def test_copper_as_published(cu, fcc_cu):
    """The intrinsic fault: 45 mJ/m² in Lysogorskiy et al., npj Comput. Mater. 7, 97 (2021), Table 1."""
    assert line(cu, fcc_cu)["stacking_fault_energy(111)"].value == pytest.approx(0.045, abs=6e-4)


def test_copper_as_in_a_slab_of_another_make(cu, fcc_cu):
    """Half of a slab with free surfaces is shifted over the other; atoms relax along the normal, and no height is held."""
    a = relax_lattice(cu, fcc_cu).a
    found = line(cu, fcc_cu, thickness_A=48)
    slab = fcc111("Cu", (1, 1, 24), a=a, vacuum=8.0)
    slab.pbc = True
    slab.set_constraint([FixCartesian(k, mask=(True, True, False)) for k in range(len(slab))])
    upper = slab.positions[:, 2] > slab.positions[:, 2].mean()
    layers = slab.positions[np.argsort(slab.positions[:, 2])]
    to_fault, length = find_mic((layers[12] - layers[11]) * [1, 1, 0], slab.cell)  # from A over B to C
    assert length == pytest.approx(a / 6**0.5)
    energies = []
    for x in np.arange(0.0, 1.01, 0.1):
        atoms = slab.copy()
        atoms.positions[upper] += x * to_fault
        energies.append(Bench(cu).relax(atoms, "").energy)
    area = np.linalg.norm(np.cross(slab.cell[0], slab.cell[1]))
    slabs = (np.array(energies) - energies[0]) / area * m**2 / J
    assert slabs[-1] == pytest.approx(found["stacking_fault_energy(111)"].value, rel=0.01)
    assert slabs.max() == pytest.approx(found["unstable_fault_energy(111)"].value, rel=0.01)


def test_a_thicker_crystal_and_finer_steps_change_little(cu, fcc_cu):
    usual, fine = line(cu, fcc_cu), line(cu, fcc_cu, thickness_A=48, intervals=20)
    for name in ("stacking_fault_energy(111)", "unstable_fault_energy(111)"):
        assert usual[name].value == pytest.approx(fine[name].value, rel=0.01)


def test_iron_is_symmetric_where_the_crystal_is(fe, bcc_fe):
    """Shifts of x and 1 - x on {110} are related by the twofold axis of the plane; on {112} one is the twinning sense."""
    a = relax_lattice(fe, bcc_fe).a
    (symmetric, twinning), bench = SLIP_LINES["bcc"], Bench(fe)
    one, other = (bench.relax(faulted(bcc_fe, a, symmetric, x, 12), "").energy for x in (0.3, 0.7))
    assert one == pytest.approx(other, abs=1e-6)
    one, other = (bench.relax(faulted(bcc_fe, a, twinning, x, 12), "").energy for x in (0.3, 0.7))
    assert abs(one - other) > 1e-2
    whole = [bench.energy(faulted(bcc_fe, a, path, x, 12), "") for path in SLIP_LINES["bcc"] for x in (1.0, 0.0)]
    assert np.ptp(whole) < 1e-8  # a whole Burgers vector leaves no fault


def test_a_small_shift_costs_its_square(fe, bcc_fe):
    """No atom moves within the planes: all of the shift lies between two of them, a spring."""
    found = line(fe, bcc_fe, intervals=20)
    small = [found[f"fault_energy(110,{x})"].value for x in ("0.05", "0.1")]
    assert small[1] / small[0] == pytest.approx(4.0, rel=0.15)
    assert found["unstable_fault_energy(110)"].value > 0


def test_diamond_is_a_record_with_a_reason(chgnet030):
    records = run_suite(
        chgnet030, Benchmark(properties=["stacking_fault", "traction"], cases=["diamond-Si"]), cache_dir=None
    )
    assert {r.property for r in records} == {"unstable_fault_energy", "max_traction", "cleavage_energy"}
    assert all(r.value is None and "diamond" in r.reason for r in records)


def test_a_step_limit_is_not_convergence(cu, fcc_cu, monkeypatch):
    monkeypatch.setattr(stacking_fault, "MAX_STEPS", 1)
    values = stacking_fault.compute(Bench(cu), fcc_cu, 3.615, StackingFault(intervals=4))
    assert not any(v.converged for v in values)
    assert all("stopped after 1 steps" in v.reason for v in values)


def test_the_crest_of_a_sine():
    x = np.linspace(0, 1, 11)
    highest, error = crest(x, np.sin(np.pi * (x - 0.03)) ** 2, level_ends=False)
    assert abs(highest - 1) < 3 * error + 1e-6
    assert error < 1e-3
