"""The campaigns with real DFT: where test cells come from, DFT as a potential, what is gathered (no DFT is run here)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from aldriver.benchmark.cases import case_by_name
from aldriver.benchmark.lattice import relax_lattice
from aldriver.core.recipe_label import Label
from aldriver.potentials.base import Potential
from aldriver.testing import real_campaigns, real_cells, real_dft, real_page, runs

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture
def silicon():
    return bulk("Si", "diamond", a=5.47, cubic=True)


@pytest.fixture
def aluminium():
    return bulk("Al", "fcc", a=4.0, cubic=True)


def test_classical_potentials_are_those_of_their_papers(silicon):
    """Stillinger–Weber silicon: a = 5.431 Å, −4.3364 eV an atom (Phys. Rev. B 31, 5262 (1985), scaled to 4.3364 eV)."""
    plan = real_campaigns.CASES["si"].plan
    silicon.set_cell(silicon.cell * 5.4310 / 5.47, scale_atoms=True)
    silicon.calc = plan.classical.calculator("Si")
    assert silicon.get_potential_energy() / len(silicon) == pytest.approx(-4.3364, abs=2e-4)
    assert np.abs(silicon.get_forces()).max() < 1e-6
    assert np.abs(silicon.get_stress()).max() < 1e-3


def test_cells_of_each_class_are_new_reproducible_and_not_torn_apart(silicon, monkeypatch):
    monkeypatch.setattr(real_cells, "SETTLE", 20)
    monkeypatch.setattr(real_cells, "EVERY", 5)
    monkeypatch.setattr(real_cells, "FRAMES", 2)
    plan = replace(real_campaigns.CASES["si"].plan, warm_K=(300.0,))
    cells = real_cells.make_cells(plan, silicon, silicon.repeat((2, 1, 1)))
    again = real_cells.make_cells(plan, silicon, silicon.repeat((2, 1, 1)))
    assert real_cells.classes(cells) == {"bulk": 2, "vacancy": 2, "hop": 6, "hot": 4, "other": 2}
    assert all(np.array_equal(a.positions, b.positions) for a, b in zip(cells, again, strict=True))
    assert {len(c) for c in cells} == {7, 8, 15}
    for cell in cells:
        assert cell.calc is None and cell.get_all_distances(mic=True)[0, 1:].min() > 1.8
    for one in cells[:2]:  # strained, by no more than was said
        ratio = one.get_volume() / silicon.get_volume()
        assert ratio != 1.0 and abs(ratio - 1.0) < 3 * (real_cells.STRAIN + real_cells.SHEAR) + 0.01


def test_hop_images_lead_from_the_neighbour_to_the_vacancy(aluminium, monkeypatch):
    monkeypatch.setattr(real_cells, "HOP_RATTLE_A", 0.0)
    perfect = aluminium.repeat((2, 2, 2))
    images = real_cells.hop_images(perfect)
    moved = [np.linalg.norm(image.positions - perfect.positions[1:], axis=1) for image in images]
    assert all(np.count_nonzero(m > 1e-9) == 1 for m in moved)
    path = 4.0 / np.sqrt(2)
    assert [m.max() / path for m in moved] == pytest.approx(list(real_cells.HOPS))
    last = images[-1].positions[int(np.argmax(moved[-1]))] - perfect.positions[0]
    assert np.linalg.norm(last) == pytest.approx(path * (1 - real_cells.HOPS[-1]))


class Ideal(Potential):
    """Counts evaluations of a potential."""

    family, has_features = "counting", False

    def __init__(self, inner):
        self.inner, self.calls = inner, 0
        self.name, self.elements, self.fingerprint = inner.name, inner.elements, inner.fingerprint

    def evaluate(self, frames, **options):
        self.calls += len(frames)
        return self.inner.evaluate(frames, **options)


@pytest.fixture
def eam_al():
    from aldriver import load

    return load("eam:Al_mm.eam.fs")


def test_labels_as_a_potential_give_the_properties_of_what_labels(eam_al, aluminium, tmp_path):
    """An EAM potential that labels: the same numbers as by itself, each cell computed once."""
    cell = aluminium.repeat((2, 2, 1))
    settings = Label(engine="calculator", reference="eam:Al_mm.eam.fs")
    wrapped = real_dft.Labelled(settings, ["Al"], tmp_path / "labels")
    found = real_dft.properties(wrapped, cell, 4.0)
    itself = real_dft.properties(eam_al, cell, 4.0)
    assert found == itself
    labels = sorted((tmp_path / "labels").glob("*/label.json"))
    stamps = [p.stat().st_mtime_ns for p in labels]
    assert real_dft.properties(wrapped, cell, 4.0) == found
    assert sorted((tmp_path / "labels").glob("*/label.json")) == labels
    assert [p.stat().st_mtime_ns for p in labels] == stamps
    a = relax_lattice(eam_al, case_by_name("fcc-Al")).a
    assert found.lattice_constant == pytest.approx(a, abs=5e-3)
    assert found.vacancy_converged and 0.0 < found.vacancy_relaxed < found.vacancy_unrelaxed


def test_the_equilibrium_is_found_from_a_start_beyond_the_curve(eam_al, aluminium):
    near, far = aluminium.copy(), aluminium.copy()
    far.set_cell(aluminium.cell * 0.96, scale_atoms=True)
    fits = [real_dft.equation_of_state(eam_al, cell) for cell in (near, far)]
    assert fits[0].volume == pytest.approx(fits[1].volume, rel=2e-3)


def test_a_frame_without_a_label_stops_the_property(tmp_path, aluminium):
    from aldriver.core.errors import AldriverError

    limits = {"max_force_eV_A": 1e-6}
    settings = Label(engine="calculator", reference="eam:Al_mm.eam.fs", limits=limits)
    wrapped = real_dft.Labelled(settings, ["Al"], tmp_path / "labels")
    aluminium.rattle(0.1, seed=0)
    with pytest.raises(AldriverError, match="no label"):
        wrapped.evaluate([aluminium])


def test_costs_come_from_the_ledger_and_labels_from_a_cache_cost_nothing(tmp_path):
    events = [
        {"event": "campaign_created", "time": 10.0},
        {"event": "published", "time": 12.0, "stage": "explore", "seconds": 4.0, "cpu_s": 2.0},
        {"event": "published", "time": 13.0, "stage": "explore", "seconds": 5.0, "cpu_s": 3.0},
        {"event": "label", "time": 14.0, "status": "ok", "cpu_s": 7.0, "cached": False},
        {"event": "label", "time": 15.0, "status": "ok", "cpu_s": 7.0, "cached": True},
        {"event": "label", "time": 40.0, "status": "timeout", "cpu_s": 1.0, "cached": False},
    ]
    (tmp_path / "ledger.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))
    assert real_campaigns.cost(tmp_path) == {
        "stages": {"explore": {"cpu_s": 5.0, "seconds": 9.0}},
        "labels": 3,
        "labels_failed": 1,
        "dft_cpu_s": 8.0,
    }


def measured(generation, force, labels, decision="promote", **classes):
    error = {"forces_rmse_meV_A": force, "forces_mae_meV_A": force / 2, "energy_rmse_meV_atom": 1.0}
    error |= {"energy_mae_meV_atom": 0.5, "stress_rmse_GPa": 0.3, "stress_mae_GPa": 0.2}
    error["groups"] = {name: {"forces_rmse_meV_A": value} for name, value in classes.items()}
    row = {"generation": generation, "labels": labels, "decision": decision, "reason": "why", "audit": None}
    return row | {"errors": error}


def test_the_verdict_is_the_promoted_generation_and_names_classes_that_got_worse():
    refused = {"generation": 2, "labels": 20, "decision": "hold", "reason": "r", "audit": None, "errors": None}
    rows = [
        measured(0, 200.0, 0, bulk=50.0, hop=300.0),
        measured(1, 80.0, 10, bulk=60.0, hop=90.0),
        refused,
        measured(3, 70.0, 30, decision="hold", bulk=40.0, hop=80.0),
    ]
    facts = {"name": "si", "state": "finished", "frames": {"bulk": 4, "hop": 2}, "generations": rows}
    assert real_page.outcome(facts)["generation"] == 1
    assert real_page.summary(facts) == "force RMSE 200 → 80 → 70 meV/Å"
    said = real_page._verdict(facts)
    assert (
        "on 6 independent DFT frames 200 → 80 meV/Å, energy 1 → 1 meV/atom (generation 1, 10 labels, promoted)" in said
    )
    assert said.endswith("forces are better in all classes but bulk.")
    held = facts | {"generations": [row | {"decision": "hold"} if row["generation"] else row for row in rows]}
    assert "(generation 3, 30 labels, held: the gate promoted none)" in real_page._verdict(held)
    assert "had not ended" in real_page._verdict(facts | {"state": "running"})
    assert "| generation 2 | 20 | hold | – | – | – |" in real_page._errors(facts)


def test_the_page_shows_what_the_results_hold():
    """Every generated number of the published page is made of the published results."""
    results = json.loads((DOCS / "real_campaigns.json").read_text())
    page = (DOCS / "real_campaigns.md").read_text()
    for name, section in real_page.sections(results["runs"]).items():
        assert f"<!-- {name} -->\n{section}\n<!-- /{name} -->" in page
    assert runs.finished(real_campaigns.study(), DOCS / "nowhere", DOCS / "real_campaigns.json")
