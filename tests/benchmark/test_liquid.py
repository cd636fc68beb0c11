"""Liquids: the radial distribution and the diffusion of motions that are known, and molten copper."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aldriver.benchmark import liquid
from aldriver.benchmark.bench import Bench
from aldriver.benchmark.cases import conventional_cell
from aldriver.benchmark.liquid import diffusion
from aldriver.benchmark.order import CrystalOrder
from aldriver.benchmark.rdf import BIN, first_peak, pairs_of, radial_distributions
from aldriver.benchmark.store import Store
from aldriver.benchmark.suite import run_suite
from aldriver.core.errors import InputError
from aldriver.core.recipe import load_suite
from aldriver.core.recipe_benchmark import Benchmark
from aldriver.core.recipe_thermal import Liquid
from aldriver.potentials.base import Potential


class SameForces(Potential):
    """All elements as copper."""

    def __init__(self, copper):
        self.inner, self.name, self.family, self.fingerprint = copper, "same", "same", "same"
        self.elements = frozenset(["Ni", "Ag", "Pt", "Cu"])

    def evaluate(self, frames, **options):
        copper = [Atoms(f"Cu{len(a)}", a.positions, cell=a.cell, pbc=a.pbc) for a in frames]
        return self.inner.evaluate(copper, **options)


def counted(atoms, found, others):
    """Neighbours of an atom in each bin, of so many others, from g(r)."""
    edges = BIN * np.arange(len(found) + 1)
    return found * others / atoms.get_volume() * 4 / 3 * np.pi * np.diff(edges**3)


def test_an_ideal_gas_has_no_structure():
    rng = np.random.default_rng(0)
    cell, symbols = [10.0, 11.0, 12.0], ["Na"] * 40 + ["Cl"] * 60
    frames = [Atoms(symbols, scaled_positions=rng.uniform(-1, 2, (100, 3)), cell=cell, pbc=True) for _ in range(50)]
    found = radial_distributions(frames, 99)  # unwrapped
    assert list(found) == ["all", "Cl-Cl", "Cl-Na", "Na-Na"]
    far = np.arange(99) * BIN > 2
    assert found["all"][far].mean() == pytest.approx(1, abs=0.01)
    for pair in pairs_of(["Na", "Cl"]):
        assert found[pair][far].mean() == pytest.approx(1, abs=0.03)


def test_a_crystal_has_its_neighbours(fcc_cu):
    cell = conventional_cell(fcc_cu, 3.6).repeat(4)
    (g,) = radial_distributions([cell], 70).values()  # of one element: all pairs
    neighbours = counted(cell, g, len(cell) - 1)
    assert neighbours.sum() == pytest.approx(12, rel=1e-3) and neighbours[50] == pytest.approx(12, rel=1e-3)


def test_a_salt_has_unlike_neighbours():
    """Rock salt: 6 unlike ones at a/2, then 12 like ones at a/√2."""
    salt = bulk("NaCl", "rocksalt", a=5.6, cubic=True).repeat(3)
    salt.positions += 0.001 * np.random.default_rng(0).normal(size=salt.positions.shape)  # off the edges of bins
    found, n = radial_distributions([salt], 85), len(salt) // 2
    for pair, others, first, second in (("Cl-Na", n, 6, 0), ("Cl-Cl", n - 1, 0, 12), ("Na-Na", n - 1, 0, 12),
                                        ("all", 2 * n - 1, 6, 12)):  # fmt: skip
        neighbours = counted(salt, found[pair], others)
        assert neighbours[54:58].sum() == pytest.approx(first, rel=1e-3)
        assert neighbours[77:81].sum() == pytest.approx(second, rel=1e-3)
        assert neighbours.sum() == pytest.approx(first + second, rel=1e-3)


def test_the_peak_of_a_parabola_is_exact():
    r = np.arange(1.0, 5.0, 0.05)
    assert first_peak(r, 3 - (r - 2.613) ** 2) == pytest.approx((2.613, 3.0))
    assert first_peak(r, np.zeros_like(r)) == (1.0, 0.0)  # no pairs: no peak


def test_diffusion_of_a_random_walk():
    """Steps of width s each interval along each axis: D = s²/(2·interval)."""
    rng = np.random.default_rng(3)
    s, interval = 0.2, 0.04
    walk = np.cumsum(rng.normal(0, s, (400, 200, 3)), axis=0) + np.arange(400)[:, None, None] * 0.1  # and a drift
    found, error = diffusion(walk, np.arange(200), interval)
    expected = s**2 / (2 * interval) * 10  # Å²/ps to 1e-9 m²/s
    assert found == pytest.approx(expected, abs=max(4 * error, 0.03 * expected))
    assert 0 < error < 0.1 * expected
    halves = np.arange(200) % 2 == 0
    slow = walk.copy()
    slow[:, halves] *= 0.5
    assert diffusion(slow, np.flatnonzero(halves), interval)[0] < diffusion(slow, np.flatnonzero(~halves), interval)[0]


def test_molten_copper(cu, fcc_cu, tmp_path):
    small = fcc_cu.model_copy(update={"supercell": (2, 2, 2)})
    options = Liquid(temperature_K=1500, melt_K=4500, steps=1000, equilibration=500, timestep_fs=3)
    settings = Benchmark(properties=["liquid"], cases=[small], liquid=options)
    found = {r.property: r for r in run_suite(cu, settings, cache_dir=tmp_path)}
    assert list(found) == list(liquid.units(small, options))
    assert all(r.converged and r.error > 0 for r in found.values())
    # experiment at 1500 K, as we know it: 7.9 g/cm³, first peak at 2.5 Å, D = 4 to 6e-9 m²/s
    assert found["liquid_density"].value == pytest.approx(7.9, rel=0.06)
    assert found["rdf_first_peak"].value == pytest.approx(2.5, abs=0.08)
    assert found["rdf_first_peak_height"].value == pytest.approx(2.7, abs=0.4)
    curve = found["rdf_first_peak"].curve
    assert list(curve) == ["r", "all"] and max(curve["all"]) == pytest.approx(
        found["rdf_first_peak_height"].value, abs=0.1
    )
    assert max(curve["r"]) < 3.8 and not found["liquid_density"].curve
    assert 1 < found["self_diffusion(Cu)"].value < 9
    bench = Bench(cu, store=Store(tmp_path))
    a = 3.615
    with bench.potential.measure() as spent:
        liquid.compute(bench, small, run_suite(cu, settings.model_copy(update={"properties": ["lattice"]}),
                                               cache_dir=tmp_path)[0].value or a, options)  # fmt: skip
    assert spent.force_calls == 0


def test_a_crystal_that_does_not_melt_is_a_reason(cu, fcc_cu):
    cold = Liquid(temperature_K=300, melt_K=400, steps=800, equilibration=60)
    values = liquid.compute(Bench(cu), fcc_cu.model_copy(update={"supercell": (2, 2, 2)}), 3.615, cold)
    assert [v.property for v in values] == list(liquid.units(fcc_cu, cold))
    assert all(v.value is None and "still fcc after 60 steps at 400 K" in v.reason for v in values)


def test_what_a_file_holds_is_melted(cu, fcc_cu, tmp_path):
    """A supercell in a file melts as the crystal it is made of, and its own elements are those of the values."""
    small = fcc_cu.model_copy(update={"supercell": (2, 2, 2)})
    path = tmp_path / "cell.extxyz"
    conventional_cell(fcc_cu, 3.615).repeat(2).write(path)
    how = {"temperature_K": 1500, "melt_K": 4500, "steps": 800, "equilibration": 500, "timestep_fs": 3}
    density, *_ = liquid.compute(Bench(cu), small, 3.5, Liquid(structures={"fcc-Cu": path}, **how))
    assert density.converged and density.value == pytest.approx(7.9, rel=0.06)  # experiment at 1500 K
    salt = tmp_path / "salt.extxyz"
    bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(2).write(salt)
    options = Liquid(structures={"fcc-Cu": salt})
    assert [n for n in liquid.units(small, options) if "diffusion" in n] == ["self_diffusion(Cl)", "self_diffusion(Na)"]
    assert "rdf_first_peak(Cl-Na)" in liquid.units(small, options)
    assert liquid.content(small, options) != liquid.content(small, Liquid(structures={"fcc-Cu": path}))
    settings = Benchmark(properties=["liquid"], cases=[small], liquid=options)
    assert all("does not know the elements Cl, Na" in r.reason for r in run_suite(cu, settings, cache_dir=None))
    gone = Liquid(structures={"fcc-Cu": tmp_path / "gone.cif"})
    records = run_suite(cu, settings.model_copy(update={"liquid": gone}), cache_dir=None)
    assert len(records) == 4 and all("gone.cif" in r.reason and "cannot be read" in r.reason for r in records)


def test_order_of_a_supercell_that_is_read(fcc_cu):
    """The same as of its conventional cell; a salt has its peaks; a gas of many atoms has none."""
    cell = conventional_cell(fcc_cu, 3.615)
    swung = cell.repeat(3)
    swung.rattle(0.2, seed=1)
    scaled = swung.get_scaled_positions()
    assert CrystalOrder(cell.repeat(3), (1, 1, 1))(scaled) == pytest.approx(CrystalOrder(cell, (3, 3, 3))(scaled))
    salt = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(2)
    order = CrystalOrder(salt, (1, 1, 1))
    assert order.crystalline and order(salt.get_scaled_positions()) == pytest.approx(1)
    gas = cell.repeat(4)
    gas.set_scaled_positions(np.random.default_rng(0).uniform(size=(256, 3)))
    assert not CrystalOrder(gas, (1, 1, 1)).crystalline
    assert order.lost(np.random.default_rng(0).uniform(size=(64, 3)))


def test_a_composition_is_put_on_the_sites(fe, bcc_fe, fcc_cu):
    options = Liquid(composition={"Ti": 0.9, "Al": 0.06, "V": 0.04})
    atoms = liquid._mixed(conventional_cell(bcc_fe).repeat(4), options)
    counts = {s: atoms.get_chemical_symbols().count(s) for s in ("Ti", "Al", "V")}
    assert counts == {"Ti": 115, "Al": 8, "V": 5}
    assert [n for n in liquid.units(bcc_fe, options) if "diffusion" in n] == [
        "self_diffusion(Al)", "self_diffusion(Ti)", "self_diffusion(V)",
    ]  # fmt: skip
    settings = Benchmark(properties=["liquid"], cases=[bcc_fe], liquid=options)
    records = run_suite(fe, settings, cache_dir=None)
    assert len(records) == 18
    assert all("does not know the element" in r.reason for r in records)


def test_a_single_atom_of_an_element_has_no_pair(cu, fcc_cu, monkeypatch):
    """31 and 1 atoms of two elements that move alike, and none of a third."""
    small = fcc_cu.model_copy(update={"supercell": (2, 2, 2)})
    how = {"temperature_K": 1500, "melt_K": 4500, "steps": 800, "equilibration": 400, "timestep_fs": 3}
    options = Liquid(composition={"Ni": 1, "Ag": 31, "Pt": 0.01}, **how)
    alike = SameForces(cu)
    found = {v.property: v for v in liquid.compute(Bench(alike), small, 3.615, options)}
    assert list(found) == list(liquid.units(small, options))
    for name in ("rdf_first_peak(Ni-Ni)", "self_diffusion(Pt)", "rdf_first_peak_height(Ag-Pt)"):
        assert found[name].value is None and found[name].reason == "the cell does not hold such atoms"
    assert found["rdf_first_peak(Ag-Ni)"].value == pytest.approx(2.5, abs=0.3)
    assert found["self_diffusion(Ni)"].value > 0


def test_a_run_too_short_for_diffusion_is_refused():
    with pytest.raises(ValueError, match="greater than or equal to 800"):
        Liquid(steps=700)
    with pytest.raises(ValueError, match="greater than or equal to 20"):
        Liquid(equilibration=10)


def test_the_shortest_run_gives_all_values(cu, fcc_cu, recwarn):
    small = fcc_cu.model_copy(update={"supercell": (2, 2, 2)})
    options = Liquid(temperature_K=1500, melt_K=4500, steps=800, equilibration=400, timestep_fs=3)
    assert all(v.value is not None and v.error > 0 for v in liquid.compute(Bench(cu), small, 3.615, options))
    assert not [w for w in recwarn if "Polyfit" in str(w.message)]


@pytest.mark.parametrize("block", ["liquid: {structures: {LiCL: a.cif}}", "errors: {frames: {LiCL: a.xyz}}"])
def test_a_file_for_a_case_that_is_not_there_is_refused(block, tmp_path):
    suite = tmp_path / "suite.yaml"
    suite.write_text(f"properties: [liquid]\ncases: [bcc-Li, fcc-Cu]\n{block}\n")
    with pytest.raises(InputError, match="'LiCL' is no case of the suite; its cases: bcc-Li, fcc-Cu"):
        load_suite(suite)
