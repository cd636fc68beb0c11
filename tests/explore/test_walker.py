"""Walkers: samples and scores, reason codes, errors, continuation, determinism; in both engines."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from ase.build import bulk

from aldriver.core.errors import InputError
from aldriver.core.frames import frame_hash, read_frames, write_frames
from aldriver.explore import HealthLimits, MDProtocol, run_walker
from aldriver.explore.health import temperature
from aldriver.explore.perturb import thermalise

ENGINES = pytest.mark.parametrize("engine", ["lammps", "ase"])
SHORT = MDProtocol(temperature_K=400, steps=30, sample_every=5, seed=2)


@ENGINES
def test_samples_carry_labels_momenta_and_provenance(eam_fe, hot_vacancy, engine, tmp_path):
    hot_vacancy.info = {"system": "vacancy", "group": "old", "frame_id": "old"}
    result = run_walker(eam_fe, hot_vacancy, SHORT, engine=engine, group="w-3")
    assert (result.reason, result.steps_done, len(result.frames)) == ("completed", 30, 6)
    assert [f.info["step"] for f in result.frames] == [5, 10, 15, 20, 25, 30]
    for frame in result.frames:
        assert frame.info["group"] == "w-3" and frame.info["system"] == "vacancy"
        assert frame.info["frame_id"] == frame_hash(frame)
        assert frame.info["temperature_K"] == pytest.approx(temperature(frame))
        assert frame.calc.results["stress"].shape == (6,)
        assert frame.get_momenta().any()
    write_frames(tmp_path / "frames.extxyz", result.frames)
    back = read_frames(tmp_path / "frames.extxyz", labelled=True)
    np.testing.assert_allclose(back[-1].get_forces(), result.frames[-1].get_forces(), atol=1e-7)
    np.testing.assert_allclose(back[-1].get_momenta(), result.frames[-1].get_momenta(), atol=1e-7)


@ENGINES
def test_the_scorer_sees_features_from_the_same_evaluation(wrapped, fe_vacancy, engine):
    potential, seen = wrapped(), []

    def scorer(atoms, prediction):
        seen.append((atoms.copy(), prediction))
        return {"novelty": float(np.abs(prediction.features[:, :3]).max())}

    result = run_walker(potential, fe_vacancy, SHORT, engine=engine, scorer=scorer)
    assert len(seen) == len(result.scores) == 6
    for frame, (atoms, prediction), score in zip(result.frames, seen, result.scores, strict=True):
        np.testing.assert_array_equal(frame.positions, atoms.positions)
        np.testing.assert_array_equal(prediction.features[:, :3], frame.get_forces())  # of this very frame
        assert frame.info["score_novelty"] == score["novelty"] == np.abs(frame.get_forces()).max()
    assert len(potential.asked) == 31  # the start and each step once: sampling costs no evaluation
    assert sum(features for _, features in potential.asked) == 6


@ENGINES
def test_stress_is_asked_only_where_it_is_used(wrapped, fe_vacancy, engine):
    nvt = wrapped()
    run_walker(nvt, fe_vacancy, SHORT, engine=engine)
    assert sum(stress for stress, _ in nvt.asked) == 7  # the start and six samples
    npt = wrapped()
    run_walker(npt, fe_vacancy, dataclasses.replace(SHORT, ensemble="npt"), engine=engine)
    assert all(stress for stress, _ in npt.asked)
    assert len(npt.asked) == 31
    assert not any(features for _, features in npt.asked)  # nobody scores


@ENGINES
def test_a_walker_that_leaves_physics_keeps_the_frames_before(wrapped, fe_vacancy, engine):
    """A potential that from call 18 pushes all atoms hard: the walker ends at the next sample that shows it."""

    def push(call, p):
        return dataclasses.replace(p, forces=p.forces * 1e3) if call >= 18 else p

    limits = HealthLimits(max_force_eV_A=1e9, max_energy_jump_eV_atom=1e9, min_distance=1e-3, max_temperature_K=3000)
    result = run_walker(wrapped(push), fe_vacancy, SHORT, engine=engine, health=limits)
    assert result.reason == "hot" and "step 20" in result.message
    assert [f.info["step"] for f in result.frames] == [5, 10, 15]
    assert result.steps_done == 20
    assert result.last.info["step"] == 15
    np.testing.assert_array_equal(result.last.get_momenta(), result.frames[-1].get_momenta())


def _nan_forces(call, p):
    return dataclasses.replace(p, forces=np.full_like(p.forces, np.nan)) if call == 13 else p


def _inf_energy(call, p):
    return dataclasses.replace(p, energy=np.inf) if call == 13 else p


def _raise(call, p):
    if call == 13:
        raise RuntimeError("the model burnt down")
    return p


def _jump(call, p):
    return dataclasses.replace(p, energy=p.energy + 500.0) if call >= 13 else p


def _strong(call, p):
    kick = np.zeros_like(p.forces)
    kick[4, 1] = 200.0
    return dataclasses.replace(p, forces=p.forces + kick) if call == 16 else p


@ENGINES
@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        (_nan_forces, "not_finite", "a force that is not finite at step 12"),
        (_inf_energy, "not_finite", "an energy that is not finite at step 12"),
        (_raise, "error", "RuntimeError: the model burnt down"),
        (_jump, "energy_jump", "step 15"),
        (_strong, "force", "step 15"),
    ],
)
def test_reason_codes(wrapped, fe_vacancy, engine, change, code, says):
    result = run_walker(wrapped(change), fe_vacancy, SHORT, engine=engine)
    assert result.reason == code and says in result.message
    assert [f.info["step"] for f in result.frames] == [5, 10]
    assert result.last.info["step"] == 10
    again = run_walker(wrapped(), fe_vacancy, SHORT, engine=engine)  # nothing is left behind in this process
    assert again.reason == "completed"


@ENGINES
def test_a_bad_start_ends_at_once(eam_fe, wrapped, fe_vacancy, engine):
    fe_vacancy.positions[0] = fe_vacancy.positions[1] + [0.3, 0, 0]
    result = run_walker(eam_fe, fe_vacancy, SHORT, engine=engine)
    assert (result.reason, result.steps_done, result.frames) == ("too_close", 0, [])
    np.testing.assert_array_equal(result.last.positions, fe_vacancy.positions)
    assert result.last.get_momenta().any()
    nan = wrapped(lambda call, p: dataclasses.replace(p, energy=np.nan))
    assert run_walker(nan, bulk("Fe", cubic=True), SHORT, engine=engine).reason == "not_finite"


def test_the_errors_of_lammps_have_codes():
    from aldriver.potentials.fix_external import explained

    assert explained(Exception("ERROR: Lost atoms: original 15 current 14"), 7).kind == "lost_atoms"
    assert explained(Exception("ERROR: Non-numeric atom coords"), 7).kind == "not_finite"
    assert explained(Exception("ERROR: anything else"), 7).kind == "error"


def test_an_atom_missing_in_the_callback_ends_the_run(eam_fe, fe_vacancy):
    from aldriver.explore.commands import TEMPLATE, variables
    from aldriver.explore.engine import RunStopped, Watcher
    from aldriver.explore.session import Session

    session = Session(thermalise(fe_vacancy, 300.0))
    try:
        values = variables(SHORT, fe_vacancy, ["Fe"], "none", restarted=False)
        session.couple(Watcher(eam_fe, fe_vacancy, SHORT), TEMPLATE, values)
        session.command("run 0 post no\ngroup one id 3\ndelete_atoms group one compress no")
        with pytest.raises(RunStopped, match="1 of 15 atoms are lost") as stopped:
            session.command("run 5 post no")
        assert stopped.value.reason.code == "lost_atoms"
    finally:
        session.close()


@ENGINES
def test_an_interrupt_inside_a_step_reaches_the_caller(wrapped, fe_vacancy, engine):
    def interrupt(call, p):
        if call == 5:
            raise KeyboardInterrupt
        return p

    with pytest.raises(KeyboardInterrupt):
        run_walker(wrapped(interrupt), fe_vacancy, SHORT, engine=engine)


@ENGINES
def test_a_failing_scorer_ends_the_walker_with_its_message(eam_fe, fe_vacancy, engine):
    def scorer(atoms, prediction):
        raise ValueError("no such descriptor")

    result = run_walker(eam_fe, fe_vacancy, SHORT, engine=engine, scorer=scorer)
    assert result.reason == "error" and "no such descriptor" in result.message and result.frames == []


def test_on_sample_reports_and_its_errors_are_the_callers(eam_fe, fe_vacancy):
    steps = []
    run_walker(eam_fe, fe_vacancy, SHORT, on_sample=lambda frame, scores: steps.append(frame.info["step"]))
    assert steps == [5, 10, 15, 20, 25, 30]

    def broken(frame, scores):
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        run_walker(eam_fe, fe_vacancy, SHORT, on_sample=broken)


@ENGINES
def test_same_seed_same_walk(eam_fe, hot_vacancy, engine):
    a, b, c = (
        run_walker(eam_fe, hot_vacancy, dataclasses.replace(SHORT, seed=s), engine=engine).frames[-1] for s in (7, 7, 8)
    )
    np.testing.assert_array_equal(a.positions, b.positions)
    np.testing.assert_array_equal(a.get_momenta(), b.get_momenta())
    assert np.abs(a.positions - c.positions).max() > 1e-3


@ENGINES
def test_two_halves_make_the_whole(eam_fe, hot_vacancy, engine):
    """NVE has no memory but the frame: going on from `last` gives the trajectory of one longer run."""
    whole = MDProtocol(ensemble="nve", temperature_K=400, steps=40, sample_every=10, seed=2)
    half = dataclasses.replace(whole, steps=20)
    straight = run_walker(eam_fe, hot_vacancy, whole, engine=engine)
    first = run_walker(eam_fe, hot_vacancy, half, engine=engine)
    second = run_walker(eam_fe, first.last, dataclasses.replace(half, seed=99), engine=engine)
    np.testing.assert_allclose(second.last.positions, straight.last.positions, atol=1e-9)
    np.testing.assert_allclose(second.last.get_momenta(), straight.last.get_momenta(), atol=1e-8)


def test_momenta_are_rescaled_only_when_asked(eam_fe, fe_vacancy):
    warm = thermalise(fe_vacancy, 100.0, seed=1)
    tiny = dataclasses.replace(SHORT, ensemble="nve", temperature_K=800.0, timestep_fs=0.01, steps=1, sample_every=1)
    kept = run_walker(eam_fe, warm, tiny).last
    assert temperature(kept) == pytest.approx(100.0, rel=0.02)
    scaled = run_walker(eam_fe, warm, dataclasses.replace(tiny, rescale=True)).last
    assert temperature(scaled) == pytest.approx(800.0, rel=0.02)


def test_chgnet_walker_has_magmoms_and_features(chgnet020):
    atoms = bulk("Fe", "bcc", a=2.85, cubic=True)
    shapes = []

    def scorer(frame, prediction):
        shapes.append(prediction.features.shape)
        return {}

    result = run_walker(chgnet020, atoms, dataclasses.replace(SHORT, steps=4, sample_every=2), scorer=scorer)
    assert result.reason == "completed" and shapes == [(2, 128), (2, 128)]
    assert np.all(result.frames[-1].calc.results["magmoms"] > 1.0)


@ENGINES
def test_input_that_cannot_run_is_refused(eam_fe, fe_vacancy, engine):
    from ase.constraints import FixAtoms

    slab = fe_vacancy.copy()
    slab.pbc = (True, True, False)
    slab.positions[0, 2] = -0.1
    with pytest.raises(InputError, match="outside the cell along vector c"):
        run_walker(eam_fe, slab, SHORT, engine=engine)
    slab.cell[2, 0] = 0.1
    with pytest.raises(InputError, match="perpendicular"):
        run_walker(eam_fe, slab, SHORT, engine=engine)
    slab.cell[2] = 0
    with pytest.raises(InputError, match="three vectors"):
        run_walker(eam_fe, slab, SHORT, engine=engine)
    fixed = fe_vacancy.copy()
    fixed.set_constraint(FixAtoms([0]))
    with pytest.raises(InputError, match="constraints"):
        run_walker(eam_fe, fixed, SHORT, engine=engine)
    with pytest.raises(InputError, match="Cu"):
        run_walker(eam_fe, bulk("Cu", cubic=True), SHORT, engine=engine)
    with pytest.raises(InputError, match="at least one atom"):
        run_walker(eam_fe, fe_vacancy[:0], SHORT, engine=engine)


def test_what_ase_cannot_do_is_refused(eam_fe, hot_vacancy):
    npt = dataclasses.replace(SHORT, ensemble="npt", flexible="aniso")
    with pytest.raises(InputError, match="orthogonal"):
        run_walker(eam_fe, hot_vacancy, npt, engine="ase")
    with pytest.raises(InputError, match="no such MD engine"):
        run_walker(eam_fe, hot_vacancy, npt, engine="gromacs")
