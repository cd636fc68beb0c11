"""Every potential keeps the contract."""

from __future__ import annotations

import pytest

from aldriver import load
from aldriver.potentials.bundle import save_bundle
from aldriver.testing.contracts import check_potential

SINGLE = 1e-6


def test_chgnet_020(chgnet020, fe_frames):
    check_potential(chgnet020, fe_frames, noise=SINGLE, unknown="Cm", finite_differences=False)


def test_chgnet_030(chgnet030, fe_frames):
    check_potential(chgnet030, fe_frames[1:], noise=SINGLE, unknown="Cm", finite_differences=False)


def test_chgnet_in_double_precision_against_finite_differences(chgnet020_double, fe_frames):
    check_potential(chgnet020_double, fe_frames[1:2], unknown="Cm")


def test_eam(eam_fe, fe_frames):
    check_potential(eam_fe, fe_frames, unknown="Cu")


def test_eam_alloy(fe_frames):
    alloy = [a.copy() for a in fe_frames]
    for a in alloy:
        a.set_chemical_symbols((["Al", "Cu"] * len(a))[: len(a)])
        a.set_cell(a.cell * 1.25, scale_atoms=True)
    check_potential(load("eam:AlCu.eam.alloy"), alloy, unknown="Fe")


@pytest.mark.parametrize("family", ["chgnet", "eam"])
def test_a_saved_potential(family, chgnet020, eam_fe, fe_frames, tmp_path):
    original = {"chgnet": chgnet020, "eam": eam_fe}[family]
    loaded = load(save_bundle(original, tmp_path / "saved"))
    noise = SINGLE if family == "chgnet" else 0.0
    check_potential(loaded, fe_frames[1:2], noise=noise, unknown="Cm", finite_differences=family == "eam")
    assert loaded.fingerprint == original.fingerprint
    for a, b in zip(original.evaluate(fe_frames), loaded.evaluate(fe_frames), strict=True):
        assert a.energy == b.energy
        assert (a.forces == b.forces).all()
