from __future__ import annotations

import numpy as np
import pytest

from aldriver.benchmark.gate import GenerationScore, decide
from aldriver.benchmark.settled import Coverage, ratio_interval, step, stop_reason
from aldriver.core.recipe import Gate, Stop
from aldriver.core.records import PropertyRecord


def errors(n: int, factor: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    before = rng.lognormal(sigma=0.5, size=n)
    return before, factor**2 * before * rng.lognormal(sigma=0.1, size=n)


def records(modulus: float | None, vacancy: float = 1.7) -> list[PropertyRecord]:
    values = {"bulk_modulus": (modulus, "GPa"), "vacancy_formation_energy": (vacancy, "eV")}
    return [
        PropertyRecord(property=k, case="bcc-Fe", value=v, unit=u, converged=v is not None)
        for k, (v, u) in values.items()
    ]


def coverage(first: int, second: int, *, n: int = 2000, promised: bool = True) -> tuple[Coverage, Coverage]:
    known = Coverage(candidates=n, flagged=first, promised=True)
    return known, Coverage(candidates=n, flagged=second, promised=promised)


STILL = (errors(60, 1.0), coverage(200, 210), (records(177.0), records(177.9)))


def test_all_three_settle_together():
    found = step(*STILL)
    assert (found.error, found.coverage, found.benchmark) == (True, True, True) and found.settled
    for part in ("force RMSE ×1", "flagged 10%", "bulk_modulus of bcc-Fe"):
        assert part in found.sentence


@pytest.mark.parametrize(
    ("part", "value", "name"),
    [
        (0, errors(60, 0.8), "error"),
        (0, errors(60, 1.3), "error"),
        (0, None, "error"),
        (1, coverage(200, 600), "coverage"),
        (1, coverage(200, 200, promised=False), "coverage"),
        (1, coverage(2, 2, n=20), "coverage"),
        (1, None, "coverage"),
        (2, (records(177.0), records(185.0)), "benchmark"),
        (2, (records(177.0), records(None)), "benchmark"),
        (2, ([], []), "benchmark"),
    ],
)
def test_what_still_moves_or_is_not_known_has_not_settled(part, value, name):
    found = step(*[value if k == part else v for k, v in enumerate(STILL)])
    assert not found.settled and not getattr(found, name)
    assert sum((found.error, found.coverage, found.benchmark)) == 2


def test_few_frames_never_pass_for_a_standstill():
    rng = np.random.default_rng(1)
    for seed in range(20):
        before = rng.lognormal(sigma=1.0, size=4)
        after = before * np.random.default_rng(seed).lognormal(sigma=0.8, size=4)
        assert not step((before, after), *STILL[1:]).error


def test_the_interval_covers_the_true_ratio():
    inside = 0
    for seed in range(200):
        before, after = errors(40, 0.9, seed)
        _, low, high = ratio_interval(before, after, seed=seed)
        truth = 0.9 * np.sqrt(np.exp(0.1**2 / 2))  # of the scatter's mean
        inside += low <= truth <= high
    assert inside >= 180  # of nominal 190


def test_two_settled_generations_in_a_row_stop_the_campaign():
    now, moving = step(*STILL), {"settled": False}
    assert stop_reason(now, None) == stop_reason(now, moving) == ""
    reason = stop_reason(now, {"settled": True})
    assert reason.startswith("errors, coverage and benchmark have settled over two generations")
    score = GenerationScore(name="generation 3", evaluation={"forces_rmse_meV_A": 60.0})
    common = (score, score, {}, Gate())
    found = decide(*common, Stop(generations=9), 3, 40, settled=reason)
    assert found.stop and found.stop_reason == reason
    assert not decide(*common, Stop(generations=9, settled=False), 3, 40, settled=reason).stop
    assert not decide(*common, Stop(generations=9), 3, 40).stop
