"""The MD protocol refuses what makes no sense."""

from __future__ import annotations

import json

import pytest

from aldriver.core.errors import InputError
from aldriver.explore import MDProtocol, Swaps


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ensemble", "npH"),
        ("flexible", "full"),
        ("temperature_K", 0.0),
        ("temperature_K", float("nan")),
        ("timestep_fs", -1.0),
        ("tdamp_fs", 0.0),
        ("pressure_GPa", float("inf")),
        ("steps", 0),
        ("sample_every", 0),
        ("thermostat", "berendsen"),
        ("temperature_end_K", -1.0),
        ("pressure_end_GPa", float("nan")),
        ("dump_every", -1),
        ("deform_per_ps", {"z": 0.1}),
        ("deform_per_ps", {"zz": float("inf")}),
    ],
)
def test_nonsense_is_refused_by_name(field, value):
    with pytest.raises(InputError, match=field):
        MDProtocol(**{field: value})


def test_a_run_without_samples_is_refused():
    with pytest.raises(InputError, match="no frame is seen"):
        MDProtocol(steps=5, sample_every=10)


def test_damping_follows_the_timestep_unless_given():
    assert MDProtocol(timestep_fs=2.0).thermostat_fs == 200.0
    assert MDProtocol(timestep_fs=2.0).barostat_fs == 2000.0
    assert MDProtocol(tdamp_fs=50.0, pdamp_fs=70.0).thermostat_fs == 50.0


def test_the_last_step_is_always_sampled():
    protocol = MDProtocol(steps=25, sample_every=10)
    assert [s for s in range(1, 26) if protocol.is_sampled(s)] == [10, 20, 25]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"ensemble": "nve", "temperature_end_K": 500.0}, "thermostat"),
        ({"pressure_end_GPa": 1.0}, "barostat"),
        ({"ensemble": "npt", "deform_per_ps": {"zz": 0.1}}, "aniso"),
        ({"deform_per_ps": {"zz": -0.5}, "steps": 2000}, "close the cell"),
        ({"ensemble": "nve", "swaps": Swaps(pairs=(("Fe", "Cu"),))}, "swaps need a temperature"),
        ({"deform_per_ps": {"zz": 0.1}, "swaps": Swaps(pairs=(("Fe", "Cu"),))}, "nobody deforms"),
    ],
)
def test_what_does_not_go_together_is_refused(fields, says):
    with pytest.raises(InputError, match=says):
        MDProtocol(**fields)


@pytest.mark.parametrize("fields", [{"pairs": ()}, {"pairs": (("Fe", "Fe"),)}, {"pairs": (("Fe", "Cu"),), "every": 0}])
def test_swaps_that_make_no_sense(fields):
    with pytest.raises(InputError, match="swaps"):
        Swaps(**fields)


def test_targets_along_a_ramp():
    ramp = MDProtocol(temperature_K=300.0, temperature_end_K=900.0, steps=100)
    assert [ramp.target_K(step) for step in (0, 50, 100)] == [300.0, 600.0, 900.0]
    assert MDProtocol(temperature_K=300.0).target_K(7) == 300.0
    assert MDProtocol(ensemble="npt", pressure_GPa=2.0).pressures_GPa == (2.0, 2.0)


@pytest.mark.parametrize(
    "protocol",
    [
        MDProtocol(ensemble="npt", flexible="tri", pressure_GPa=1.5),
        MDProtocol(swaps=Swaps(pairs=(("Fe", "Cu"), ("Fe", "C")), every=7), temperature_end_K=500.0),
        MDProtocol(deform_per_ps={"zz": 0.1, "xy": -0.2}),
    ],
)
def test_json_round_trip(protocol):
    assert MDProtocol(**json.loads(json.dumps(protocol.to_json()))) == protocol
