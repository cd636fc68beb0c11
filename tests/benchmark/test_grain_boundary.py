"""Grain boundaries: coincidence-site lattices, published energies, and the perfect crystal as a boundary of nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ase.neighborlist import neighbor_list

from aldriver.benchmark import grain_boundary
from aldriver.benchmark.bench import Bench
from aldriver.benchmark.bicrystal import bicrystal, changed, grains, lengthened
from aldriver.benchmark.cases import case_by_name, conventional_cell
from aldriver.benchmark.oriented import in_plane, plane_area
from aldriver.benchmark.reference import published
from aldriver.core.recipe_binding import GrainBoundary, KnownBoundary, parse_boundary, twist_angle

A_FE, A_CU = 2.8553, 3.615


def energies(potential, case, a, **options):
    values = grain_boundary.compute(Bench(potential), case, a, GrainBoundary(**options))
    return {v.property.partition("(")[2][:-1]: v for v in values}


def test_copper_as_published(cu, fcc_cu):
    """The coherent twin: 22 mJ/m² in Lysogorskiy et al., npj Comput. Mater. 7, 97 (2021), Table 1."""
    twin = energies(cu, fcc_cu, A_CU, boundaries=["S3 tilt (111)[1-10]"])["S3 tilt (111)[1-10]"]
    assert twin.converged
    assert twin.value == pytest.approx(0.022, abs=6e-4)


def test_iron_from_low_to_high(fe, bcc_fe):
    """The coherent twin on (112) lies far below boundaries without a plane of good fit, and those below two surfaces."""
    found = energies(fe, bcc_fe, A_FE, boundaries=["S3 tilt (112)[1-10]", "S5 tilt (310)[001]"])
    assert all(v.converged and v.error < 5e-3 for v in found.values())
    twin, general = (v.value for v in found.values())
    assert 0.2 < twin < 0.35
    assert 3 * twin < general < 1.2


@pytest.mark.parametrize(
    ("text", "degrees"),
    [("S5 twist (100)", 36.87), ("S3 twist (111)", 60.0), ("S7 twist (111)", 38.21), ("S9 twist (110)", 38.94),
     ("S3 twist (110)", 70.53)],
)  # fmt: skip
def test_angles_of_twist_boundaries(text, degrees):
    """Table of coincidence rotations of Grimmer, Bollmann, Warrington 1974."""
    name = parse_boundary(text)
    assert math.degrees(twist_angle(name.sigma, name.plane)) == pytest.approx(degrees, abs=0.01)


@pytest.mark.parametrize("crystal", ["bcc-Fe", "fcc-Cu"])
@pytest.mark.parametrize(
    ("text", "sites"),
    [("S5 twist (100)", 5), ("S3 twist (111)", 1), ("S7 twist (111)", 7), ("S3 twist (110)", 3), ("S9 twist (110)", 9)],
)
def test_a_twist_boundary_repeats_itself_on_every_sigma_th_site(crystal, text, sites):
    """But for 60° about [111], which leaves the plane as it is and turns the stacking around."""
    case, name = case_by_name(crystal), parse_boundary(text)
    parts = grains(case, 1.0, name, 2.0)
    assert parts.area == pytest.approx(sites * np.linalg.norm(np.cross(*in_plane(case.lattice, name.plane))))
    assert len(parts.lower) == len(parts.upper)
    assert np.asarray(parts.lower.cell) == pytest.approx(np.asarray(parts.upper.cell))


@pytest.mark.parametrize("text", ["S5 tilt (210)[001]", "S5 twist (100)", "S9 tilt (221)[1-10]", "S9 tilt (114)[1-10]"])
@pytest.mark.parametrize("crystal", ["bcc-Fe", "fcc-Cu", "diamond-Si"])
def test_both_grains_are_the_crystal(crystal, text):
    """In the middle of each grain every atom has the neighbours it has in the perfect crystal."""
    case = case_by_name(crystal)
    a = case.a
    atoms = bicrystal(grains(case, a, parse_boundary(text), 14.0), (0.1, 0.2), 0.2)
    number, nearest = {"bcc-Fe": (8, math.sqrt(3) / 2), "fcc-Cu": (12, math.sqrt(0.5)),
                       "diamond-Si": (4, math.sqrt(3) / 4)}[crystal]  # fmt: skip
    z = atoms.get_scaled_positions()[:, 2]
    i = neighbor_list("i", atoms, nearest * a * 1.05)
    inside = (np.abs(z - 0.25) < 0.07) | (np.abs(z - 0.75) < 0.07)
    assert inside.sum() > 4
    assert set(np.bincount(i, minlength=len(atoms))[inside]) == {number}


def test_the_cell_has_the_excess_volume_it_is_told():
    case = case_by_name("bcc-Fe")
    parts = grains(case, A_FE, parse_boundary("S5 tilt (210)[001]"), 12.0)
    for excess in (0.0, 0.3):
        atoms = bicrystal(parts, (0.0, 0.0), excess)
        assert (atoms.get_volume() - len(atoms) * A_FE**3 / 2) / (2 * plane_area(atoms)) == pytest.approx(excess)
    wider = lengthened(atoms, 0.5)
    assert wider.cell[2, 2] == pytest.approx(atoms.cell[2, 2] + 1.0)


@pytest.mark.parametrize("text", ["S9 tilt (221)[1-10]", "S5 tilt (210)[001]", "S5 twist (100)"])
def test_no_start_loses_more_than_the_atoms_at_its_boundaries(text):
    parts = grains(case_by_name("bcc-Fe"), A_FE, parse_boundary(text), 12.0)
    before = len(parts.lower) + len(parts.upper)
    for shift in np.ndindex(6, 6):
        assert len(bicrystal(parts, (shift[0] / 6, shift[1] / 6), 0.2)) > 0.8 * before


def test_grains_that_are_gone_are_noticed():
    case = case_by_name("bcc-Fe")
    parts = grains(case, A_FE, parse_boundary("S9 tilt (221)[1-10]"), 12.0)
    start = bicrystal(parts, (0.0, 0.0), 0.2)
    after = start.copy()
    upper = after.get_scaled_positions()[:, 2] > 0.5
    after.positions[upper] += [1.0, 0.7, 0.1]  # it slid
    assert changed(start, after, parts.nearest) == ""
    after.positions[upper, 0] += 0.5 * (after.positions[upper, 2] - after.positions[upper, 2].mean())  # it sheared
    assert "a grain has changed" in changed(start, after, parts.nearest)


def test_atoms_of_two_grains_do_not_overlap():
    case = case_by_name("bcc-Fe")
    for text in ("S5 tilt (210)[001]", "S9 tilt (114)[1-10]", "S5 twist (100)"):
        atoms = bicrystal(grains(case, A_FE, parse_boundary(text), 12.0), (0.0, 0.0), 0.0)
        assert len(neighbor_list("i", atoms, 0.7 * math.sqrt(3) / 2 * A_FE - 1e-6)) == 0


def test_a_file_with_the_perfect_crystal_has_boundaries_of_no_energy(fe, bcc_fe, tmp_path):
    from ase.io import write

    path = tmp_path / "perfect.extxyz"
    write(path, conventional_cell(bcc_fe, 2.83).repeat((1, 1, 4)))
    known = KnownBoundary(name="none", file=path, a=2.83)
    found = energies(fe, bcc_fe, A_FE, boundaries=[], structures=[known])["none"]
    assert found.converged
    assert found.value == pytest.approx(0.0, abs=1e-6)


def test_a_file_that_has_changed_is_computed_again(tmp_path):
    path = tmp_path / "cells.extxyz"
    options = GrainBoundary(structures=[KnownBoundary(name="mine", file=path, a=2.83)])
    digests = {grain_boundary.content(case_by_name("bcc-Fe"), options)}
    for text in ("one", "two"):
        path.write_text(text)
        digests.add(grain_boundary.content(case_by_name("bcc-Fe"), options))
    assert len(digests) == 3


def test_a_file_that_is_not_there_is_a_record_with_a_reason(fe, bcc_fe, tmp_path):
    known = KnownBoundary(name="mine", file=tmp_path / "no.extxyz", a=2.83)
    found = energies(fe, bcc_fe, A_FE, boundaries=[], structures=[known])["mine"]
    assert found.value is None and "cannot be read" in found.reason


def test_one_that_stops_early_says_so(fe, bcc_fe, monkeypatch):
    monkeypatch.setattr(grain_boundary, "MAX_STEPS", 1)
    (value,) = energies(fe, bcc_fe, A_FE, boundaries=["S5 tilt (310)[001]"], shifts=1).values()
    assert not value.converged and "stopped after 1 steps" in value.reason


def test_published_cells_of_iron(fe, bcc_fe, shared_data):
    """Boundaries of Zheng et al. 2020: the order of EAM is that of DFT, and none beats the search for the best start."""
    from ase.io import read

    path = shared_data / "fe_structures" / "fe_gb.extxyz"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    frames = read(path, index=":")
    structures = [KnownBoundary(name=f"b{k}", file=path, frame=k, a=2.83) for k in range(len(frames))]
    found = energies(fe, bcc_fe, A_FE, boundaries=[], structures=structures)
    ours = np.array([v.value for v in found.values()])
    dft = np.array([f.info["gb_energy_dft_J_m2"] for f in frames])
    assert all(v.converged for v in found.values())
    ranks = [np.argsort(np.argsort(x)) for x in (ours, dft)]
    assert np.corrcoef(*ranks)[0, 1] > 0.8
    names = {v: k.partition("(")[2][:-1] for k, v in published("bcc-Fe", "DFT (Zheng 2020)").values.items()}
    small = [k for k, frame in enumerate(frames) if len(frame) < 50]
    searched = energies(fe, bcc_fe, A_FE, boundaries=[names[dft[k]] for k in small])
    assert len(small) == 5
    for k, here in zip(small, searched.values(), strict=True):
        assert here.converged and here.value < ours[k] + 0.005


@pytest.mark.parametrize(
    ("text", "why"),
    [("S5 tilt (310)", "needs an axis"), ("S5 tilt (310)[100]", "needs an axis"), ("S3 tilt (310)[001]", "Σ = 5"),
     ("S4 twist (100)", "no rotation"), ("S5 twist (100)[001]", "axis is given"), ("twin", "is named as in"),
     ("S5 tilt (620)[001]", "common divisor"), ("S1 tilt (100)[001]", "Σ = 1")],
)  # fmt: skip
def test_names_that_say_nothing_are_refused(text, why):
    with pytest.raises(ValueError, match=why):
        GrainBoundary(boundaries=[text])
