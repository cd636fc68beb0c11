"""A walker that is interrupted and goes on gives the trajectory of one that is not: both engines, every ensemble."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest

from aldriver.explore import HealthLimits, MDProtocol, Swaps, run_walker

BASE = MDProtocol(temperature_K=600, steps=60, sample_every=5, timestep_fs=2.0, tdamp_fs=50.0, pdamp_fs=100.0, seed=3)
NPT = {"ensemble": "npt", "pressure_GPa": 2.0}
LAMMPS = {
    "nve": {"ensemble": "nve"},
    "nvt": {},
    "langevin": {"thermostat": "langevin"},
    "ramp": {"temperature_end_K": 900.0},
    "langevin ramp": {"thermostat": "langevin", "temperature_end_K": 900.0},
    "npt iso": NPT,
    "npt aniso": NPT | {"flexible": "aniso"},
    "npt tri": NPT | {"flexible": "tri"},
    "npt ramp": NPT | {"pressure_end_GPa": 8.0},
    "npt langevin": NPT | {"thermostat": "langevin"},
    "deform": {"deform_per_ps": {"zz": 0.3, "xy": 0.2}},
    "tensile": {"ensemble": "npt", "flexible": "aniso", "deform_per_ps": {"zz": 0.3}},
}
ASE = {k: LAMMPS[k] for k in ("nve", "nvt", "langevin", "langevin ramp", "npt iso", "npt tri")}


class Killed(BaseException):
    """A process that dies: nobody catches it."""


def die_at(step):
    """`on_sample` that dies after the sample at `step`, before it is saved."""

    def die(frame, scores):
        if frame.info["step"] == step:
            raise Killed

    return die


def score(atoms, prediction):
    return {"f": float(np.abs(prediction.forces).max())}


def interrupted(potential, atoms, protocol, engine, folder, *, at, **options):
    """Run, die after the sample at step `at`, and run again."""
    run = functools.partial(run_walker, potential, atoms, protocol, engine=engine, **options)
    with pytest.raises(Killed):
        run(on_sample=die_at(at), checkpoint=folder, checkpoint_every=2)
    return run(checkpoint=folder, checkpoint_every=2)


def assert_same(a, b):
    assert (a.reason, a.steps_done, len(a.frames)) == ("completed", b.steps_done, len(b.frames))
    for left, right in zip(a.frames, b.frames, strict=True):
        assert left.info["step"] == right.info["step"]
        np.testing.assert_allclose(left.positions, right.positions, atol=1e-8, rtol=0)
        np.testing.assert_allclose(np.asarray(left.cell), np.asarray(right.cell), atol=1e-8, rtol=0)
        np.testing.assert_allclose(left.get_momenta(), right.get_momenta(), atol=1e-8, rtol=0)
        assert left.get_potential_energy() == pytest.approx(right.get_potential_energy(), abs=1e-8)
        np.testing.assert_allclose(left.get_stress(), right.get_stress(), atol=1e-8, rtol=0)


@pytest.mark.parametrize(
    ("engine", "what"), [("lammps", k) for k in LAMMPS] + [("ase", k) for k in ASE], ids=lambda v: v.replace(" ", "-")
)
def test_a_killed_walker_goes_on_exactly(eam_fe, hot_vacancy, engine, what, tmp_path):
    """Saved at step 10, killed at 15: the 50 steps that follow are those of the run nobody stopped."""
    protocol = dataclasses.replace(BASE, **LAMMPS[what])
    straight = run_walker(eam_fe, hot_vacancy, protocol, engine=engine)
    again = interrupted(eam_fe, hot_vacancy, protocol, engine, tmp_path / "c", at=15)
    assert_same(again, straight)


def test_swaps_go_on_with_their_random_numbers(lj_alloy, tmp_path):
    potential, atoms = lj_alloy
    swaps = Swaps(pairs=(("Cu", "Ar"),), every=5, attempts=2)
    protocol = dataclasses.replace(BASE, temperature_K=3000, swaps=swaps, steps=30, thermostat="langevin")
    limits = HealthLimits(min_distance=0.1, max_force_eV_A=1e4, max_energy_jump_eV_atom=1e4)
    straight = run_walker(potential, atoms, protocol, health=limits)
    again = interrupted(potential, atoms, protocol, "lammps", tmp_path, at=15, health=limits)
    assert straight.swaps == again.swaps and straight.swaps[1] > 0
    assert_same(again, straight)


def test_a_second_kill_and_scores(wrapped, eam_fe, fe_vacancy, tmp_path):
    """Killed twice; each sample is scored once in the process that keeps it, and nothing is evaluated that is there."""
    protocol = dataclasses.replace(BASE, steps=30)
    straight = run_walker(eam_fe, fe_vacancy, protocol, scorer=score)
    potentials = [wrapped() for _ in range(3)]
    for potential, at in zip(potentials, (15, 25, None), strict=True):
        run = functools.partial(run_walker, potential, fe_vacancy, protocol, scorer=score)
        if at is None:
            result = run(checkpoint=tmp_path, checkpoint_every=1)
        else:
            with pytest.raises(Killed):
                run(checkpoint=tmp_path, checkpoint_every=1, on_sample=die_at(at))
    # saved at 10 and 20: the sample at which it died is walked again
    assert [len(p.asked) for p in potentials] == [16, 15, 10]
    assert_same(result, straight)
    assert [s["f"] for s in result.scores] == pytest.approx([s["f"] for s in straight.scores])
    assert [f.info["score_f"] for f in result.frames] == [s["f"] for s in result.scores]


def test_a_checkpoint_of_another_walk_goes(eam_fe, fe_vacancy, tmp_path):
    protocol = dataclasses.replace(BASE, steps=20)
    with pytest.raises(Killed):
        run_walker(eam_fe, fe_vacancy, protocol, checkpoint=tmp_path, checkpoint_every=1, on_sample=die_at(15))
    changed = dataclasses.replace(protocol, temperature_K=700.0)
    result = run_walker(eam_fe, fe_vacancy, changed, checkpoint=tmp_path, checkpoint_every=1)
    assert_same(result, run_walker(eam_fe, fe_vacancy, changed))


@pytest.mark.parametrize("damaged", ["walk.json", "state-*.npz", "samples-*.npz"])
def test_a_damaged_checkpoint_starts_anew(eam_fe, fe_vacancy, damaged, tmp_path):
    protocol = dataclasses.replace(BASE, steps=20)
    with pytest.raises(Killed):
        run_walker(eam_fe, fe_vacancy, protocol, checkpoint=tmp_path, checkpoint_every=1, on_sample=die_at(15))
    for path in tmp_path.glob(damaged):
        path.write_bytes(path.read_bytes()[:50])
    assert_same(run_walker(eam_fe, fe_vacancy, protocol, checkpoint=tmp_path), run_walker(eam_fe, fe_vacancy, protocol))
