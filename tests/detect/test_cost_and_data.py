"""Real DFT trajectories are told apart, and what scoring costs is printed."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from detect_helpers import SOAP_ONLY, auroc

from aldriver.core.frames import read_frames
from aldriver.detect import Detector, select


def temperature(atoms: Atoms) -> int:
    return int(atoms.info["description"].split(" at ")[1].split(" K")[0])


@pytest.mark.parametrize(("element", "melting"), [("Si", 1687), ("Mo", 2896)])
def test_dft_trajectories(shared_data: Path, element: str, melting: int):
    """Fitted on cool AIMD alone, SOAP ranks hot AIMD and vacancy frames above cool frames it never saw."""
    path = shared_data / "mlearn" / f"{element}_train.extxyz"
    if not path.exists():
        pytest.skip("the mlearn frames are not here")
    frames = read_frames(path)
    aimd = [f for f in frames if "AIMD NVT" in f.info["description"] and "Vacancy" not in f.info["description"]]
    cool = [f for f in aimd if temperature(f) <= 0.7 * melting]
    strange = {
        "hot": [f for f in aimd if temperature(f) > 1.1 * melting],
        "vacancy": [f for f in frames if "Vacancy" in f.info["description"]],
    }
    detector = Detector.fit(cool[::3], None, SOAP_ONLY, heldout=cool[1::3])
    calm = [s.ratio for s in detector.score(cool[2::3])]
    for kind, some in strange.items():
        value = auroc(calm, [s.ratio for s in detector.score(some[:40])])
        print(f"{element}: {len(cool[::3])} cool frames fitted, AUROC {kind} {value:.3f}")
        assert value > 0.8


def test_selection_from_a_large_pool_is_quick_enough_to_wait_for(capsys: pytest.CaptureFixture[str]):
    rng = np.random.default_rng(0)
    x, ratios = rng.normal(size=(3000, 504)), rng.lognormal(0, 0.5, 3000)
    start = time.process_time()
    s = select(x, ratios, budget=50, audit=5, fill=True, ids=[f"{i:x}" for i in range(3000)], seed=0)
    with capsys.disabled():
        print(f"\nselection, 3000 candidates of 504 numbers: {time.process_time() - start:.2f} s")
    assert len(s.indices) == 50
