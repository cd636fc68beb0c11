"""The MD protocol refuses what makes no sense."""

from __future__ import annotations

import json

import pytest

from aldriver.core.errors import InputError
from aldriver.explore import MDProtocol


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


def test_json_round_trip():
    protocol = MDProtocol(ensemble="npt", flexible="tri", pressure_GPa=1.5)
    assert MDProtocol(**json.loads(json.dumps(protocol.to_json()))) == protocol
