"""What every labeler must keep, whatever its engine."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from label_stubs import Springs, fake_espresso, silicon, spec

from aldriver.core import recipe
from aldriver.label import Label, label_frame, make_labeler
from aldriver.label.calculator import CalculatorLabeler

ENGINES = ["calculator", "espresso", "vasp", "ase", "gpaw", "cp2k"]


@pytest.fixture(params=ENGINES)
def engine(request, tmp_path):
    if request.param == "calculator":
        return CalculatorLabeler(Springs(bulk("Si", a=5.43)), spec(), elements=("Si",)), spec()
    if request.param == "espresso":
        return fake_espresso(tmp_path / "fake", "cat $OUT")
    if request.param == "ase":
        lj = {"calculator": "ase.calculators.lj:LennardJones"}
        return make_labeler(recipe.Label(engine="ase", ase=lj), ["Si"])
    if request.param == "gpaw":
        return make_labeler(recipe.Label(engine="gpaw", gpaw={"command": "/no/gpaw", "ecut_eV": 200}), ["Si"])
    if request.param == "cp2k":
        kinds = {"basis": {"Si": "SZV"}, "potential": {"Si": "GTH"}}
        return make_labeler(recipe.Label(engine="cp2k", cp2k=kinds | {"command": "/no/cp2k", "cutoff_Ry": 99}), ["Si"])
    return make_labeler(recipe.Label(engine="vasp", vasp={"potcars": {"Si": "Si"}, "kpoints": (1, 1, 1)}), ["Si"])


FRAMES = {
    "good": silicon(),
    "unknown element": Atoms("Xe", cell=np.eye(3) * 5, pbc=True),
    "molecule": Atoms("Si2", positions=[[0, 0, 0], [2.2, 0, 0]]),
    "not finite": Atoms("Si2", positions=[[0, 0, 0], [np.nan, 0, 0]], cell=np.eye(3) * 5, pbc=True),
    "empty": Atoms(cell=np.eye(3), pbc=True),
}


@pytest.mark.parametrize("name", FRAMES)
def test_every_frame_ends_as_a_value_or_a_reason(engine, name, tmp_path):
    labeler, how = engine
    frame = FRAMES[name].copy()
    label = label_frame(frame, labeler, how, tmp_path / "labels")
    assert isinstance(label, Label)
    assert frame == FRAMES[name] or name == "not finite"  # the frame itself is left alone
    if label.ok:
        assert name in ("good", "molecule") or how.engine == "ase"  # Lennard-Jones knows every element
        assert np.isfinite(label.energy)
        assert label.forces.shape == (len(frame), 3)
        assert label.seconds >= 0
        assert label.cpu_s >= 0
    else:
        assert len(label.reason) > 10


def test_preflight_and_warnings_are_sentences_and_identity_is_stable(engine):
    labeler, _ = engine
    for text in [*labeler.preflight(), *labeler.warnings()]:
        assert isinstance(text, str)
        assert len(text) > 20
    assert labeler.code_id == labeler.code_id
    assert labeler.code_id.split(":")[0] in ENGINES


def test_after_cancel_nothing_is_computed_or_published(engine, tmp_path):
    labeler, how = engine
    assert not labeler.cancelled
    labeler.cancel()
    assert label_frame(silicon(), labeler, how, tmp_path / "labels").status == "cancelled"
    assert list((tmp_path / "labels").iterdir()) == []


def test_provenance_names_engine_method_settings_host_and_parent(engine, tmp_path):
    labeler, how = engine
    p = label_frame(silicon(), labeler, how, tmp_path / "labels").provenance
    assert {"engine", "method", "settings_digest", "code_id", "host", "parent", "created"} <= set(p)
    assert p["settings_digest"] == how.digest()
