"""The bench of the benchmark with EAM iron: what it promises holds, and a side that disagrees is noticed."""

from __future__ import annotations

import pytest

from aldriver.core.errors import AldriverError
from aldriver.testing import bench_benchmark


@pytest.mark.parametrize("bench", [
    lambda: bench_benchmark.benchmark_iron(potential="eam:Fe_mm.eam.fs"),
    bench_benchmark.benchmark_binding,
])  # fmt: skip
def test_half_the_force_calls(bench):
    found = bench()
    assert found.reached and found.ratio >= 2.0
    assert found.notes["theirs"]["force_calls"] >= 2 * found.notes["ours"]["force_calls"] > 0


def test_elastic_constants_agree_with_the_cited_protocol(monkeypatch):
    apart = bench_benchmark.benchmark_iron(potential="eam:Fe_mm.eam.fs").notes["ours_minus_theirs"]
    assert max(abs(apart[name]) for name in ("bulk_modulus", "c_prime", "c44")) < 0.5  # GPa
    assert abs(apart["lattice_constant"]) < 1e-4
    monkeypatch.setattr(bench_benchmark, "LOOSEST", 1e-9)  # sides that disagree are not compared
    with pytest.raises(AldriverError, match="energies differ by"):
        bench_benchmark.benchmark_iron(potential="eam:Fe_mm.eam.fs")
