"""Figures and tables: the numbers drawn are the numbers stored, valid for Plotly, and safe as HTML."""

from __future__ import annotations

import json
import re

import numpy as np
import plotly.graph_objects as go
import pytest
import report_campaign

from aldriver.report import detection, figures, tables, words
from aldriver.report.data import read_campaign
from aldriver.report.html import render, script_safe


@pytest.fixture(scope="module")
def read(campaign):
    return read_campaign(campaign)


def every(read):
    yield from figures.error_figures(read)
    yield from figures.parity_figures(read)
    yield from detection.distribution_figures(read)
    yield from (detection.map_figure(read), detection.coverage_figure(read), figures.cost_figure(read))


def test_each_specification_is_valid_plotly_and_has_words(read):
    for figure in every(read):
        text = re.sub(r"var\(--[a-z0-9-]+\)", "#123456", json.dumps(figure.spec, allow_nan=False))
        go.Figure(json.loads(text))
        assert figure.title and figure.caption and len(figure.alt) > 20


def test_each_colour_is_defined_in_light_and_dark(read):
    from importlib.resources import files

    style = files("aldriver.report").joinpath("style.css").read_text()
    light, dark = style.split("@media (prefers-color-scheme: dark)")
    used = set(re.findall(r"var\((--[a-z0-9-]+)\)", json.dumps([f.spec for f in every(read)])))
    used |= {f"--gen-{i}" for i in range(detection.GENERATION_COLOURS)}
    assert len(used) > 10
    for name in used:
        assert f"{name}:" in light and f"{name}:" in dark


def test_errors_are_the_stored_ones_with_their_decision(read):
    force = figures.error_figures(read)[1]
    points = {t["name"]: dict(zip(t["x"], t["y"], strict=True)) for t in force.spec["data"]}
    assert points["foundation"] == {0: 239.6}
    assert points["promoted"] == {1: 61.2, 3: 36.4}
    assert points["held"] == {2: 70.9}
    # generation 2 was held: generation 1's potential stays in use
    assert points["in use"] == {0: 239.6, 1: 61.2, 2: 61.2, 3: 36.4}
    symbols = {t["marker"]["symbol"] for t in force.spec["data"] if "marker" in t}
    assert len(symbols) == 3  # decisions differ in shape, not in colour alone
    assert force.spec["layout"]["shapes"][0]["y0"] == 40.0


def test_parity_reports_the_rmse_of_all_values(read):
    rng = np.random.default_rng(1)
    ref = rng.standard_normal((5000, 3))
    read.generations[3].predictions = {"forces_ref": ref, "forces_pred": ref + 0.05}
    forces, energies = figures.parity_figures(read)
    assert "generation 3 50.0 meV/Å" in forces.alt
    assert len(forces.spec["data"][1]["x"]) == figures.POINTS
    assert "of 15000 values are drawn" in forces.caption
    assert "foundation" in energies.alt and "generation 3" not in energies.alt


def test_parity_energies_are_per_atom_and_gaps_are_left_out():
    arrays = {"energies_ref": np.array([-8.0, np.nan, -16.0]), "energies_pred": np.array([-8.2, -1.0, -16.0])}
    ref, pred = figures.pair({**arrays, "n_atoms": np.array([2, 2, 4])}, "energies")
    assert ref == pytest.approx([-4.0, -4.0]) and pred == pytest.approx([-4.1, -4.0])
    assert figures.pair({"energies_ref": np.zeros(3), "energies_pred": np.zeros(2)}, "energies") is None
    assert figures.pair({"forces_ref": np.full(3, np.nan), "forces_pred": np.zeros(3)}, "forces") is None


def test_distribution_counts_what_is_beyond_the_threshold(read):
    q, _, _ = detection.distribution_figures(read)
    scores = np.concatenate([w.scores["soap_q"] for w in read.generations[3].walkers])
    assert f"{100 * np.mean(scores > 2.0):.0f} % of those explored by MD in generation 3" in q.caption
    assert "detector of the generation 1 potential" in q.caption
    assert q.spec["layout"]["shapes"][0]["x0"] == 2.0
    assert len(q.spec["data"]) == 3


def test_scores_that_are_not_finite_are_counted_as_unknown(fresh):
    read = read_campaign(fresh(generations=2))
    q = detection.distribution_figures(read)[0]
    assert "1 scores that are not finite were set aside" in q.caption
    coverage = {t["name"]: dict(zip(t["x"], t["y"], strict=True)) for t in detection.coverage_figure(read).spec["data"]}
    scores = np.concatenate([w.scores["soap_q"] for w in read.generations[2].walkers])
    assert np.isnan(scores).sum() == 1
    assert coverage["SOAP Q-residual"][2] == pytest.approx(100 * np.mean(~(scores <= 2.0)), rel=1e-4)


@pytest.mark.parametrize(("low", "high"), [(0.9, 1.1), (0.1, 3.0), (1e-8, 1e6), (200.0, 260.0)])
def test_log_ticks_are_few_and_inside(low, high):
    axis = detection._log_ticks(np.geomspace(low, high, 5))
    assert len(axis["tickvals"]) == len(axis["ticktext"]) <= 7
    assert all(low <= t <= high for t in axis["tickvals"])


def test_projection_keeps_distances_of_planar_data_and_is_reproducible():
    rng = np.random.default_rng(2)
    plane = rng.standard_normal((40, 2)) * [3.0, 1.0]
    basis, _ = np.linalg.qr(rng.standard_normal((7, 2)))
    vectors = plane @ basis.T + 5.0
    points, share = detection.project(vectors)
    gaps = np.linalg.norm(plane[:, None] - plane[None], axis=2)
    assert np.linalg.norm(points[:, None] - points[None], axis=2) == pytest.approx(gaps, abs=1e-9)
    assert sum(share) == pytest.approx(1.0) and share[0] > share[1]
    order = rng.permutation(40)
    assert detection.project(vectors[order])[0] == pytest.approx(points[order], abs=1e-9)
    assert detection.project(np.ones((4, 1)))[0] == pytest.approx(np.zeros((4, 2)))


def test_map_puts_generations_on_one_scale_and_rings_the_chosen(read):
    spec = detection.map_figure(read).spec
    names = [t["name"] for t in spec["data"]]
    assert names == ["generation 1", "generation 2", "generation 3", "chosen for labelling"]
    # each detector divides its vectors by its own scale; undone, all generations scatter alike
    spreads = [np.ptp(t["x"]) for t in spec["data"][:3]]
    assert max(spreads) < 1.6 * min(spreads)
    assert len(spec["data"][3]["x"]) == 36 - 1  # one walker ended before its third chosen step


def test_core_hours_count_each_label_once(read):
    hours = figures.core_hours(read)
    assert hours["train"] == pytest.approx({0: 2 * 5 / 3600, **dict.fromkeys((1, 2, 3), 2 * 300 / 3600)})
    spent = sum(max(e["cpu_s"], e["seconds"]) for e in read.generations[1].labels) / 3600
    assert hours["label"][1] == pytest.approx(spent)
    read.ledger.append({"event": "label", "generation": 3, "key": read.generations[1].labels[0]["key"], "cpu_s": 1e6})
    assert figures.core_hours(read)["label"] == hours["label"]
    read.ledger.pop()


def test_benchmark_table_shows_deviations_gaps_and_doubts(read):
    html = tables.benchmark_table(read)
    text = re.sub(r"<[^>]+>", " ", html)
    assert "162.8 −8.0 %" in re.sub(r"\s+", " ", text)  # bulk modulus of generation 1: 177 GPa less 8 %
    assert html.count("not converged") == 1 and html.count(">missing<") == 1
    assert "the sheared cell has no bound state" in text and "limit of 500 steps" in text
    assert html.index("in use") > html.index("Generation 3")
    assert 'class="dev bad">−30.0 %' in html and 'class="dev good">+0.4 %' in html
    # a deviation that reads 10.0 % is not graded as more than 10 %
    assert 'class="dev bad">+10.0 %' not in html


def test_unconverged_values_do_not_count_in_the_summary(read):
    from aldriver.report.summary import mean_deviation

    first, held = read.generations[0], read.generations[2]
    assert mean_deviation(read, first, held)[2] == len(report_campaign.REFERENCE) - 2


def test_tables_list_every_label_and_walker(read):
    labels = tables.label_table(read)
    assert labels.count("<tr>") == 36 + 1 and "the SCF did not converge in 100 steps" in labels
    walkers = tables.walker_table(read)
    assert walkers.count("<tr>") == 12 + 1
    assert "stopped: temperature above the limit (2411 K &gt; 2000 K)" in walkers


def test_timeline_tells_the_decisions_in_order(read):
    text = re.sub(r"<[^>]+>", " ", tables.timeline(read))
    order = ["Campaign: created", "Generation 1: promoted", "Generation 2: held", "Generation 3: promoted", "finished"]
    places = [text.index(word) for word in order]
    assert places == sorted(places)


def test_recipe_changes_are_told(read):
    change = {"key": "explore.steps", "old": 100, "new": 200}
    read.ledger.append({"event": "recipe_changed", "changes": [change], "time": 1.79e9})
    assert "explore.steps: 100 → 200" in tables.timeline(read)
    read.ledger.pop()


def test_page_loads_nothing_and_holds_everything(page):
    html = page.read_text()
    assert len(html) < 8e6
    head = html[: html.index("<script>")]
    assert not re.search(r"""(src|href|srcset|action|data)\s*=\s*["']?\s*(https?:)?//""", head)
    assert "@import" not in head and "url(" not in head
    assert "default-src 'none'" in head
    assert html.count("</script>") == 3


def test_names_from_files_are_escaped(fresh):
    evil = "<script>alert(1)</script>&\"'"
    html = render(read_campaign(fresh(name=evil, text=evil)))
    assert html.count("</script>") == 3
    assert "<script>alert(1)" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;&quot;&#x27;" in html
    assert json.loads(script_safe(json.dumps({"a": evil}))) == {"a": evil}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (239.6, "240"),
        (36.44, "36.4"),
        (-0.01234, "−0.0123"),
        (9.9996, "10.0"),
        (123456.0, "123\u202f456"),
        (1.5e-7, "1.50 × 10⁻⁷"),
        (float("nan"), "–"),
        (float("inf"), "–"),
        (None, "–"),
        (True, "–"),
        ("3", "–"),
    ],
)
def test_numbers(value, text):
    assert words.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.03, "+3.0 %"), (-0.848, "−84.8 %"), (0.0, "±0.0 %"), (-1e-5, "±0.0 %"), (2.5, "+250 %")]
)
def test_percent(value, text):
    assert words.percent(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.002, "< 0.01 s"), (0.31, "0.31 s"), (42.4, "42 s"), (600, "10 min"), (9000, "2.5 h"), (None, "–")],
)
def test_duration(seconds, text):
    assert words.duration(seconds) == text
