from __future__ import annotations

import pytest

from aldriver.testing.convergence import main


def test_a_row_for_each_size(capsys):
    assert main(["eam:Fe_mm.eam.fs", "bcc-Fe", "vacancy", "supercell=2,3"]) == 0
    head, _, small, large = capsys.readouterr().out.strip().split("\n")
    assert head.split("|")[2].strip() == "vacancy_formation_energy (eV)"
    of_small, of_large = (float(line.split("|")[2].split("±")[0]) for line in (small, large))
    assert of_large == pytest.approx(1.72, abs=0.01)  # of this potential in large cells
    assert 0.01 < abs(of_small - 1.72) < 0.1  # 15 atoms


def test_an_option_of_the_property_s_block(capsys):
    main(["eam:Fe_mm.eam.fs", "bcc-Fe", "surface", "surface.thickness_A=8,12", "--with", '{"planes": [[1, 1, 0]]}'])
    thin, thick = [float(line.split("|")[2].split("±")[0]) for line in capsys.readouterr().out.strip().split("\n")[2:]]
    assert thin == pytest.approx(thick, abs=0.01)
