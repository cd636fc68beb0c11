from __future__ import annotations

import pytest
from label_stubs import script, silicon

from aldriver.core import recipe
from aldriver.label import label_frame, make_labeler


@pytest.fixture
def labeler(monkeypatch, tmp_path):
    monkeypatch.delenv("PMG_VASP_PSP_DIR", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    settings = recipe.Label(engine="vasp", vasp={"command": "srun vasp_std", "potcars": {"Si": "Si", "Fe": "Fe_pv"}})
    return make_labeler(settings, ["Si", "Fe", "Cu"])


def test_everything_that_is_missing_is_named(labeler):
    text = "\n".join(labeler[0].preflight())
    for words in (
        "'srun' was not found",
        "'vasp_std' was not found",
        "PMG_VASP_PSP_DIR is not set",
        "no POTCAR for Cu",
    ):
        assert words in text


def test_what_is_there_is_not_called_missing(labeler, monkeypatch, tmp_path):
    for name in ("srun", "vasp_std"):
        script(tmp_path / "bin" / name, "exit 0")
    potcars = tmp_path / "psp" / "POT_GGA_PAW_PBE"
    potcars.mkdir(parents=True)
    (potcars / "POTCAR.Fe_pv.gz").touch()
    monkeypatch.setenv("PMG_VASP_PSP_DIR", str(tmp_path / "psp"))
    problems = labeler[0].preflight()
    assert not any("PATH" in p or "Fe_pv" in p for p in problems)
    assert any("no POTCAR 'Si' for Si" in p for p in problems)
    assert "does not run VASP" in problems[-1]
    monkeypatch.setenv("PMG_VASP_PSP_DIR", str(tmp_path / "nowhere"))
    assert any("not a folder" in p for p in labeler[0].preflight())


def test_a_label_is_the_reason(labeler, tmp_path):
    label = label_frame(silicon(), *labeler, tmp_path / "labels")
    assert label.status == "failed"
    assert label.reason.startswith("vasp is not available: ")
