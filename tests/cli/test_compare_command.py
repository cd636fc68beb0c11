"""``aldriver compare`` and what ``aldriver benchmark`` says of a reference."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from aldriver.cli.main import main

EAM = "eam:Fe_mm.eam.fs"


def call(*args):
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in args])
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """A result of ``aldriver benchmark`` in a file."""
    path = tmp_path_factory.mktemp("result") / "fe.json"
    assert call("benchmark", EAM, "--structure", "bcc-Fe", "--supercell", "3x3x3", "--json", path) == 0
    return path


def test_the_benchmark_says_how_far_off_it_is(result, capsys):
    data = json.loads(result.read_text())
    assert set(data) == {"potential", "fingerprint", "records", "score", "warnings"}
    # Mendelev's iron against the DFT of Mohandas: 2.855 of 2.83 Å is 0.9 %, half way from good (0.2 %) to bad (2 %)
    assert data["score"]["groups"]["bcc-Fe/lattice_constant"] == pytest.approx(0.62, abs=0.02)
    assert any("contradicts itself" in text for text in data["warnings"])


def test_a_result_is_its_own_best_reference(result, capsys):
    assert call("benchmark", EAM, "--structure", "bcc-Fe", "--supercell", "3x3x3", "--reference", result) == 0
    shown = capsys.readouterr().out
    assert "Score 1.00 of 1" in shown and "+0.0%" in shown


def test_potentials_side_by_side(result, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert call("compare", result, "--published", "--html", page, "--json", tmp_path / "c.json") == 0
    found = json.loads((tmp_path / "c.json").read_text())
    assert found["candidates"][:2] == [EAM, "chgnet:0.2.0 (published)"]
    row = next(r for r in found["rows"] if r["property"] == "vacancy_formation_energy")
    assert row["reference"]["value"] == 2.19
    assert row["cells"]["chgnet:0.2.0 (published)"]["deviation"] == pytest.approx(-0.667, abs=1e-3)
    assert 0 <= found["scores"][EAM]["value"] <= 1
    html = page.read_text()
    assert "Potentials side by side" in html and EAM in html and "Mohandas" in html
    assert "src=" not in html.split("<script>")[0] and "http-equiv" in html
    assert "figure of merit" in capsys.readouterr().out


def test_potentials_are_benchmarked_when_a_suite_is_given(tmp_path, capsys):
    suite = tmp_path / "small.yaml"
    suite.write_text(yaml.safe_dump({"benchmark": {"properties": ["lattice"], "cases": ["bcc-Fe"]}}))
    assert call("compare", EAM, "chgnet:0.2.0", "--suite", suite, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    (row,) = found["rows"]
    assert [round(c["value"], 3) for c in row["cells"].values()] == [2.855, 2.849]


def test_generations_of_a_campaign(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "report")
    import report_campaign

    from aldriver.core.store import sha256_file

    root = report_campaign.build(tmp_path / "campaign")
    card = {"id": "fe-vacancy-1", "digest": "0", "recipe_sha256": sha256_file(root / "recipe.yaml")}
    (root / "campaign.json").write_text(json.dumps(card | {"name": "fe-vacancy"}))
    code = call("compare", root, "--reference", root, "--json")
    shown = capsys.readouterr().out
    assert code == 0, shown
    found = json.loads(shown)
    assert found["candidates"][0].endswith("foundation")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "chgnet:0.2.0"], "say on what: --suite NAME"),
        (["compare", "no.json"], "no such file"),
        (["compare", "fe.json", "fe.json"], "called 'eam:Fe_mm.eam.fs'; give each once"),
        (["compare", "fe.json", "--reference", "dft.json"], "no such file or campaign"),
        (["compare", "fe.json", "--reference", "empty.json"], "no value that can be trusted"),
        (["benchmark", "--structure", "bcc-Fe"], "say what to benchmark: a POTENTIAL"),
        (["benchmark", EAM, "--structure", "bcc-Fe", "--reference", "dft"], "leave 'eam:Fe_mm.eam.fs' out"),
        (["benchmark", "--structure", "bcc-Fe", "--reference", "dft"], "--spec FILE"),
        (["benchmark", EAM, "--structure", "bcc-Fe", "--spec", "x.yaml"], "means nothing for a potential"),
        (["benchmark", EAM, "--structure", "bcc-Fe", "--reference", "gone.json"], "makes one with DFT"),
        (["benchmark", EAM, "--suite", "nickel"], "no suite is called 'nickel'"),
        (["benchmark", EAM, "--structure", "fcc-Cu"], "does not know the element Cu"),
    ],
)
def test_bad_input_says_what_to_do(arguments, message, result, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fe.json").write_text(result.read_text())
    (tmp_path / "empty.json").write_text(json.dumps({"potential": "x", "records": []}))
    assert call(*arguments) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_reference_by_the_engine_of_a_label_block(tmp_path, capsys):
    spec = tmp_path / "label.yaml"
    spec.write_text(yaml.safe_dump({"label": {"engine": "calculator", "reference": EAM, "budget": 4}}))
    made = tmp_path / "reference.json"
    assert (
        call("benchmark", "--reference", "dft", "--spec", spec, "--structure", "bcc-Fe", "--properties", "lattice",
             "--labels", tmp_path / "labels", "--json", made) == 0
    )  # fmt: skip
    data = json.loads(made.read_text())
    assert "stand-in" in data["potential"]
    assert data["records"][0]["value"] == pytest.approx(2.8553, abs=2e-4)
    assert call("benchmark", EAM, "--structure", "bcc-Fe", "--properties", "lattice", "--reference", made) == 0
    assert "Score 1.00" in capsys.readouterr().out
