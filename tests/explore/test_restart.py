"""A walker that is interrupted and goes on gives the trajectory of one that is not: both engines, every ensemble."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from aldriver.explore import MDProtocol, run_walker

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


def interrupted(potential, atoms, protocol, engine, folder, *, at, every=2):
    """Run, die after the sample at step `at`, and run again."""

    def die(frame, scores):
        if frame.info["step"] == at:
            raise Killed

    with pytest.raises(Killed):
        run_walker(potential, atoms, protocol, engine=engine, on_sample=die, checkpoint=folder, checkpoint_every=every)
    return run_walker(potential, atoms, protocol, engine=engine, checkpoint=folder, checkpoint_every=every)


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
