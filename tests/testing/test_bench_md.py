"""The MD bench: a side measured in its own process, targets that can be missed, and a walk that takes no more memory."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import numpy as np
import pytest
from ase.build import bulk

from aldriver.core.errors import AldriverError
from aldriver.testing.bench_md import FS_PER_DAY, Contender, Side, _vendor_fits, measure, missed


def row(name: str = "x", atoms: int = 108, step_ms: float = 100.0, share: float = 0.01, **more: Any) -> dict[str, Any]:
    return {"name": name, "atoms": atoms, "step_ms": step_ms, "coupling": {"median": share}} | more


def test_a_step_of_one_ms_makes_86_ns_a_day():
    assert pytest.approx(24 * 3600 / 1e-3 * 1e-6) == FS_PER_DAY


def test_a_missed_target_is_named():
    assert missed([row(), row(memory_ratio=1.05)]) == []
    assert "coupling is 6.0 %" in missed([row(share=0.06)])[0]
    assert "1.20 times" in missed([row(memory_ratio=1.2)])[0]
    torch, slow, quick = row("M, torch float32"), row("M, symmetrix", step_ms=25.0), row("M, symmetrix", step_ms=15.0)
    assert "4.0 times as fast" in missed([torch, slow])[0]
    assert missed([torch, quick]) == []


def test_a_vendor_that_would_not_fit_is_left_out():
    small = row("x", 108, vendor_peak_MB=500.0)
    assert _vendor_fits([], "x", 1000) and _vendor_fits([small], "x", 432)
    assert not _vendor_fits([row("x", 108, vendor_peak_MB=1e9)], "x", 432)


def test_a_side_measures_itself():
    found = measure(Contender(name="CHGNet", model="chgnet:0.2.0", precision="float32"), 108, repeats=1)
    assert 0.0 < found["coupling"]["median"] < 0.5
    assert found["ns_per_day"] == pytest.approx(FS_PER_DAY / found["step_ms"])
    assert found["peak_MB"] > 100.0


def test_a_side_that_cannot_run_says_why():
    side = Side("ours", "chgnet:9.9", "float32", 108, 1)
    try:
        with pytest.raises(AldriverError, match="chgnet"):
            side.ask()
    finally:
        side.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.skipif(importlib.util.find_spec("mace") is None, reason="mace is not installed here")
def test_a_long_walk_takes_no_more_memory_than_a_short_one():
    from aldriver.explore.lammps import lammps_samples
    from aldriver.explore.perturb import thermalise
    from aldriver.explore.protocol import MDProtocol
    from aldriver.testing.small_mace import small_mace
    from aldriver.train.memory import _status_GB

    atoms = thermalise(bulk("Cu", "fcc", a=3.61, cubic=True), 300.0, seed=1)
    network = small_mace(("Cu",), hidden_irreps="4x0e", num_interactions=1)
    protocol = MDProtocol(ensemble="nvt", steps=300, sample_every=100)
    used = [1024 * _status_GB("VmRSS") for _ in lammps_samples(network, atoms, protocol)]
    # 200 steps after the first 100: a graph (10 kB) kept of each would be 2 MB
    assert np.diff(used[1:]).sum() < 1.5
