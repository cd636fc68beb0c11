"""A surrogate is fitted by LAMMPS' fitpod, judged on what it has not seen, run on one rank and two, or refused."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from ase.build import bulk

import aldriver
from aldriver.core.errors import AldriverError, InputError
from aldriver.core.frames import with_labels
from aldriver.core.records import PropertyRecord
from aldriver.export.fitpod import fit_pod, range_of, shortest
from aldriver.export.native import mpiexec, run_lmp, speed_of
from aldriver.export.surrogate import Material, distil, force_rmse, physical, verdict


def cells(count, seed):
    """Strained and rattled iron, with and without a vacancy."""
    random = np.random.default_rng(seed)
    out = []
    for k in range(count):
        atoms = bulk("Fe", "bcc", a=2.855, cubic=True) * ((1, 1, 1) if k % 4 == 0 else (2, 2, 2))
        if k % 4 == 1:
            del atoms[int(random.integers(16))]
        deformation = np.eye(3) * (1 + random.uniform(-0.03, 0.03)) + random.normal(0, 0.01, (3, 3))
        atoms.set_cell(np.asarray(atoms.cell) @ deformation, scale_atoms=True)
        atoms.positions += random.normal(0, random.uniform(0.0, 0.1), atoms.positions.shape)
        out.append(atoms)
    return out


def labelled(potential, frames):
    found = potential.evaluate(frames)
    return [
        with_labels(a, energy=p.energy, forces=p.forces, stress=p.stress) for a, p in zip(frames, found, strict=True)
    ]


@pytest.fixture(scope="module")
def material(eam_fe):
    record = PropertyRecord(property="thing", case="bcc-Fe", value=1.0, unit="eV", protocol="test")
    return Material(
        learn=cells(120, 1),
        heldout=cells(30, 2),
        labelled=labelled(eam_fe, cells(10, 3)),
        max_force_rmse_meV_A=40.0,
        measure=lambda pod: [dataclasses.replace(record, value=2.0)],
        parent_records=[record],
    )


@pytest.fixture(scope="module")
def made(eam_fe, material, tmp_path_factory):
    folder = tmp_path_factory.mktemp("a surrogate") / "surrogate"
    forms, report = distil(eam_fe, material, folder, bulk("Fe", "bcc", a=2.86, cubic=True) * (2, 2, 2))
    return folder, forms, report


def test_it_is_accurate_on_what_it_has_not_seen(made, material, eam_fe):
    folder, _, report = made
    assert report["reason"] == "" and json.loads((folder / "surrogate.json").read_text())["reason"] == ""
    pod = aldriver.load(folder)
    assert pod.family == "pod" and pod.elements == {"Fe"} and pod.fingerprint != eam_fe.fingerprint
    # what the report says, found again from the files and the parent alone
    held = force_rmse(pod, labelled(eam_fe, material.heldout))
    assert held == pytest.approx(report["from_parent"]["held_out"]["forces_rmse_meV_A"], rel=1e-3)
    size = np.sqrt(np.mean(np.concatenate([p.forces for p in eam_fe.evaluate(material.heldout)]) ** 2)) * 1e3
    assert held < 40.0 and held < 0.1 * size
    assert report["parent_force_rmse_meV_A"] == pytest.approx(0.0, abs=1e-6)  # the parent is the reference here
    assert report["benchmark"]["bcc-Fe/thing"] == {"unit": "eV", "parent": 1.0, "surrogate": 2.0, "reason": ""}


def test_plain_lammps_runs_it_on_one_rank_and_on_two(made):
    _, forms, report = made
    one, two = forms
    assert one.form == "pair_style pod" and one.status == "exported" and one.frames == 3
    assert one.max_dE < 1e-8 and one.max_dF < 1e-8 and one.max_dS < 0.1
    if mpiexec() is None:
        assert two.status == "not_run"
        pytest.skip("no mpiexec beside this Python")
    assert two.status == "exported" and two.max_dF < 1e-8
    speed = report["speed"]
    assert speed["surrogate_cpu_us_atom_step"] > 0
    assert speed["ratio"] == pytest.approx(speed["parent_cpu_us_atom_step"] / speed["surrogate_cpu_us_atom_step"])


def test_forces_and_stress_are_derivatives_of_the_energy(made):
    folder, _, _ = made
    pod, h = aldriver.load(folder), 1e-4
    atoms = cells(2, 5)[1]
    p = pod.evaluate([atoms])[0]
    moved = []
    for site, axis in ((0, 0), (3, 1), (7, 2)):
        for sign in (1, -1):
            copy = atoms.copy()
            copy.positions[site, axis] += sign * h
            moved.append(copy)
    energies = [q.energy for q in pod.evaluate(moved, stress=False)]
    for k, (site, axis) in enumerate(((0, 0), (3, 1), (7, 2))):
        numeric = -(energies[2 * k] - energies[2 * k + 1]) / (2 * h)
        assert p.forces[site, axis] == pytest.approx(numeric, abs=1e-5)
    for voigt, (i, j) in enumerate(((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))):
        energy = []
        for sign in (1, -1):
            strain = np.zeros((3, 3))
            strain[i, j] += sign * h / 2
            strain[j, i] += sign * h / 2
            copy = atoms.copy()
            copy.set_cell(np.asarray(atoms.cell) @ (np.eye(3) + strain), scale_atoms=True)
            energy.append(pod.evaluate([copy], stress=False)[0].energy)
        assert p.stress[voigt] == pytest.approx((energy[0] - energy[1]) / (2 * h) / atoms.get_volume(), abs=1e-6)


def test_one_that_misses_the_tolerance_is_refused(eam_fe, material, tmp_path):
    strict = dataclasses.replace(material, max_force_rmse_meV_A=0.01, measure=None)
    forms, report = distil(eam_fe, strict, tmp_path / "surrogate", bulk("Fe", "bcc", a=2.86, cubic=True))
    (form,) = forms
    assert form.status == "refused" and "not for use" in form.reason and "tolerated are 0.0" in form.reason
    assert report["from_parent"]["held_out"]["forces_rmse_meV_A"] > 0.01
    assert [p.name for p in (tmp_path / "surrogate").iterdir()] == ["surrogate.json"]
    with pytest.raises(InputError, match="not a potential"):
        aldriver.load(tmp_path / "surrogate")


def test_the_verdict_hears_every_number():
    def report(held=10.0, reference=10.0, benchmark=None):
        return {
            "tolerance_meV_A": 20.0,
            "from_parent": {"held_out": {"forces_rmse_meV_A": held}},
            "force_rmse_meV_A": reference,
            "benchmark": benchmark or {},
        }

    assert verdict(report()) == "" == verdict(report(reference=None))
    assert "held-out" in verdict(report(held=21.0)) and "held-out" in verdict(report(held=float("nan")))
    assert "reference" in verdict(report(reference=21.0))
    lost = {"bcc-Fe/c44": {"parent": 1.0, "surrogate": None}, "bcc-Fe/c11": {"parent": None, "surrogate": None}}
    assert "no bcc-Fe/c44," in verdict(report(benchmark=lost))


def test_an_interrupted_export_does_not_label_again(eam_fe, material, tmp_path, monkeypatch):
    from aldriver.export import surrogate

    first = surrogate._labelled(eam_fe, material.heldout, tmp_path, lambda done: None)
    monkeypatch.setattr(type(eam_fe), "evaluate", lambda *a, **k: pytest.fail("labelled again"))
    again = surrogate._labelled(eam_fe, material.heldout, tmp_path, lambda done: None)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_allclose(a.get_forces(), b.get_forces(), atol=1e-7)
        assert a.get_potential_energy() == pytest.approx(b.get_potential_energy(), abs=1e-6)


def test_frames_with_atoms_on_top_of_each_other_are_left_out():
    frames = cells(8, 4)
    frames[5].positions[0] = frames[5].positions[1] + [1.0, 0.0, 0.0]
    kept = physical(frames)
    assert len(kept) == 7 and min(shortest(a) for a in kept) > 1.7


def test_the_range_suits_the_distances():
    """Perfect bcc: 26 neighbours in three shells, the fourth at a·√11/2 is the 27th to the 50th."""
    a = 2.855
    within = range_of([bulk("Fe", "bcc", a=a)])
    assert within.inner == pytest.approx(0.9 * a * np.sqrt(3) / 2)
    assert within.outer == pytest.approx(a * np.sqrt(11) / 2)
    with pytest.raises(InputError, match="nothing to learn"):
        range_of([bulk("Fe", "bcc", a=20.0)])


def test_two_elements(tmp_path):
    parent = aldriver.load("eam:AlCu.eam.alloy")
    random, frames = np.random.default_rng(0), []
    for _ in range(60):
        atoms = bulk("Cu", "fcc", a=3.8 * (1 + random.uniform(-0.03, 0.03)), cubic=True) * (2, 1, 1)
        atoms.set_chemical_symbols(random.choice(["Al", "Cu"], len(atoms)))
        atoms.positions += random.normal(0, 0.08, atoms.positions.shape)
        frames.append(atoms)
    pod = fit_pod(labelled(parent, frames[:50]), tmp_path / "fit", name="pod")
    size = np.sqrt(np.mean(np.concatenate([p.forces for p in parent.evaluate(frames[50:])]) ** 2)) * 1e3
    assert pod.symbols == ["Al", "Cu"] and force_rmse(pod, labelled(parent, frames[50:])) < 0.25 * size


def test_what_is_missing_is_said(eam_fe, material, tmp_path):
    cell = bulk("Fe", "bcc", a=2.86, cubic=True)
    with pytest.raises(InputError, match="--tolerance"):
        distil(eam_fe, Material(learn=cells(4, 0), heldout=cells(4, 1)), tmp_path / "a", cell)
    with pytest.raises(InputError, match="configurations"):
        distil(eam_fe, Material(learn=[], heldout=[], max_force_rmse_meV_A=1.0), tmp_path / "a", cell)
    assert not (tmp_path / "a").exists()
    (tmp_path / "in.bad").write_text("units metal\nno_such_command\n")
    with pytest.raises(AldriverError, match="no_such_command"):
        run_lmp("in.bad", tmp_path)
    with pytest.raises(AldriverError, match="no finished run"):
        speed_of(tmp_path / "log.lammps")


@pytest.mark.parametrize("name", ["param.pod", "weights.pod"])
def test_files_that_were_touched_are_refused(made, tmp_path, name):
    import shutil

    folder, _, _ = made
    shutil.copytree(folder, tmp_path / "copy")
    text = (tmp_path / "copy" / name).read_text()
    (tmp_path / "copy" / name).write_text(text[: len(text) // 2])
    with pytest.raises(InputError, match="SHA-256"):
        aldriver.load(tmp_path / "copy")
    from aldriver.potentials.pod import PODPotential

    if name == "weights.pod":
        with pytest.raises(InputError, match="cut short"):
            PODPotential(folder / "param.pod", tmp_path / "copy" / name)


def test_an_export_stands_without_a_surrogate(eam_fe, tmp_path, monkeypatch):
    """No configurations, or a fit that fails: a form with its reason, and everything else as always."""
    from aldriver.export import lammps

    monkeypatch.setattr(lammps, "_forms", lambda *_: [])
    result = lammps.export_potential(eam_fe, tmp_path / "none", material=Material(learn=[], heldout=[]))
    assert [f["status"] for f in result["forms"]] == ["not_available"]
    assert "There is none: a surrogate needs configurations" in (tmp_path / "none" / "card.md").read_text()
    material = Material(learn=cells(4, 1), heldout=cells(2, 2), max_force_rmse_meV_A=1.0)

    def broken(*args, **kwargs):
        raise AldriverError("fitpod found nothing")

    monkeypatch.setattr("aldriver.export.surrogate.fit_pod", broken)
    result = lammps.export_potential(eam_fe, tmp_path / "failed", material=material)
    assert [(f["status"], f["reason"]) for f in result["forms"]] == [("failed", "fitpod found nothing")]
    assert not (tmp_path / "failed" / "surrogate").exists()


def test_the_command_distils_from_a_file(eam_fe, tmp_path, capsys):
    from aldriver.cli.main import main
    from aldriver.core.frames import write_frames

    write_frames(tmp_path / "cells.extxyz", cells(160, 8))
    with pytest.raises(SystemExit) as stopped:
        main(["export", "eam:Fe_mm.eam.fs", str(tmp_path / "a"), "--surrogate"])
    assert stopped.value.code == 2 and "--frames" in capsys.readouterr().err
    given = ["export", "eam:Fe_mm.eam.fs", str(tmp_path / "out"), "--frames", str(tmp_path / "cells.extxyz")]
    with pytest.raises(SystemExit) as stopped:
        main([*given, "--tolerance", "80", "--json"])
    assert stopped.value.code in (0, None)
    result = json.loads(capsys.readouterr().out)
    pod = next(f for f in result["forms"] if f["form"] == "pair_style pod")
    assert pod["status"] == "exported" and result["surrogate"]["tolerance_meV_A"] == 80.0
    card = (tmp_path / "out" / "card.md").read_text()
    assert "## The native surrogate" in card and "times faster" in card
    assert "## Licence and citation" in card and "J. Comput. Phys. 480" in card
