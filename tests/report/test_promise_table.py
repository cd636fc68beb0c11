from __future__ import annotations

import numpy as np
import pytest

from aldriver.core.records import dumps
from aldriver.report.data import Campaign, Generation, detector_of, read_campaign
from aldriver.report.detection import distribution_figures
from aldriver.report.promise import promise_table

PROMISE = {
    "outcome": "certified",
    "sentences": ["certified: 30 of 90 calibration frames are above the tolerance", "score = 0.1 eV/Å × (a / b)^1"],
    "tolerance_meV_A": 100.0,
    "miss_rate": 0.1,
}


def campaign(selection: dict, decision: dict) -> Campaign:
    generation = Generation(number=2, selection=selection, decision=decision)
    return Campaign(path=None, info={}, recipe={}, ledger=[], generations=[generation], reference=[], problems=[])


def test_says_what_was_promised_and_measured():
    selection = {"promise": PROMISE, "n_flagged": 12, "n_candidates": 80, "reasons": {"unphysical": 3}}
    selection["drift"] = {"sentence": "drift: recalibrate <b>"}
    audit = {"sentence": "1 of 4 audit labels exceed", "so_far": {"sentence": "2 of 9 audit labels exceed"}}
    decision = {"audit": audit, "step": {"sentence": "force RMSE ×0.7"}, "recalibrated": PROMISE}
    text = promise_table(campaign(selection, decision))
    for part in (
        "tolerance 100 meV/Å, miss rate 0.10",
        "certified: 30 of 90",
        "12 of 80 flagged",
        "3 unphysical",
        "drift: recalibrate &lt;b&gt;",
        "so far: 2 of 9 audit labels",
        "force RMSE ×0.7",
        "after this generation: certified",
    ):
        assert part in text, part
    assert "<b>" not in text


@pytest.mark.parametrize("broken", [{}, {"promise": 3}, {"promise": {"sentences": 4}, "reasons": [], "drift": "x"}])
def test_missing_pieces_leave_gaps_not_errors(broken):
    assert promise_table(campaign(broken, {"audit": "?", "step": None}))


def test_the_limit_of_a_fused_score_is_drawn(tmp_path):
    import report_campaign

    root = report_campaign.build(tmp_path / "c")
    folder = root / "potentials" / report_campaign.FINGERPRINTS[1] / "detector"
    saved = {"formula": {"kind": "fused"}, "pooled": {"value": 0.08}}
    (folder / "config.json").write_text(dumps({"thresholds": {}, "vector_scale": 1.0, "calibration": saved}))
    np.savez(folder / "calibration.npz", score=np.linspace(0.01, 0.2, 30), error=np.linspace(0.01, 0.2, 30))
    read = read_campaign(root)
    detector = detector_of(read, read.generations[3])
    assert detector.thresholds == {"score": 0.08} and len(detector.heldout["score"]) == 30
    figure = next(f for f in distribution_figures(read) if f.key == "scores-score")
    assert figure.spec["layout"]["shapes"][0]["x0"] == 0.08
