"""What a surrogate of a campaign's potential is made from: its trajectories, and rattled, strained and defective cells.

Fitting and judging the surrogate is ``export/surrogate.py``'s business.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aldriver.core.records import PropertyRecord, read_json
from aldriver.core.store import is_published, sha256_file
from aldriver.workflow.campaign import Campaign, open_campaign
from aldriver.workflow.stages import seed_for
from aldriver.workflow.storing import test_frames

if TYPE_CHECKING:
    from ase import Atoms

    from aldriver.detect import Detector
    from aldriver.export.surrogate import Material
    from aldriver.potentials import Potential

HELD_OUT_EVERY = 4
"""Every fourth walker, in all generations, is kept to judge the surrogate by: a walker goes on where it last was."""
MADE_SHARE = 0.3
"""Share of made cells among what is learnt; the rest are frames of the trajectories."""
STRAIN, SHEAR, RATTLE_A = 0.05, 0.02, 0.12
"""Largest isotropic strain, scatter of the other components, largest displacement (standard deviation)."""
SMALL, MADE_ATOMS = 8, 130
"""Smaller cells are left whole; larger ones of the benchmark cost the parent more than they teach."""


def campaign_material(
    root: str | Path, detector: Detector, potential: Potential, *, max_force_rmse_meV_A: float | None = None
) -> Material:
    """Configurations, labelled frames and benchmark of a campaign, for its promoted potential.

    Parameters
    ----------
    detector
        Of `potential`: tells configurations apart where there are more than ``export.surrogate.frames``.
    max_force_rmse_meV_A
        Tolerance in place of the recipe's.
    """
    from aldriver.export.surrogate import Material

    campaign = open_campaign(root)
    settings = campaign.recipe.export.surrogate
    learn, heldout = _trajectories(campaign)
    made = made_cells(campaign, round(MADE_SHARE * settings.frames))
    return Material(
        learn=spread(learn, settings.frames - len(made), detector, potential, campaign.recipe.seed) + made,
        heldout=spread(heldout, settings.frames // HELD_OUT_EVERY, detector, potential, campaign.recipe.seed),
        labelled=_labelled(campaign),
        max_force_ratio=settings.max_force_ratio,
        max_force_rmse_meV_A=max_force_rmse_meV_A or settings.max_force_rmse_meV_A,
        measure=lambda surrogate: _measured(campaign, surrogate),
        parent_records=_measured(campaign, potential),
        cache=campaign.root / "cache" / "surrogate",
    )


def campaign_facts(root: str | Path, fingerprint: str) -> dict[str, Any]:
    """For the card of a campaign's potential: sums of its data files, and its benchmark beside the reference's."""
    campaign = open_campaign(root)
    last, _ = campaign.frontier()
    for g in range(last, -1, -1):
        path = campaign.stage(g, "train") / "result.json"
        if not path.is_file() or read_json(path).get("fingerprint") != fingerprint:
            continue
        files = [campaign.stage(g, "train") / name for name in ("train.extxyz", "valid.extxyz")]
        reference = _values(campaign.stage(0, "reference") / "records.json")
        found = _values(campaign.stage(g, "benchmark") / "records.json")
        rows = {
            name: {"value": value, "unit": unit, "reference": reference.get(name, (None, ""))[0]}
            for name, (value, unit) in found.items()
        }
        return {"data_sha256": {f.name: sha256_file(f) for f in files if f.is_file()}, "benchmark": rows}
    return {}


def _values(path: Path) -> dict[str, tuple[float | None, str]]:
    """``case/property``: value (None where it did not converge) and unit."""
    records = read_json(path) if path.is_file() else []
    return {f"{r['case']}/{r['property']}": (r["value"] if r["converged"] else None, r["unit"]) for r in records}


def spread(frames: Sequence[Atoms], count: int, detector: Detector, potential: Potential, seed: int) -> list[Atoms]:
    """At most `count` frames that stand for all: those nearest to the centres of as many k-means clusters.

    Selection as in Radova et al., npj Comput. Mater. (2025), of the detector's vectors of frames.
    """
    if len(frames) <= count:
        return list(frames)
    from sklearn.cluster import KMeans

    vectors = detector.frame_vectors(frames, potential=potential)
    usable = np.flatnonzero(np.isfinite(vectors).all(axis=1))
    if len(usable) <= count:
        return [frames[int(i)] for i in usable]
    rows = vectors[usable]
    found = KMeans(count, n_init=1, random_state=seed).fit(rows)
    distance = np.linalg.norm(rows - found.cluster_centers_[found.labels_], axis=1)
    best = [min(np.flatnonzero(found.labels_ == k), key=distance.__getitem__) for k in np.unique(found.labels_)]
    return [frames[int(usable[i])] for i in sorted(best)]


def made_cells(campaign: Campaign, count: int) -> list[Atoms]:
    """Strained and rattled copies of the recipe's systems and of the benchmark's crystals, every other with a vacancy.

    Small cells of the crystals are strained only: what bulk moduli and elastic constants ask for.
    """
    from aldriver.benchmark.cases import conventional_cell
    from aldriver.core.systems import build_systems
    from aldriver.explore.perturb import rattle, strain

    cases = campaign.recipe.benchmark.cases
    crystals = [conventional_cell(case) for case in cases]
    supercells = [cell.repeat(case.supercell) for cell, case in zip(crystals, cases, strict=True)]
    hot = [*build_systems(campaign.recipe) * 2, *(cell for cell in supercells if len(cell) <= MADE_ATOMS)]
    kinds = [(cell, 0.0) for cell in crystals] + [(cell, RATTLE_A) for cell in hot]
    cells: list[Atoms] = []
    for i in range(count):
        start, amplitude = kinds[i % len(kinds)]
        random = np.random.default_rng(seed_for(campaign.recipe.seed, "surrogate", i))
        cell = start.copy()
        if amplitude and (i // len(kinds)) % 2 and len(cell) > SMALL:
            del cell[int(random.integers(len(cell)))]
        volume = random.uniform(-STRAIN, STRAIN)
        shape = random.normal(0.0, SHEAR, 6)
        cell = strain(cell, np.concatenate([volume + shape[:3] / 2, shape[3:]]))
        cells.append(rattle(cell, amplitude * random.uniform(0.0, 1.0), seed=i))
    return cells


def _trajectories(campaign: Campaign) -> tuple[list[Atoms], list[Atoms]]:
    """Sampled frames of all generations: those to learn from, and those of the walkers held out.

    Where there are too few walkers for that, the last quarter of each trajectory is held out.
    """
    from aldriver.core.frames import read_frames

    last, _ = campaign.frontier()
    runs: dict[int, list[list[Atoms]]] = {}
    for g in range(1, last + 1):
        for folder in sorted((campaign.generation(g) / "explore").glob("walker-*")):
            if is_published(folder):
                runs.setdefault(int(folder.name.split("-")[1]), []).append(read_frames(folder / "frames.extxyz"))
    learn: list[Atoms] = []
    heldout: list[Atoms] = []
    for index, parts in runs.items():
        for frames in parts:
            if len(runs) < HELD_OUT_EVERY:
                cut = len(frames) - len(frames) // HELD_OUT_EVERY
                learn, heldout = learn + frames[:cut], heldout + frames[cut:]
            elif index % HELD_OUT_EVERY == HELD_OUT_EVERY - 1:
                heldout += frames
            else:
                learn += frames
    return learn, heldout


def _labelled(campaign: Campaign) -> list[Atoms]:
    """Frames with the reference's own forces that the potential was not trained on: test set, else validation."""
    from aldriver.core.frames import read_frames

    frames = test_frames(campaign)
    if frames:
        return frames
    last, _ = campaign.frontier()
    for g in range(last, 0, -1):
        path = campaign.stage(g, "train") / "valid.extxyz"
        promoted = campaign.is_published(g, "gate") and campaign.decision(g).get("decision") == "promote"
        if promoted and path.is_file():
            return read_frames(path, labelled=True)
    return []


def _measured(campaign: Campaign, potential: Potential) -> list[PropertyRecord]:
    from aldriver.benchmark.suite import run_suite

    return run_suite(potential, campaign.recipe.benchmark, cache_dir=campaign.cache)
