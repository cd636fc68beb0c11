"""Dispersions of potentials over each other, on the page of ``aldriver compare``."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import plotly.graph_objects as go
import pytest

import aldriver
from aldriver.benchmark.cases import case_by_name
from aldriver.benchmark.comparison import Candidate, compare, read_candidate
from aldriver.benchmark.dispersion import dispersions
from aldriver.benchmark.suite import run_suite
from aldriver.core.recipe_benchmark import Benchmark
from aldriver.core.recipe_thermal import Phonon
from aldriver.core.records import dumps
from aldriver.report.phonons import phonon_figures
from aldriver.report.verdict import write_page


@pytest.fixture(scope="module")
def iron(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    potential = aldriver.load("eam:Fe_mm.eam.fs")
    settings = Benchmark(
        properties=["phonon"], cases=[case_by_name("bcc-Fe")], phonon=Phonon(supercell=(2, 2, 2), mesh=8)
    )
    records = run_suite(potential, settings, cache_dir=cache)
    potential.evaluate = None  # all that is needed is there
    return Candidate(name="iron<i>", records=records, phonons=dispersions(potential, settings, records, cache))


def test_the_curves_are_those_of_the_values(iron):
    found, values = iron.phonons["bcc-Fe"], {r.property: r.value for r in iron.records}
    assert found.labels == ["G", "H", "P", "G", "N|P", "N"]
    assert (found.ticks[0], found.ticks[-1], found.distance[-1]) == (0, 1, 1)
    at_h = [mode[found.distance.index(found.ticks[1])] for mode in found.frequencies]
    assert min(at_h) == pytest.approx(values["phonon(H,1)"], abs=1e-3)
    assert np.ravel(found.frequencies).max() <= values["phonon_max_frequency"] + 1e-3
    assert np.trapezoid(found.states, found.levels) == pytest.approx(3, rel=0.02)  # three modes an atom


def test_the_figure_draws_each_potential_and_leaves_gaps_between_lines(iron):
    other = dataclasses.replace(iron, name="other")
    (figure,) = phonon_figures([iron, other, Candidate(name="none", records=[])])
    spec = json.loads(re.sub(r"var\(--[a-z0-9-]+\)", "#123456", json.dumps(figure.spec, allow_nan=False)))
    go.Figure(spec)
    assert [trace["name"] for trace in spec["data"]] == ["iron<i>", "iron<i>", "other", "other"]
    bands = spec["data"][0]
    assert bands["x"].count(None) == 3 * (len(iron.phonons["bcc-Fe"].ticks) - 1)
    assert spec["layout"]["xaxis"]["ticktext"][0] == "Γ"
    assert any("|" in text for text in spec["layout"]["xaxis"]["ticktext"])


def test_they_go_through_a_file_and_onto_the_page(iron, tmp_path):
    path, page = tmp_path / "fe.json", tmp_path / "page.html"
    path.write_text(dumps({"potential": iron.name, "records": iron.records, "phonons": iron.phonons}))
    again = read_candidate(path)
    assert again.phonons == iron.phonons
    write_page(compare([again]), page, [again])
    text = page.read_text()
    assert 'id="plot-phonons-bcc-Fe"' in text and 'href="#phonons"' in text
    assert "<i>" not in text.split('<script type="application/json"')[0]
    write_page(compare([again]), page)
    assert "plot-phonons" not in page.read_text()
