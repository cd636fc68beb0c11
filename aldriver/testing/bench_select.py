"""Selection from streams of 10⁴, 10⁵ and 10⁶ candidates: time and peak memory.

Run by ``aldriver.testing.bench``. Each size runs in a process of its own, whose peak memory is its own:
``python -m aldriver.testing.bench_select N``. The features are synthetic: walkers that drift slowly, most frames near
what is known, some far out.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aldriver.core.errors import AldriverError
from aldriver.testing.bench import BenchResult, bench

Array = NDArray[np.float64]

SIZES = (10_000, 100_000, 1_000_000)
WIDTH, CHUNK, WALKERS, BUDGET, AUDIT = 128, 10_000, 40, 100, 10
MOST_GB = 2.0


@bench("selection_stream")
def selection_stream(repeats: int = 1) -> BenchResult:
    """CPU time of the last decade against ten times that of the one before; one run of each size.

    Raises
    ------
    AldriverError
        When a size takes more than 2 GB.
    """
    runs = {n: _run(n) for n in SIZES}
    for n, one in runs.items():
        if one["peak_GB"] > MOST_GB:
            raise AldriverError(f"selection from {n} candidates took {one['peak_GB']:.2f} GB, above {MOST_GB:g}")
    decade, last = runs[SIZES[-2]], runs[SIZES[-1]]
    return BenchResult(
        name="selection_stream",
        what=f"{SIZES[-1]:.0e} candidates of width {WIDTH} streamed through selection: 10 × the time of a tenth / time",
        ratios=[10 * decade["cpu_s"] / last["cpu_s"]],
        baseline_ms=1e4 * decade["cpu_s"],
        ours_ms=1e3 * last["cpu_s"],
        target=0.8,
        notes={"sizes": runs, "thinning": thinning(SIZES[0])},
    )


def stream(n: int, seed: int = 0) -> Iterator[tuple[list[str], Array, Array, list[str]]]:
    """Chunks of n candidates: names, ratios, (n, 128) vectors, walkers.

    A walker drifts about a centre of its own, in a space where the width falls off with the dimension; the ratio grows
    with the distance from the origin, with noise. About a tenth lies above 1.
    """
    rng = np.random.default_rng(seed)
    scale = 1.0 / np.arange(1, WIDTH + 1)
    centres = rng.normal(size=(WALKERS, WIDTH)) * scale
    state = np.zeros((WALKERS, WIDTH))
    done = 0
    while done < n:
        steps = min(CHUNK, n - done) // WALKERS
        vectors = np.empty((steps, WALKERS, WIDTH))
        for k in range(steps):
            state = 0.95 * state + 0.3 * rng.normal(size=state.shape) * scale
            vectors[k] = centres + state
        x = vectors.reshape(-1, WIDTH)
        ratios = 0.3 * np.linalg.norm(x, axis=1) * rng.lognormal(0.0, 0.3, len(x))
        names = [f"{i:016x}" for i in range(done, done + len(x))]
        yield names, ratios, x, [str(k) for k in range(WALKERS)] * steps
        done += len(x)


def measure(n: int, pool: int | None = None) -> dict[str, Any]:
    """Select from a stream of n: CPU seconds of the selection alone, peak memory (GB), and what came of it."""
    from aldriver.detect.select import POOL, Selector

    selector = Selector(seed=0, audit=AUDIT, pool=pool or POOL)
    known = np.random.default_rng(1).normal(size=(200, WIDTH)) / np.arange(1, WIDTH + 1)
    cpu = 0.0
    for names, ratios, vectors, walkers in stream(n):
        start = time.process_time()
        selector.add(names, ratios, vectors, groups={"walker": walkers})
        cpu += time.process_time() - start
    start = time.process_time()
    selection = selector.select(budget=BUDGET, known=known, quotas={"walker": 10})
    cpu += time.process_time() - start
    wanted, picked = set(selection.chosen), []
    for k, (_, ratios, vectors, _) in enumerate(stream(n)):
        picked += [
            (ratios[p - k * CHUNK], vectors[p - k * CHUNK].copy()) for p in wanted if 0 <= p - k * CHUNK < len(ratios)
        ]
    return {
        "n": n,
        "cpu_s": cpu,
        "peak_GB": _peak_GB(),
        "flagged": selection.flagged,
        "picked": len(selection.indices),
        "gain": _gain(picked, known),
        "reasons": selection.reasons,
    }


def thinning(n: int) -> dict[str, float]:
    """What thinning costs: the summed gain (ratio × distance) of the picks, beside that of a pool that holds all."""
    thinned, whole = measure(n), measure(n, pool=n)
    return {"gain": thinned["gain"], "gain_of_the_whole": whole["gain"]}


def _gain(picked: list[tuple[float, Array]], known: Array) -> float:
    """Sum over the picks of ratio × distance to the nearest other pick or known frame."""
    from scipy.spatial.distance import cdist

    x = np.array([vector for _, vector in picked])
    between = cdist(x, x)
    np.fill_diagonal(between, np.inf)
    nearest = np.minimum(between.min(axis=1), cdist(x, known).min(axis=1))
    return float(np.sum(np.array([ratio for ratio, _ in picked]) * nearest))


def _peak_GB() -> float:
    # getrusage would give that of the process this one was forked from, where that is larger
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 2**20


def _run(n: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "aldriver.testing.bench_select", str(n)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise AldriverError(f"selection from {n} candidates failed: {done.stderr[-500:]}")
    return dict(json.loads(done.stdout))


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
