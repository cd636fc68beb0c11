from __future__ import annotations

import time

from aldriver.benchmark import settled, speed
from aldriver.benchmark.suite import run_suite
from aldriver.core.recipe_benchmark import Benchmark
from aldriver.core.records import PropertyRecord


def measured(potential, case, cache=None):
    settings = Benchmark(properties=["speed"], cases=[case], speed={"duration_s": 0.2})
    return run_suite(potential, settings, cache_dir=cache)[0]


def test_a_rate_with_its_spread(fe, bcc_fe):
    record = measured(fe, bcc_fe)
    assert record.converged and record.value > 0 and record.error >= 0
    assert record.protocol.endswith("3x3x3") and record.unit == "steps/s"
    assert record.atom_calls == 54 * record.force_calls
    assert record.force_calls >= speed.BLOCKS + 1


def test_a_slow_potential_is_slow(fe, bcc_fe, changed):
    def wait(_, p):
        time.sleep(0.05)
        return p

    assert measured(changed(fe, wait), bcc_fe).value < 20  # no step takes less than 0.05 s


def test_another_machine_is_another_value(fe, bcc_fe, tmp_path, monkeypatch):
    first = measured(fe, bcc_fe, tmp_path)
    assert measured(fe, bcc_fe, tmp_path) == first
    monkeypatch.setattr(speed.platform, "node", lambda: "elsewhere")
    assert measured(fe, bcc_fe, tmp_path) != first


def test_speed_never_keeps_a_campaign_from_settling():
    def records(rate):
        return [
            PropertyRecord(property="md_speed", case="bcc-Fe", value=rate, unit="steps/s"),
            PropertyRecord(property="c44", case="bcc-Fe", value=100.0, unit="GPa"),
        ]

    assert settled.step(None, None, (records(1.0), records(100.0))).benchmark
