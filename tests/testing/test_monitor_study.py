"""The monitor study in small: two embedded-atom potentials of aluminium, one the truth, the other on trial."""

from __future__ import annotations

import pytest
from ase.build import bulk

import aldriver
from aldriver.core.frames import with_labels
from aldriver.core.recipe_detect import Detect
from aldriver.detect import Detector
from aldriver.explore import MDProtocol, run_walker
from aldriver.testing import monitor_page, monitor_study
from aldriver.testing.closed_loop import Loop

HEATED = "fix md all nvt temp 300 6000 0.02"
CALM = "fix md all nvt temp 300 300 0.2"
STEPS = 150


@pytest.fixture(scope="module")
def trial():
    """Potential on trial, truth, start cell, a detector calibrated on the potential's own MD at 300 K."""
    potential, truth = aldriver.load("eam:AlCu.eam.alloy"), aldriver.load("eam:Al_zhou.eam.alloy")
    start = bulk("Al", "fcc", a=4.05, cubic=True) * (2, 2, 2)
    sides: list[list] = [[], []]
    for seed in range(12):
        protocol = MDProtocol(temperature_K=300.0, steps=STEPS, timestep_fs=2.0, sample_every=15, seed=seed)
        frames = run_walker(potential, start, protocol, group=str(seed)).frames
        told = truth.evaluate(frames)
        side = sides[seed % 2]
        side += [with_labels(f, energy=p.energy, forces=p.forces) for f, p in zip(frames, told, strict=True)]
    errors = [((f.get_forces() - p.forces) ** 2).sum(axis=1).mean() ** 0.5 for f, p in
              zip(sides[1], potential.evaluate(sides[1]), strict=True)]  # fmt: skip
    tolerance = 2.0 * max(errors)
    settings = {"signals": ["soap_q"], "score": "soap_q", "soap": {"n_max": 4, "l_max": 3}}
    settings |= {"tolerance_meV_A": 1000.0 * tolerance}
    detector = Detector.fit(sides[0], potential, Detect.model_validate(settings), heldout=sides[1])
    assert detector.calibration.pooled.outcome == "accurate"
    return potential, truth, start, detector, tolerance


def watched(trial, tmp_path, motion, *, steps, start_K, seed):
    potential, truth, start, detector, _ = trial
    settings = {"data": "structure.data", "timestep": 0.002, "steps": steps, "start_K": start_K, "seed": seed}
    text = monitor_study.INPUT.format(motion=motion, **settings)
    work = tmp_path / f"run-{seed}"
    work.mkdir()
    # an embedded-atom step is cheaper than a look
    return monitor_study.guarded(potential, detector, truth, start, text, work, share=0.9)


def test_the_alarm_comes_before_the_error(trial, tmp_path):
    tolerance = 1000.0 * trial[-1]
    for seed in range(4):
        facts = watched(trial, tmp_path, HEATED, steps=200, start_K=600.0, seed=seed + 1)
        alarm, bad = monitor_page.firsts(facts, tolerance)
        assert bad is not None and alarm < bad and monitor_page.outcome(facts, tolerance) == "before"
        assert all(outside for _, _, error, outside in facts["trace"] if error > tolerance)


def test_inside_false_alarms_are_rare(trial, tmp_path, monkeypatch):
    """Promised: at most 1/61 of exchangeable frames; of 40, five or more by chance have a probability below 0.001."""
    tolerance = 1000.0 * trial[-1]
    monkeypatch.setattr(monitor_page, "TOLERANCES_MEV_A", (tolerance,))
    found = [watched(trial, tmp_path, CALM, steps=STEPS, start_K=300.0, seed=seed + 11) for seed in range(6)]
    assert all(monitor_page.firsts(facts, tolerance)[1] is None for facts in found)
    alarmed, seen = monitor_page.false_alarms(found)
    assert 30 <= seen <= 45 and alarmed <= 4


def test_the_hop_leads_a_neighbour_into_the_vacancy():
    atoms = Loop().systems["vacancy"]
    lengths = set()
    for k in range(8):
        atom, way = monitor_study.hopper(atoms, k)
        moved = atoms.copy()
        moved.positions[atom] += way
        nearest = moved.get_distances(atom, [i for i in range(len(atoms)) if i != atom], mic=True).min()
        assert nearest == pytest.approx(2.84 * 3**0.5 / 2, rel=1e-3)  # a site of the lattice, not on another atom
        lengths.add(round(float((way**2).sum() ** 0.5), 3))
    assert lengths == {round(2.84 * 3**0.5 / 2, 3)}


def test_outcomes_and_page(tmp_path):
    def run(alarm, bad, kind="hop"):
        """Looks at each of 40 steps; outside from `alarm` on, 120 meV/Å from `bad` on."""
        steps = range(40)
        trace = [
            [s, 0.5, 120.0 if bad is not None and s >= bad else 10.0, alarm is not None and s >= alarm] for s in steps
        ]
        facts = {"kind": kind, "cpu_s": 60.0, "calibration_frames": 36, "promise": "accurate", "share": 0.02}
        return facts | {"steps": 40, "trace": trace}

    runs = [run(*one) for one in ((3, 5), (5, 5), (7, 5), (None, 5), (3, None), (None, None))]
    assert [monitor_page.outcome(r, 100.0) for r in runs] == ["before", "together", "late", "late", "before", "never"]
    assert monitor_page.outcome(runs[2], 150.0) == "before" and "late" in monitor_page.summary(runs[2])
    found = [run(3, 5)] * 9 + [run(7, 5)] + [run(None, None, "inside")] * 3
    text = monitor_page.sections(found)["verdict"]
    assert "in 9 of the 10 runs" in text and "(90 %" in text and "in 1 too late" in text and "earlier, reached" in text
    assert "2 were not flagged" in text and "Tolerance 150 meV/Å: in 0 of the 0 runs" in text
    begun = monitor_page.sections([*found, run(0, 0), run(1, 0)])["verdict"]
    assert "in 9 of the 10 runs" in begun and "2 runs began above it: 1 of them" in begun
    assert "0 of 3 frames" in text and "the interval holds it" in text
    assert "not reached" in monitor_page.sections([run(7, 5), run(3, 5)])["verdict"]
    assert "| 100 | 10 | 9 | 0 | 1 | 2 |" in monitor_page.sections(found)["runs"]
    monitor_page.draw(found, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert set(monitor_study.names()) == {f"{kind}-{k}" for kind, n in monitor_study.KINDS.items() for k in range(n)}
    assert sum(n for kind, n in monitor_study.KINDS.items() if kind != "inside") >= 20
