"""A walker's guard is the monitor's: it looks on in both engines, and ends a run that leaves what is known."""

from __future__ import annotations

import pytest
from monitor_helpers import shaken

from aldriver.explore import MDProtocol, run_walker
from aldriver.monitor.live import LiveGuard


@pytest.mark.parametrize("engine", ["lammps", "ase"])
def test_a_walker_ends_where_the_guard_says_so(engine, pair, recorder, looks_of):
    for kelvin, action in ((300.0, "stop"), (6000.0, "stop"), (6000.0, "log")):
        guard = LiveGuard(recorder(f"{engine}-{kelvin:g}-{action}", resume=False), action=action, share=0.9)
        protocol = MDProtocol(ensemble="nve", temperature_K=kelvin, steps=60, timestep_fs=1.0, sample_every=20)
        result = run_walker(pair[0], shaken(0.0, 1), protocol, engine=engine, guard=guard)
        looks = looks_of(guard.recorder.journal.out)
        assert looks
        if action == "log" or kelvin < 1000.0:
            assert result.reason == "completed" and result.steps_done == 60
        else:
            assert result.reason == "guard" and result.message == guard.stopped
            assert looks[-1]["verdict"] == "flagged" and result.steps_done == looks[-1]["step"] < 60
