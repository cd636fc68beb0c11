from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from label_stubs import UPF_V2

from aldriver.core.errors import InputError
from aldriver.label.upf import read_upf

DEBIAN = Path("/usr/share/espresso/pseudo")

UPF_V1 = """<PP_HEADER>
   0                   Version Number
  Al                   Element
   NC                  Norm - Conserving pseudopotential
    F                  Nonlinear Core Correction
 SLA  PZ   NOGX NOGC   PZ   Exchange-Correlation functional
    3.00000000000      Z valence
"""


def test_both_versions_of_the_format(tmp_path):
    for text, expected in ((UPF_V2, ("Si", "PBE", 4.0)), (UPF_V1, ("Al", "LDA", 3.0))):
        path = tmp_path / "x.UPF"
        path.write_text(text)
        upf = read_upf(path)
        assert (upf.element, upf.functional, upf.valence) == expected
        assert upf.md5 == hashlib.md5(text.encode()).hexdigest()
        assert upf.sha256 == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    "words", ["SLA  PW   PBE  PBE", "SLA  PW   PBX  PBC", "PBE", "sla+pw+pbx+pbc", "SLA-PW-PBX-PBC"]
)
def test_spellings_of_pbe(tmp_path, words):
    path = tmp_path / "x.UPF"
    path.write_text(UPF_V2.replace("SLA  PW   PBE  PBE", words))
    assert read_upf(path).functional == "PBE"


def test_missing_or_foreign_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.UPF"):
        read_upf(tmp_path / "nothing.UPF")
    (tmp_path / "x.UPF").write_text("hello")
    with pytest.raises(InputError, match="is it a UPF file"):
        read_upf(tmp_path / "x.UPF")


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's pseudopotentials are not installed")
@pytest.mark.parametrize(
    ("name", "element", "functional", "valence"),
    [
        ("Si.pbe-rrkj.UPF", "Si", "PBE", 4),
        ("Fe.pbe-nd-rrkjus.UPF", "Fe", "PBE", 8),
        ("Fe.pbe-spn-rrkjus_psl.0.2.1.UPF", "Fe", "PBE", 16),
        ("Al.pz-vbc.UPF", "Al", "LDA", 3),
        ("O.pbe-kjpaw.UPF", "O", "PBE", 6),
    ],
)
def test_real_files(name, element, functional, valence):
    upf = read_upf(DEBIAN / name)
    assert (upf.element, upf.functional, upf.valence) == (element, functional, valence)
