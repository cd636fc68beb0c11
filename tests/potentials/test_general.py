"""Near-equilibrium cells: at the potential's own equilibrium, small, seeded, for whatever it knows."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from ase.data import chemical_symbols

from aldriver.core.units import EV_A3_TO_GPA
from aldriver.potentials.general import evaluate_each, near_equilibrium_cells, neighbouring_elements


def volume(frames, prototype: str) -> float:
    """Mean volume per atom, Å³."""
    return float(np.mean([a.get_volume() / len(a) for a in frames if a.info["prototype"] == prototype]))


@pytest.fixture(scope="module")
def iron_cells(eam_fe):
    return near_equilibrium_cells(eam_fe, ["Fe"], seed=0, per_element=60)


def test_iron_is_found_where_its_potential_was_fitted(iron_cells):
    """a = 2.8553 Å: Mendelev et al., Philos. Mag. 83, 3977 (2003), the potential of the file Fe_mm.eam.fs."""
    assert volume(iron_cells.frames, "bcc-Fe") == pytest.approx(2.8553**3 / 2, rel=0.01)


def test_the_ground_state_is_among_the_three_that_are_kept(iron_cells):
    kinds = {a.info["prototype"] for a in iron_cells.frames}
    assert "bcc-Fe" in kinds and len(kinds) == 3


def test_cells_are_small_strained_and_rattled(iron_cells, eam_fe):
    assert len(iron_cells.frames) == 60 and not iron_cells.skipped
    for atoms in iron_cells.frames:
        assert 4 <= len(atoms) <= 8 and atoms.pbc.all() and atoms.info["group"] == "general-Fe"
        assert atoms.get_all_distances(mic=True)[np.triu_indices(len(atoms), 1)].min() > 1.7
    forces = [np.abs(p.forces).max() for p in eam_fe.evaluate(iron_cells.frames)]
    assert 0.1 < np.median(forces) < 5.0


def test_unstrained_prototypes_have_no_pressure(chgnet030):
    from aldriver.potentials.general import SIMPLE, _find_minima, _Prototype

    prototypes = [_Prototype(kind=kind, symbols=("Mo",)) for kind in SIMPLE[:3]]
    _find_minima(chgnet030, prototypes)
    for prototype, p in zip(prototypes, chgnet030.evaluate([x.cell(x.a) for x in prototypes]), strict=True):
        assert not prototype.reason
        assert abs(np.mean(p.stress[:3])) * EV_A3_TO_GPA < 6.0
        assert np.abs(p.forces).max() < 1e-3


def test_seeded_and_independent_of_the_other_elements(chgnet020):
    one = near_equilibrium_cells(chgnet020, ["Cu"], seed=3, per_element=4).frames
    two = [
        a
        for a in near_equilibrium_cells(chgnet020, ["Al", "Cu"], seed=3, per_element=4).frames
        if a.info["group"] == "general-Cu"
    ]
    other = near_equilibrium_cells(chgnet020, ["Cu"], seed=4, per_element=4).frames
    for a, b, c in zip(one, two, other, strict=True):
        np.testing.assert_allclose(a.positions, b.positions, atol=2e-3)
        assert np.abs(a.positions - c.positions).max() > 0.01


def test_what_cannot_be_had_is_named_not_raised(eam_fe, chgnet020):
    cells = near_equilibrium_cells(eam_fe, ["Fe", "Cu"], seed=0, per_element=3)
    assert "does not know" in cells.skipped["Cu"] and len(cells.frames) == 3
    rubidium = near_equilibrium_cells(chgnet020, ["Rb"], seed=0, per_element=3)  # bonds beyond its cutoff of 5 Å
    assert not rubidium.frames and "no minimum" in rubidium.skipped["bcc-Rb"]


def test_compounds_only_where_the_potential_has_an_equilibrium(chgnet030):
    cells = near_equilibrium_cells(chgnet030, [], seed=0, per_element=8, compounds=["Ni", "Al"])
    kinds = {a.info["prototype"] for a in cells.frames}
    assert "B2-AlNi" in kinds and "L1_2-NiNiNiAl" in kinds
    assert volume(cells.frames, "B2-AlNi") == pytest.approx(2.887**3 / 2, rel=0.06)
    assert volume(cells.frames, "L1_2-NiNiNiAl") == pytest.approx(3.57**3 / 4, rel=0.06)
    for atoms in cells.frames:
        assert set(atoms.get_chemical_symbols()) == {"Al", "Ni"} and len(atoms) <= 8
    strange = near_equilibrium_cells(chgnet030, [], seed=0, per_element=4, compounds=["Fe", "Cr"]).skipped
    assert "rocksalt-CrFe" in strange


def test_one_frame_that_cannot_be_read_costs_no_other(chgnet020, fe_cell):
    alone = bulk("Fe", a=20.0)
    results = evaluate_each(chgnet020, [fe_cell, alone, fe_cell])
    assert results[1] is None and results[0] is not None and results[2] is not None
    assert results[0].energy == results[2].energy


@pytest.mark.parametrize(
    ("element", "expected"),
    [
        ("Fe", {"Mn", "Co", "Ru"}),
        ("Mo", {"Cr", "W", "Nb", "Tc"}),
        ("Si", {"C", "Ge", "Al", "P"}),
        ("H", {"Li"}),
        ("Gd", {"Eu", "Tb", "Cm"}),
        ("Y", {"Sr", "Zr", "Sc"}),
        ("Hf", {"Zr", "Ta", "Rf"}),
    ],
)
def test_neighbours_in_the_periodic_table(element: str, expected: set[str]):
    assert set(neighbouring_elements([element], chemical_symbols)) == expected


def test_only_known_neighbours_and_never_the_given_ones(eam_fe):
    assert neighbouring_elements(["Co"], eam_fe.elements) == ["Fe"]
    assert not set(neighbouring_elements(["Fe", "Co"], chemical_symbols)) & {"Fe", "Co"}
