"""The table of ingested results: every result has its line, with the steps taken or the reason."""

from __future__ import annotations

from pathlib import Path

from ase import Atoms
from ase.io import write

from aldriver.core.frames import with_labels
from aldriver.testing.ingest_table import main


def test_every_result_has_its_line(tmp_path: Path, capsys):
    (tmp_path / "runs").mkdir()
    good = with_labels(Atoms("Cu", cell=[3, 3, 3], pbc=True), energy=-3.7, forces=[[0.0, 0.0, 0.0]])
    write(tmp_path / "runs" / "a.xyz", [good, Atoms("Cu", cell=[3, 3, 3], pbc=True)], format="extxyz")
    (tmp_path / "runs" / "b.out").write_text("")
    (tmp_path / "runs" / "note.md").write_text("|")
    main([str(tmp_path), "runs"])
    said = capsys.readouterr().out
    assert "1 labels accepted into 1 data sets, 2 refused, 1 files" in said
    assert "| a.xyz | 1 (unknown: level of theory not stated) | 1 × the frame has no energy and forces |" in said
    assert "| b.out | – | the file is empty |" in said
