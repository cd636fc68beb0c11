"""Dumps as LAMMPS itself writes them give back the cell that LAMMPS had; half frames and nonsense are told apart."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk

from aldriver.core.errors import InputError
from aldriver.monitor.lammps_dump import next_frame, to_atoms
from aldriver.potentials.lammps_library import new_lammps, potential_file

COLUMNS = {"x": "x y z", "xs": "xs ys zs", "xu": "xu yu zu", "xsu": "xsu ysu zsu"}
SETUP = """\
units metal
atom_style atomic
atom_modify map array
boundary p p p
box tilt large
region cell prism 0 8.7 0 8.7 0 8.7 0 0 0 units box
create_box 2 cell
lattice bcc 2.9
create_atoms 1 box
change_box all {tilts} remap
set atom 3*9 type 2
mass 1 55.845
mass 2 55.845
pair_style eam/fs
pair_coeff * * {file} Fe Fe
displace_atoms all random 0.1 0.1 0.1 7
velocity all create 1500 3
fix md all nve
"""


def frames_of(data: bytes) -> list:
    found = []
    while True:
        frame, taken = next_frame(data)
        if frame is None:
            assert taken == 0
            return found
        found.append(frame)
        data = data[taken:]


@pytest.mark.parametrize(
    "tilts", ["xy final 0", "xy final 1.1 xz final -0.9 yz final 1.2", "xy final -1.3 xz final -1.2 yz final -0.8"]
)
def test_lammps_own_dumps_give_its_own_energy(tilts, tmp_path, eam_fe):
    """All kinds of coordinates, atoms out of order, tilted boxes that lie partly below their bounds."""
    lmp = new_lammps()
    lmp.commands_string(SETUP.format(tilts=tilts, file=potential_file("Fe_mm.eam.fs")))
    for name, columns in COLUMNS.items():
        lmp.command(f"dump {name} all custom 20 {tmp_path}/{name} id type {columns}")
        lmp.command(f"dump_modify {name} format float %.14g units yes time yes")
    lmp.command("run 40")
    energy = lmp.get_thermo("pe")
    lmp.close()
    for name in COLUMNS:
        frames = frames_of((tmp_path / name).read_bytes())
        assert [frame.step for frame in frames] == [0, 20, 40]
        atoms = to_atoms(frames[-1], ["Fe", "Fe"])
        assert eam_fe.evaluate([atoms])[0].energy == pytest.approx(energy, abs=1e-6), name
        assert atoms.pbc.all() and atoms.info["step"] == 40
        mixed = to_atoms(frames[-1], ["Fe", "Cu"])
        assert [i for i, s in enumerate(mixed.symbols) if s == "Cu"] == list(range(2, 9))


def test_box_flip_changes_nothing(eam_fe, distances):
    """A tilt of xy and of xy - lx are the same lattice."""
    found = []
    for tilt in (4.4, 4.4 - 9.0):
        cell = np.array([[9.0, 0, 0], [tilt, 8.5, 0], [0, 0, 8.8]])
        scaled = np.array([[1.0, 1, 1], [3, 2.5, 1], [6, 4, 5]]) @ np.linalg.inv(cell)
        rows = "".join(f"{i + 1} 1 {x:.14f} {y:.14f} {z:.14f}\n" for i, (x, y, z) in enumerate(scaled))
        low, high = min(0, tilt), 9.0 + max(0, tilt)
        bounds = f"xy xz yz pp pp pp\n{low} {high} {tilt}\n0 8.5 0\n0 8.8 0\n"
        text = frame_text(rows=rows, n=3, columns="id type xs ys zs").decode()
        text = text.replace("pp pp pp\n0 4\n0 4\n0 4\n", bounds)
        found.append(to_atoms(next_frame(text.encode())[0], ["Fe"]))
    assert np.allclose(distances(found[0]), distances(found[1]), atol=1e-5)
    energies = [p.energy for p in eam_fe.evaluate(found)]
    assert energies[0] == pytest.approx(energies[1], abs=1e-4)


def test_general_triclinic_boxes(distances):
    """The header of `dump_modify triclinic/general yes`: three edge vectors and the origin."""
    atoms = bulk("Fe", "bcc", a=2.855) * (2, 2, 2)  # primitive: not along the axes LAMMPS likes
    atoms.rattle(0.1, seed=1)
    origin = np.array([1.0, -2.0, 0.5])
    cell = "\n".join(" ".join(f"{v:.12g}" for v in [*row, o]) for row, o in zip(atoms.cell, origin, strict=True))
    rows = "\n".join(f"{i + 1} Fe " + " ".join(f"{v:.12g}" for v in p) for i, p in enumerate(atoms.positions + origin))
    text = f"ITEM: TIMESTEP\n5\nITEM: NUMBER OF ATOMS\n{len(atoms)}\n"
    text += f"ITEM: BOX BOUNDS abc origin pp pp ff\n{cell}\nITEM: ATOMS id element x y z\n{rows}\n"
    frame, taken = next_frame(text.encode())
    assert taken == len(text)
    read = to_atoms(frame, None)
    assert np.allclose(np.asarray(read.cell), np.asarray(atoms.cell)) and list(read.pbc) == [True, True, False]
    assert np.allclose(read.positions, atoms.positions)


def frame_text(rows="1 1 0 0 0\n2 1 1 1 1\n", n=2, columns="id type x y z", step=7) -> bytes:
    head = f"ITEM: TIMESTEP\n{step}\nITEM: NUMBER OF ATOMS\n{n}\nITEM: BOX BOUNDS pp pp pp\n0 4\n0 4\n0 4\n"
    return f"{head}ITEM: ATOMS {columns}\n{rows}".encode()


def test_half_a_frame_is_no_frame_at_any_byte():
    whole = frame_text()
    for cut in range(len(whole)):
        assert next_frame(whole[:cut]) == (None, 0)
    frame, taken = next_frame(whole + b"ITEM: TIMES")
    assert frame.step == 7 and taken == len(whole)


@pytest.mark.parametrize("cut", range(1, len(frame_text()) - 1, 7))
def test_a_frame_that_broke_off_is_dropped_and_the_next_one_read(cut):
    """LAMMPS was killed in mid-frame and appended after its restart."""
    whole = frame_text()
    first, taken = next_frame(whole[:cut] + frame_text(step=9))
    assert isinstance(first, str)
    second, _ = next_frame((whole[:cut] + frame_text(step=9))[taken:])
    assert second.step == 9


def test_what_cannot_be_read_is_said_and_passed_over():
    text, taken = next_frame(frame_text(rows="1 1 0 0\n2 1 1 1 1\n") + frame_text())
    assert (
        "4 values for 5 columns" in text
        and next_frame((frame_text(rows="1 1 0 0\n2 1 1 1 1\n") + frame_text())[taken:])[0].step == 7
    )
    text, _ = next_frame(b"Lorem ipsum\n" + frame_text())
    assert "no part of one" in text
    text, _ = next_frame(b"x" * 5000)
    assert "no frame" in text


@pytest.mark.parametrize(
    ("changes", "elements", "message"),
    [
        ({}, None, "no column `element`"),
        ({"rows": "1 1 0 0 0\n2 3 1 1 1\n"}, ["Fe", "Cu"], "atom type 3 has no element"),
        ({"columns": "id element x y z", "rows": "1 Fe 0 0 0\n2 Xx 1 1 1\n"}, None, "Xx, which is no chemical symbol"),
        ({"columns": "id type vx vy vz"}, ["Fe"], "no coordinates"),
        ({"columns": "id q x y z"}, ["Fe"], "neither a column `element` nor `type`"),
        ({"rows": "1 1 0 0 0\n1 1 1 1 1\n"}, ["Fe"], "same id"),
    ],
)
def test_dumps_that_do_not_say_what_they_hold_are_refused(changes, elements, message):
    frame, _ = next_frame(frame_text(**changes))
    with pytest.raises(InputError, match=message):
        to_atoms(frame, elements)


def test_units_without_angstrom_are_refused():
    text = b"ITEM: UNITS\nlj\nITEM: TIME\n0.5\n" + frame_text()
    frame, taken = next_frame(text)
    assert taken == len(text)
    with pytest.raises(InputError, match="units 'lj'"):
        to_atoms(frame, ["Fe"])
