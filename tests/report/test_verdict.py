"""The verdict in the report: scores over the generations and values beside published ones."""

from __future__ import annotations

import json
import re

import plotly.graph_objects as go
import pytest
import report_campaign

from aldriver.benchmark.comparison import Candidate, compare
from aldriver.core.records import PropertyRecord
from aldriver.report import verdict
from aldriver.report.data import read_campaign


@pytest.fixture(scope="module")
def read(campaign):
    return read_campaign(campaign)


def candidates(*names):
    return [
        Candidate(
            name=name,
            records=[
                PropertyRecord(property="lattice_constant", case="bcc-Fe", value=2.83 + 0.01 * i, unit="Å", error=1e-4),
                PropertyRecord(property="c44", case="bcc-Fe", value=None, unit="GPa", reason="<b>torn</b> apart"),
                PropertyRecord(property="c11", case="bcc-Fe", value=240.0, unit="GPa"),
            ],
        )
        for i, name in enumerate(names)
    ]


def test_scores_rise_as_the_generations_come_nearer(read):
    scores, deviations = verdict.campaign_figures(read)
    drawn = dict(zip(scores.spec["data"][0]["x"], scores.spec["data"][0]["y"], strict=True))
    assert list(drawn) == ["foundation", "generation 1", "generation 2", "generation 3"]
    assert drawn["foundation"] < drawn["generation 1"] < drawn["generation 3"]
    for figure in (scores, deviations):
        text = re.sub(r"var\(--[a-z0-9-]+\)", "#123456", json.dumps(figure.spec, allow_nan=False))
        go.Figure(json.loads(text))
        assert figure.title and figure.caption and len(figure.alt) > 20


def test_deviations_are_those_of_the_records(read):
    _, deviations = verdict.campaign_figures(read)
    foundation = deviations.spec["data"][0]
    drawn = dict(zip(foundation["y"], foundation["x"], strict=True))
    assert drawn["C₁₂, bcc-Fe"] == pytest.approx(-30.0)
    assert drawn["Lattice constant, bcc-Fe"] == pytest.approx(1.5)


def test_published_values_stand_beside_the_campaign_s(read):
    table = verdict.published_table(read)
    assert "DFT (published)" in table and "chgnet:0.2.0 (published)" in table
    assert "2.190" in table and "0.7300" in table


def test_the_page_holds_all_and_escapes_it(tmp_path):
    out = tmp_path / "new" / "page.html"
    verdict.write_page(compare(candidates("a<i>", "b")), out)
    page = out.read_text()
    assert "a&lt;i&gt;" in page and "<i>" not in page.split('<script type="application/json"')[0]
    assert "<b>torn" not in page
    assert "not judged: c11 of bcc-Fe" in page
    assert 'id="plot-benchmark-score"' in page


def test_many_properties_are_thinned_and_it_is_said():
    rows = [
        PropertyRecord(property=f"binding_energy(Cu-Ni,{k})", case="bcc-Fe", value=0.001 * k, unit="eV")
        for k in range(100)
    ]
    reference = {(r.case, r.property): verdict_target() for r in rows}
    figure = verdict.deviation_figure(compare([Candidate(name="a", records=rows)], reference))
    assert len(figure.spec["data"][0]["x"]) == verdict.SHOWN
    assert "40 properties of 100" in figure.caption
    assert max(figure.spec["data"][0]["x"]) == pytest.approx(19.8)  # 0.099 eV of 0.5 eV: the farthest are kept


def verdict_target():
    from aldriver.benchmark.reference import Target

    return Target(value=0.0, unit="eV", source="DFT")


def test_a_campaign_without_a_benchmark_says_so(tmp_path):
    root = report_campaign.build(tmp_path / "c", generations=0)
    (root / "generation-000" / "benchmark" / "records.json").unlink()
    read = read_campaign(root)
    assert all(f.spec is None and f.missing for f in verdict.campaign_figures(read))
    assert verdict.published_table(read) == ""


def test_damaged_records_are_left_out():
    rows = [
        {"property": "c44", "case": "x", "value": "many"},
        {"case": "x"},
        {"property": "c11", "case": "x", "value": 1},
    ]
    assert [r.property for r in verdict._records(rows)] == ["c11"]
