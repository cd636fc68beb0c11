"""A labeler in the place of a potential: references by the same protocols."""

import json

import numpy as np
import pytest

from aldriver.benchmark.cases import case_by_name
from aldriver.benchmark.suite import run_suite
from aldriver.core.errors import AldriverError, InputError
from aldriver.core.recipe_benchmark import Benchmark
from aldriver.core.recipe_label import Label as LabelBlock
from aldriver.label import Label, Labeler, LabelSpec
from aldriver.workflow.labelled import LabelledPotential, labelled_potential

BLOCK = LabelBlock.model_validate({"engine": "calculator", "reference": "eam:Fe_mm.eam.fs", "budget": 4})
SETTINGS = Benchmark(properties=["lattice", "elastic", "vacancy"], cases=[case_by_name("bcc-Fe", supercell=(2, 2, 2))])


class Odd(Labeler):
    """Labels without a stress, or none at all."""

    code_id = "odd"

    def __init__(self, *, fails=False):
        super().__init__()
        self.fails = fails

    def preflight(self):
        return []

    def label(self, frame, workdir):
        if self.fails:
            return Label(status="unconverged", reason="60 SCF steps were not enough")
        return Label(status="ok", energy=-1.0, forces=np.zeros((len(frame), 3)))


def odd(tmp_path, **options):
    return LabelledPotential(Odd(**options), LabelSpec(engine="odd", method="odd"), tmp_path)


def test_the_reference_is_what_the_potential_itself_gives(eam_fe, tmp_path):
    potential = labelled_potential(BLOCK, ["Fe"], tmp_path / "labels", threads=1)
    by_label = run_suite(potential, SETTINGS, cache_dir=None)
    direct = run_suite(eam_fe, SETTINGS, cache_dir=None)
    assert [r.property for r in by_label] == [r.property for r in direct]
    for label, own in zip(by_label, direct, strict=True):
        assert label.converged and label.value == pytest.approx(own.value, rel=1e-6)
    assert "stand-in" in potential.name
    made = len(list((tmp_path / "labels").glob("*/label.json")))
    before = sorted(p.stat().st_mtime_ns for p in (tmp_path / "labels").glob("*/label.json"))
    again = labelled_potential(BLOCK, ["Fe"], tmp_path / "labels", threads=1)
    run_suite(again, SETTINGS, cache_dir=None)
    assert again.fingerprint == potential.fingerprint
    assert sorted(p.stat().st_mtime_ns for p in (tmp_path / "labels").glob("*/label.json")) == before
    assert made == len(before) > 10


def test_a_label_without_a_value_is_a_property_without_one(bcc_frame, tmp_path):
    with pytest.raises(AldriverError, match="unconverged: 60 SCF steps"):
        odd(tmp_path, fails=True).evaluate([bcc_frame])
    records = run_suite(odd(tmp_path, fails=True), SETTINGS, cache_dir=None)
    assert all(r.value is None and "60 SCF steps" in r.reason for r in records)


def test_a_missing_stress_is_said(bcc_frame, tmp_path):
    with pytest.raises(AldriverError, match="gives no stress"):
        odd(tmp_path).evaluate([bcc_frame])
    assert odd(tmp_path).evaluate([bcc_frame], stress=False)[0].energy == -1.0


def test_what_the_engine_lacks_is_bad_input(tmp_path):
    with pytest.raises(InputError, match="does not know Cu"):
        labelled_potential(BLOCK, ["Cu"], tmp_path, threads=1)


def test_the_labels_say_where_they_are_from(bcc_frame, tmp_path):
    potential = labelled_potential(BLOCK, ["Fe"], tmp_path, threads=1)
    potential.evaluate([bcc_frame])
    (path,) = tmp_path.glob("*/label.json")
    assert json.loads(path.read_text())["provenance"]["stand_in"] is True


@pytest.fixture
def bcc_frame():
    from ase.build import bulk

    atoms = bulk("Fe", "bcc", a=2.86, cubic=True)
    atoms.set_initial_magnetic_moments(None)
    return atoms
