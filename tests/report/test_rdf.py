"""Radial distributions of liquids: in the records, through a file, and on the page."""

from __future__ import annotations

import json
import re

import plotly.graph_objects as go

from aldriver.benchmark.comparison import Candidate, compare, read_candidate
from aldriver.core.records import PropertyRecord, dumps
from aldriver.report.rdf import rdf_figures
from aldriver.report.verdict import write_page

CURVE = {"r": [0.025, 0.075, 0.125], "all": [0.0, 1.5, 1.0], "Cl-Na": [0.0, 2.5, 1.0]}


def candidate(name, curve):
    record = PropertyRecord(property="rdf_first_peak", case="salt", value=2.7, unit="Å", curve=curve)
    return Candidate(name=name, records=[record, PropertyRecord(property="c11", case="salt", value=5.0, unit="GPa")])


def test_a_figure_for_each_pair_with_a_line_for_each_potential():
    found = rdf_figures([candidate("a<i>", CURVE), candidate("b", CURVE), candidate("none", {})])
    assert [f.key for f in found] == ["rdf-salt-all", "rdf-salt-Cl-Na"]
    for figure, pair in zip(found, ("all", "Cl-Na"), strict=True):
        spec = json.loads(re.sub(r"var\(--[a-z0-9-]+\)", "#123456", json.dumps(figure.spec, allow_nan=False)))
        go.Figure(spec)
        assert [trace["name"] for trace in spec["data"]] == ["a<i>", "b"]
        assert spec["data"][1]["x"] == CURVE["r"] and spec["data"][1]["y"] == CURVE[pair]
    assert rdf_figures([candidate("none", {})]) == []


def test_they_go_through_a_file_and_onto_the_page(tmp_path):
    path, page = tmp_path / "salt.json", tmp_path / "page.html"
    salt = candidate("a<i>", CURVE)
    path.write_text(dumps({"potential": salt.name, "records": salt.records}))
    again = read_candidate(path)
    assert again.records == salt.records and hash(again.records[0]) == hash(salt.records[0])
    write_page(compare([again]), page, [again])
    text = page.read_text()
    assert 'id="plot-rdf-salt-Cl-Na"' in text and 'href="#liquids"' in text
    assert "<i>" not in text.split('<script type="application/json"')[0]
